"""Refusals: what looks saw and didn't take, until it is registered, gone, or dismissed."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import cattime
from catalog.bulk import insert_ignore
from catalog.clock import now
from catalog.models import IntakeLook, IntakeRule, Refusal, Storage
from catalog.names import shown
from catalog.refs import HOLDING, RefusalKind, Settlement
from catalog.rowsets import among

MOST = 1000
"""Rows of one rule that are open at a time; beyond that they are counted."""

MOST_DETACHED = 100
"""Rows of one rule, beside these, of files that were left where they are on purpose."""

MOST_SETTLED = 10_000
"""Rows of one rule that are kept once they are over: the newest."""


@dataclass(frozen=True)
class NewRefusal:
    """Something that wasn't taken, in the state in which it was seen (microseconds since 1970)."""

    path: str
    dataset: str | None
    kind: RefusalKind
    reason: str
    size_bytes: int = 0
    mtime_us: int = 0

    @property
    def state(self) -> tuple[int, int]:
        """What differs when the thing has changed."""
        return self.size_bytes, self.mtime_us


@dataclass(frozen=True)
class RefusalInfo:
    """A refusal as its row stood; `path` is as people read it."""

    id: int
    rule: str
    storage: str
    dataset: str | None
    path: str
    kind: RefusalKind
    reason: str
    size_bytes: int
    mtime_us: int
    found_at: datetime
    settled_at: datetime | None
    settled_by: Settlement | None


_INFO: tuple[Any, ...] = (
    col(Refusal.id),
    col(IntakeRule.name).label("rule"),
    col(Storage.name).label("storage"),
    col(Refusal.dataset),
    col(Refusal.path),
    col(Refusal.kind),
    col(Refusal.reason),
    sa.func.coalesce(col(Refusal.size_bytes), 0).label("size_bytes"),
    sa.func.coalesce(col(Refusal.mtime_us), 0).label("mtime_us"),
    col(Refusal.found_at),
    col(Refusal.settled_at),
    col(Refusal.settled_by),
)


def note(session: Session, rule_id: int, storage_id: int, new: Sequence[NewRefusal]) -> None:
    """Remember what wasn't taken; of a path that is remembered already only why is new."""
    if not new:
        return
    rows = {
        shown(item.path): {
            "rule_id": rule_id,
            "storage_id": storage_id,
            "dataset": item.dataset,
            "path": shown(item.path),
            "kind": item.kind,
            "reason": item.reason,
            "size_bytes": item.size_bytes,
            "mtime_us": item.mtime_us,
        }
        for item in new
    }
    # In words that say as much as the row does, an older one is over.
    settle(session, rule_id, list(rows), Settlement.GONE)
    insert_ignore(session, Refusal, [rows[path] for path in sorted(rows)])


def settle(session: Session, rule_id: int, paths: Collection[str], how: Settlement) -> None:
    """What wasn't taken under these paths (as they are shown) is registered, gone, or dismissed."""
    if not paths:
        return
    _settle(session, rule_id, how, among(session, col(Refusal.path), paths))
    # Those of a buffer into which somebody puts odd things all day would be many.
    kept = (
        sa.select(col(Refusal.id))
        .where(col(Refusal.rule_id) == rule_id, _is_past())
        .order_by(col(Refusal.id).desc())
        .limit(1)
        .offset(MOST_SETTLED)
        .scalar_subquery()
    )
    session.execute(
        sa.delete(Refusal).where(
            col(Refusal.rule_id) == rule_id,
            _is_past(),
            col(Refusal.id) <= kept,
        ),
        execution_options={"synchronize_session": False},
    )


def _is_past() -> sa.ColumnElement[bool]:
    """What is over. That a person left something out counts on, and stays written down."""
    return sa.and_(
        col(Refusal.settled_at).is_not(None), col(Refusal.settled_by) != Settlement.DISMISSED
    )


def unfollow(session: Session, rule_id: int) -> None:
    """A rule is removed: nobody will see whether what it didn't take is there still."""
    _settle(session, rule_id, Settlement.UNFOLLOWED)


def _settle(
    session: Session, rule_id: int, how: Settlement, *chosen: sa.ColumnElement[bool]
) -> None:
    session.execute(
        sa.update(Refusal)
        .where(col(Refusal.rule_id) == rule_id, col(Refusal.settled_at).is_(None), *chosen)
        .values(settled_at=now(), settled_by=how),
        execution_options={"synchronize_session": False},
    )


def of_rule(session: Session, rule_id: int, limit: int = MOST) -> list[RefusalInfo]:
    """What a rule's looks see and don't take, the oldest first."""
    query = _open().where(col(Refusal.rule_id) == rule_id)
    return _infos(session, query.order_by(col(Refusal.id)).limit(limit))


def of_dataset(session: Session, name: str, limit: int = MOST) -> list[RefusalInfo]:
    """What wasn't taken for a dataset of that name, the oldest first."""
    query = _open().where(col(Refusal.dataset) == name)
    return _infos(session, query.order_by(col(Refusal.id)).limit(limit))


