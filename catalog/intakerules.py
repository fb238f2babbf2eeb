"""Rules of the intake: which files that arrive on a storage belong to which dataset."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import refusals, storages
from catalog.bulk import insert_ignore
from catalog.clock import now
from catalog.errors import Conflict, NotFound
from catalog.models import Dataset, IntakeRule, Storage
from catalog.rule import Rule as Rule
from catalog.rule import check
from catalog.states import DatasetState
from catalog.transitions import record_change

_HINT = "`spdf intake list` shows what there is"


@dataclass(frozen=True)
class Filling:
    """An OPEN dataset that a rule fills. `filled_at` is None before its first file."""

    id: int
    name: str
    filled_at: datetime | None
    quiet_for_s: float


_COLUMNS: tuple[Any, ...] = (
    col(IntakeRule.name),
    col(Storage.name).label("storage"),
    col(IntakeRule.pattern),
    col(IntakeRule.dataset),
    col(IntakeRule.prefix),
    col(IntakeRule.end_pattern),
    col(IntakeRule.close_count),
    col(IntakeRule.quiet_s),
    col(IntakeRule.stable_s),
    col(IntakeRule.lifetime_s),
    col(IntakeRule.active),
    sa.and_(
        col(IntakeRule.end_pattern).is_not(None),
        col(IntakeRule.close_count).is_not(None),
        # Rules of before closed by whichever came first.
        sa.func.coalesce(col(IntakeRule.either), sa.true()),
    ).label("either"),
    col(IntakeRule.close_empty),
    col(IntakeRule.id),
    col(IntakeRule.storage_id),
)


def add(session: Session, rule: Rule) -> Rule:
    """Add a rule; the same again changes nothing. Raises `BadInput`, `Conflict`, `NotFound`."""
    check(rule)
    storage = storages.by_name(session, rule.storage)
    row = {
        "name": rule.name,
        "storage_id": storage.id,
        "prefix": rule.prefix,
        "pattern": rule.pattern,
        "dataset": rule.dataset,
        "end_pattern": rule.end_pattern,
        "close_count": rule.close_count,
        "quiet_s": rule.quiet_s,
        "stable_s": rule.stable_s,
        "lifetime_s": rule.lifetime_s,
        "active": True,
        "either": rule.either,
        "close_empty": rule.close_empty,
    }
    new = insert_ignore(session, IntakeRule, [row])
    found = get(session, rule.name)
    if new:
        record_change(session, IntakeRule, found.id, "ADDED", f"{rule.pattern} → {rule.dataset}")
        return found
    differs = [name for name in row if getattr(found, name) != row[name]]
    if differs == ["either"] and found.either:
        raise Conflict(
            f"intake rule {rule.name!r} exists already, and closes by its marker or its count, "
            "whichever comes first; say --either for that, or remove it with "
            f"`spdf intake remove {rule.name}`."
        )
    if differs:
        raise Conflict(
            f"intake rule {rule.name!r} exists already and says something else; remove it with "
            f"`spdf intake remove {rule.name}`, or choose another name."
        )
    return found


def remove(session: Session, name: str) -> Rule:
    """Stop a rule; its datasets stay as they are. One of its name may be added anew."""
    rule = get(session, name)
    # The row stays for the datasets that name it; its name is free again.
    session.execute(
        sa.update(IntakeRule)
        .where(col(IntakeRule.id) == rule.id)
        .values(active=False, name=f"{rule.name}#{rule.id}"),
        execution_options={"synchronize_session": False},
    )
    refusals.unfollow(session, rule.id)
    record_change(session, IntakeRule, rule.id, "REMOVED", rule.name)
    return rule


def get(session: Session, name: str) -> Rule:
    """The rule of that name; raises `NotFound`."""
    row = session.execute(_select().where(col(IntakeRule.name) == name)).one_or_none()
    if row is None:
        raise NotFound("intake rule", name, _HINT)
    return Rule(**row._mapping)


def by_id(session: Session, rule_id: int) -> Rule:
    """The rule with that id, followed or removed; raises `NotFound`."""
    row = session.execute(_select().where(col(IntakeRule.id) == rule_id)).one_or_none()
    if row is None:
        raise NotFound("intake rule", rule_id, _HINT)
    return Rule(**row._mapping)


def active(session: Session) -> list[Rule]:
    """The rules that are followed, by name."""
    query = _select().where(col(IntakeRule.active)).order_by(col(IntakeRule.name))
    return [Rule(**row._mapping) for row in session.execute(query)]


def _select() -> sa.Select[Any]:
    return sa.select(*_COLUMNS).join(Storage, col(Storage.id) == col(IntakeRule.storage_id))


def filling(session: Session, rule_id: int) -> list[Filling]:
    """The OPEN datasets that a rule fills."""
    rows = session.execute(
        sa.select(col(Dataset.id), col(Dataset.name), col(Dataset.filled_at), now().label("now"))
        .where(col(Dataset.rule_id) == rule_id, col(Dataset.state) == DatasetState.OPEN)
        .order_by(col(Dataset.id))
    )
    return [
        Filling(
            row.id,
            row.name,
            row.filled_at,
            (row.now - row.filled_at).total_seconds() if row.filled_at else 0.0,
        )
        for row in rows
    ]
