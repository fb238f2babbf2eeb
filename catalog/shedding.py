"""Shedding: above a rule's mark what is overdue goes though it isn't done with, oldest first.

A person has decided that beforehand (`--shed-above`), so that a detector can go on writing; the
event of each dataset names the rule.
"""

from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import cattime, deletion, duties, dutywords, lifetimes, usage
from catalog.clock import now
from catalog.errors import Conflict
from catalog.models import Dataset, IntakeRule
from catalog.outage import isolated
from catalog.refs import Originals


def shed(session: Session) -> list[str]:
    """Mark for each rule whose storage is above its mark one dataset; gives their names.

    One at a time: the next when that one's bytes are gone, and the storage is as full still.
    """
    rules = session.execute(
        sa.select(
            col(IntakeRule.id),
            col(IntakeRule.name),
            col(IntakeRule.storage_id),
            col(IntakeRule.shed_percent),
            col(IntakeRule.lifetime_s),
        )
        .where(
            col(IntakeRule.active),
            col(IntakeRule.shed_percent).is_not(None),
            col(IntakeRule.lifetime_s).is_not(None),
        )
        .order_by(col(IntakeRule.id))
    ).all()
    if not rules or not cattime.may_remove(session):
        return []
    shares = {item.storage_id: item for item in usage.of_storages(session)}
    gone = []
    for rule in rules:
        place = shares.get(rule.storage_id)
        if place is None or place.share is None or 100 * place.share < rule.shed_percent:
            continue
        with isolated("intake rule", rule.name):
            if not _is_going(session, rule.id) and (name := _shed_one(session, rule, place)):
                gone.append(name)
    return gone


def _shed_one(session: Session, rule: sa.Row[Any], place: usage.Usage) -> str | None:
    row = session.execute(
        sa.select(col(Dataset.id), col(Dataset.name))
        .where(
            col(Dataset.rule_id) == rule.id,
            col(Dataset.closed_at) <= now(-rule.lifetime_s),
            lifetimes.is_overdue(session),
            sa.not_(duties.is_in_use()),
        )
        .order_by(col(Dataset.closed_at), col(Dataset.id))
        .limit(1)
    ).one_or_none()
    if row is None:
        return None
    why = (
        f"shed by intake rule {rule.name}, as storage {place.storage} is above "
        f"{rule.shed_percent} % of its quota; not done: {dutywords.facts(session, row.id)}"
    )
    try:
        with session.begin_nested():
            deletion.mark(session, row.id, why, by=Originals.BY_RULE)
    except Conflict:
        return None
    return str(row.name)


def _is_going(session: Session, rule_id: int) -> bool:
    """Whether a dataset of the rule is on its way out, be it stuck."""
    query = sa.select(col(Dataset.id)).where(
        sa.text("dataset.state = 'DELETING'"),
        col(Dataset.grace_until).is_(None),
        col(Dataset.rule_id) == rule_id,
    )
    return session.execute(query.limit(1)).first() is not None
