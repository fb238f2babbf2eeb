"""Folders that can't be looked into, where files of rules may lie for any of their datasets."""

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import intakerules, refusals
from catalog.models import IntakeRule, Refusal
from catalog.refs import RefusalKind
from catalog.refusals import RefusalInfo


def folders(session: Session, dataset: str, besides: int | None = None) -> list[RefusalInfo]:
    """Those of the rules, but for `besides`, that call their datasets so (`run-{run}`)."""
    rows = session.execute(
        sa.select(col(Refusal.id), col(Refusal.rule_id))
        .join(IntakeRule, col(IntakeRule.id) == col(Refusal.rule_id))
        .where(
            col(IntakeRule.active),
            col(IntakeRule.dataset) == dataset,
            col(IntakeRule.id) != (besides or 0),
            col(Refusal.kind) == RefusalKind.UNREADABLE,
            col(Refusal.dataset).is_(None),
            col(Refusal.settled_at).is_(None),
        )
    ).all()
    rules = {row.rule_id: intakerules.by_id(session, row.rule_id) for row in rows}
    wanted = {row.id for row in rows}
    return [
        item
        for rule in rules.values()
        for item in refusals.of_rule(session, rule.id)
        if item.id in wanted and rule.fault is None and rule.may_lie_below(item.path)
    ]
