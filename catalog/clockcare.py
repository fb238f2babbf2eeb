"""What people are told of the catalog's clock: what it did, what stands still for it, and its end.

A clock that was set and stays so is accepted by a person: catalog time is the database's from then
on, and what was written by the time before is moved with it, so that nothing waits for a future
that is none.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, SQLModel, col

from catalog import cattime, clock
from catalog.bulk import table_of
from catalog.clock import UtcTime
from catalog.counts import count_of
from catalog.durations import words
from catalog.errors import Conflict
from catalog.models import (
    CatalogClock,
    Dataset,
    Job,
    Node,
    Outage,
    Pilot,
    Singleton,
    StorageSample,
    Workflow,
)

_NAMED = 5
_TOLD_S = 86400.0
"""So long after a clock came right again that is told."""
_TIME = "%Y-%m-%d %H:%M:%SZ"


@dataclass(frozen=True)
class Held:
    """Datasets that would go by the database's clock, or by elapsed time, and stay for now."""

    datasets: int
    size_bytes: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class ClockInfo:
    """The clock as it is now. Times `since`, `back_at` and `at` are the catalog's.

    `skew_s` is how far the database's clock is ahead of the catalog; `most_s` how far it was at the
    most, from `since` until it came back. `waits_s` is how long removals by elapsed time wait still
    after a start; they wait, too, while it is not `is_sure` what time it is.
    """

    at: datetime
    database: datetime
    skew_s: float
    sampled_at: datetime | None
    since: datetime | None
    back_at: datetime | None
    most_s: float
    waits_s: float
    is_sure: bool
    held: Held


def look(session: Session) -> ClockInfo:
    """The clock as it is now."""
    session.connection()
    told, sample = clock.begun(), cattime.sample(session)
    row = session.execute(
        sa.select(col(CatalogClock.since), col(CatalogClock.back_at), col(CatalogClock.most_s))
    ).one()
    waits_s = 0.0 if sample is None else sample.waits_s
    since = row.since
    if told.skew_s and (since is None or row.back_at is not None):
        since = clock.moment_in()
    return ClockInfo(
        clock.moment_in(),
        clock.moment_in(told.skew_s),
        told.skew_s,
        None if sample is None else clock.at(sample.at_s),
        since,
        None if told.skew_s else row.back_at,
        max(row.most_s, told.skew_s, key=abs),
        waits_s,
        told.is_sure,
        _held(session, told),
    )


def _held(session: Session, told: clock.Moment) -> Held:
    latest = col(Dataset.expires_at) <= clock.now(max(told.skew_s, 0.0))
    chosen: list[Any] = [sa.text("dataset.state = 'CLOSED'"), col(Dataset.pin).is_(None), latest]
    if told.is_sure:
        # Those that are due in any case go, or say for themselves what keeps them.
        chosen.append(col(Dataset.expires_at) > clock.now())
    size = sa.func.coalesce(sa.func.sum(col(Dataset.size_bytes)), 0)
    count, size_bytes = session.execute(sa.select(sa.func.count(), size).where(*chosen)).one()
    names: list[str] = []
    if count:
        query = sa.select(col(Dataset.name)).where(*chosen).order_by(col(Dataset.expires_at))
        names += session.scalars(query.limit(_NAMED))
    return Held(count, int(size_bytes), tuple(names))


def sentences(info: ClockInfo) -> Iterator[str]:
    """What there is to say of a clock that isn't right, or wasn't in the last day."""
    if info.skew_s:
        which = "ahead of" if info.skew_s > 0 else "behind"
        yield (
            f"the database's clock is {words(abs(info.skew_s))} {which} the catalog's time: it was "
            f"set while no such time passed (seen {info.since:{_TIME}}). The catalog goes on by "
            "the time before: "
            f"{_held_words(info, 'nothing is removed, closed or given up for it')}. It ends once "
            "the clock is set right, or by `spdf clock accept` if it is right now"
        )
    if info.waits_s:
        yield (
            "nothing compared the clock for more than a day before the last start, so it may be "
            f"wrong: {_held_words(info, 'nothing is removed by the time that has passed')} for "
            f"another {words(info.waits_s)}, or until `spdf clock accept`"
        )
    elif not info.is_sure:
        yield (
            f"nobody has looked at the clock since {info.sampled_at:{_TIME}}, as the intake does: "
            f"{_held_words(info, 'nothing is removed by the time that has passed')} until it does"
        )
    if _is_back_lately(info):
        which = "ahead" if info.most_s > 0 else "behind"
        yield (
            f"the database's clock was {words(abs(info.most_s))} {which} from {info.since:{_TIME}} "
            f"to {info.back_at:{_TIME}}, and is right again: nothing was removed or closed for it. "
            "See what sets the clock of that machine"
        )


def _held_words(info: ClockInfo, nothing: str) -> str:
    if not info.held.datasets:
        return nothing
    more = ", …" if info.held.datasets > len(info.held.names) else ""
    return (
        f"{nothing}; {count_of(info.held.datasets, 'dataset')} ({info.held.size_bytes} bytes) "
        f"whose lifetime would be over stay: {', '.join(info.held.names)}{more}"
    )


def was_set_back(session: Session) -> bool:
    """Whether the clock is behind, or was ahead in the last day."""
    info = look(session)
    return info.skew_s < 0 or (info.most_s > 0 and _is_back_lately(info))


def _is_back_lately(info: ClockInfo) -> bool:
    return info.back_at is not None and (info.at - info.back_at).total_seconds() < _TOLD_S


def problems(session: Session) -> Iterator[str]:
    """What `spdf status` says of the clock."""
    return sentences(look(session))


def accept(session: Session) -> ClockInfo:
    """Have the database's clock be right as it is now; gives what it was taken for before.

    Raises `Conflict` where there is nothing to accept.
    """
    before = look(session)
    if not before.skew_s and not before.waits_s:
        raise Conflict("the clock is taken for right already: there is nothing to accept.")
    cattime.accept(session)
    if before.skew_s > 0:
        _go_on(session, before.skew_s)
    elif before.skew_s < 0:
        _take_back(session, -before.skew_s)
    return before


_ALIVE: tuple[tuple[type[SQLModel], tuple[str, ...]], ...] = (
    (Singleton, ("lease_until",)),
    (Workflow, ("lease_until",)),
    (Job, ("lease_until", "not_before")),
    (Pilot, ("beat_at",)),
    (Node, ("beat_at",)),
    (Outage, ("met_at", "next_at")),
)
"""Times of what goes on now; none of it is over as a clock is accepted."""


def _go_on(session: Session, ahead_s: float) -> None:
    """The time leaps ahead: leases and beats of who is at work leap with it."""
    for model, names in _ALIVE:
        table = table_of(model)
        for name in names:
            column = table.c[name]
            session.connection().execute(
                sa.update(table)
                .where(column > clock.now(-ahead_s - _TOLD_S))
                .values({name: clock.moved(column, ahead_s)})
            )


def _take_back(session: Session, back_s: float) -> None:
    """The time goes back: what has a later one now is as far from now as it was."""
    samples = table_of(StorageSample)
    session.connection().execute(sa.delete(samples).where(samples.c.at > clock.now()))
    for _, table in sorted(SQLModel.metadata.tables.items()):
        for column in table.c:
            if isinstance(column.type, UtcTime):
                session.connection().execute(_moved_back(table, column, back_s))


def _moved_back(table: sa.Table, column: sa.Column[Any], back_s: float) -> sa.Update:
    moved = {column.name: clock.moved(column, -back_s)}
    return sa.update(table).where(column > clock.now()).values(moved)