def detached(session: Session) -> dict[int, int]:
    """How many files rules leave alone since they are detached, by rule; the first are rows."""
    rows = session.execute(
        sa.select(col(Refusal.rule_id), sa.func.count().label("files"))
        .where(col(Refusal.kind) == RefusalKind.DETACHED, col(Refusal.settled_at).is_(None))
        .group_by(col(Refusal.rule_id))
    )
    return {row.rule_id: row.files for row in rows}


def held(session: Session, names: Collection[str], besides: int) -> set[str]:
    """Those of the names for which a rule other than `besides` has something that holds them."""
    return set(holding(session, names, besides))


def holding(session: Session, names: Collection[str], besides: int = 0) -> dict[str, int]:
    """How many things keep datasets of these names from being closed by themselves.

    Not what a rule has waited for as long as it is to.
    """
    if not names:
        return {}
    waited = sa.and_(
        sa.true() if cattime.may_remove(session) else sa.false(),
        col(IntakeRule.refused_after_s).is_not(None),
        col(Refusal.found_at) <= now(-sa.func.coalesce(col(IntakeRule.refused_after_s), 0.0)),
    )
    query = (
        sa.select(col(Refusal.dataset), sa.func.count().label("things"))
        .join(IntakeRule, col(IntakeRule.id) == col(Refusal.rule_id))
        .where(
            among(session, col(Refusal.dataset), names),
            col(Refusal.rule_id) != besides,
            col(Refusal.settled_at).is_(None),
            col(Refusal.kind).in_(sorted(HOLDING)),
            sa.not_(sa.func.coalesce(waited, sa.false())),
        )
        .group_by(col(Refusal.dataset))
    )
    return {row.dataset: row.things for row in session.execute(query)}


Likeness = tuple[RefusalKind, int, int]
"""Why a thing wasn't taken, its size and its date: another one differs."""


def dismissed(session: Session, rule_id: int) -> dict[str, Likeness]:
    """What a person said to leave out, by path, as it was; the newest."""
    query = (
        sa.select(
            col(Refusal.path), col(Refusal.kind), col(Refusal.size_bytes), col(Refusal.mtime_us)
        )
        # In these words, so that the partial index is seen to have them.
        .where(col(Refusal.rule_id) == rule_id, sa.text("refusal.settled_by = 'DISMISSED'"))
        .order_by(col(Refusal.id).desc())
        .limit(MOST_SETTLED)
    )
    found: dict[str, Likeness] = {}
    for row in session.execute(query):
        found.setdefault(row.path, (row.kind, row.size_bytes or 0, row.mtime_us or 0))
    return found


def dismiss(session: Session, dataset: str, paths: Collection[str] | None) -> list[RefusalInfo]:
    """Leave out for good, as they are, what wasn't taken for a dataset; None: all of it."""
    query = _open().where(col(Refusal.dataset) == dataset, col(Refusal.kind).in_(sorted(HOLDING)))
    if paths is not None:
        query = query.where(among(session, col(Refusal.path), {shown(path) for path in paths}))
    chosen = _infos(session, query.order_by(col(Refusal.id)))
    if chosen:
        session.execute(
            sa.update(Refusal)
            .where(among(session, col(Refusal.id), [item.id for item in chosen]))
            .values(settled_at=now(), settled_by=Settlement.DISMISSED),
            execution_options={"synchronize_session": False},
        )
    return chosen


def of_path(session: Session, storage_id: int, path: str) -> list[RefusalInfo]:
    """Why what lies under a path of a storage isn't taken, for whatever dataset."""
    query = _open().where(col(Refusal.storage_id) == storage_id, col(Refusal.path) == shown(path))
    return _infos(session, query.order_by(col(Refusal.id)).limit(MOST))


def of_storage_path(session: Session, storage: str, path: str) -> list[RefusalInfo]:
    """As `of_path`, by the storage's name; `path` may be as it is shown, too."""
    query = _open().where(col(Storage.name) == storage, col(Refusal.path).in_([path, shown(path)]))
    return _infos(session, query.order_by(col(Refusal.id)).limit(MOST))


def count_of_dataset(session: Session, name: str) -> int:
    """How many things weren't taken for a dataset of that name, as far as there are rows."""
    query = sa.select(sa.func.count()).where(
        col(Refusal.dataset) == name, col(Refusal.settled_at).is_(None)
    )
    return int(session.execute(query.select_from(Refusal)).scalar_one())


def count(session: Session) -> int:
    """How many things the rules that are followed see and don't take."""
    query = (
        sa.select(sa.func.coalesce(sa.func.sum(col(IntakeLook.refused)), 0))
        .join(IntakeRule, col(IntakeRule.id) == col(IntakeLook.rule_id))
        .where(col(IntakeRule.active))
    )
    return int(session.execute(query).scalar_one())


def _open() -> sa.Select[Any]:
    return (
        sa.select(*_INFO)
        .join(IntakeRule, col(IntakeRule.id) == col(Refusal.rule_id))
        .join(Storage, col(Storage.id) == col(Refusal.storage_id))
        .where(col(Refusal.settled_at).is_(None))
    )


def _infos(session: Session, query: sa.Select[Any]) -> list[RefusalInfo]:
    return [RefusalInfo(**row._mapping) for row in session.execute(query)]
