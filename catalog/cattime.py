"""Catalog time: the database's time less the skew, which one row has.

The row also has the last sample: what the database's clock and a machine's CLOCK_BOOTTIME said at
the same moment. It is read as a transaction begins, and how far the one clock moved since is
compared with how far the other did: where they differ by more than a minute the clock was set, and
what it was set by is no time that has passed. So nobody writes a stamp of a false time, also before
the holder of the intake's role has taken the next sample, with the new skew.

A process of another machine than the sample's has no BOOTTIME to compare with that one's. It
compares what it saw itself before.
"""

import os
import sqlite3
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import clock
from catalog.clock import Moment
from catalog.durations import words
from catalog.models import CatalogClock, Event

LIMIT_S = 60.0
"""Clocks that differ by more were set; what is less is taken for the time."""
_FRESH_S = 90.0
"""A sample is taken every few seconds while the intake is up."""
GAP_S = 86400.0
"""A start so long after the last sample may be one with a wrong clock."""
WAIT_S = 3600.0
"""So long what goes by elapsed time waits then, by BOOTTIME."""

ENTITY, ROW = "clock", 1


@dataclass(frozen=True, slots=True)
class Sample:
    """The row: `skew_s`, and what the two clocks said when it was written last.

    `waits_s` is how long removals by elapsed time still wait.
    """

    skew_s: float
    wall_s: float
    boot_s: float
    boot: str
    beats: int
    waits_s: float

    @property
    def at_s(self) -> float:
        """Catalog time as the sample was taken."""
        return self.wall_s - self.skew_s


@cache
def machine() -> str:
    """Whose BOOTTIME it is that this process reads: a boot, and in it a time namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/time').stat().st_ino}"
    except OSError:
        return f"unknown/{os.getpid()}"


class Observer:
    """Tells transactions of one catalog what time it is, by the row and what it saw before."""

    def __init__(self) -> None:
        self._last: Moment | None = None

    def moment(self, wall_s: float, sample: Sample | None) -> Moment:
        """Catalog time now that the database's clock says `wall_s`, and the row `sample`."""
        boot_s = clock.boottime()
        if sample is None:
            return Moment(wall_s, wall_s, boot_s)
        if sample.boot == machine():
            moved_s = (wall_s - sample.wall_s) - (boot_s - sample.boot_s)
            skew_s, is_sure = settled(sample.skew_s, moved_s), True
        elif abs(wall_s - sample.wall_s) <= _FRESH_S:
            skew_s, is_sure = sample.skew_s, True
        elif self._last is not None:
            last = self._last
            moved_s = (wall_s - last.wall_s) - (boot_s - last.boot_s)
            skew_s, is_sure = settled(last.skew_s, moved_s), last.is_sure
        else:
            skew_s, is_sure = after_a_start(wall_s, sample), False
        self._last = Moment(wall_s - skew_s, wall_s, boot_s, is_sure)
        if sample.waits_s:
            return replace(self._last, is_sure=False)
        return self._last


def settled(skew_s: float, moved_s: float) -> float:
    """The skew once the clock has moved by `moved_s` against BOOTTIME; 0 where it came back."""
    if abs(moved_s) <= LIMIT_S:
        return skew_s
    after_s = skew_s + moved_s
    return 0.0 if abs(after_s) <= LIMIT_S else after_s


def after_a_start(wall_s: float, sample: Sample) -> float:
    """The skew where nothing tells how long ago the sample was: catalog time never goes back.

    A clock that was wrong and isn't where it was has come back; one that is behind is wrong.
    """
    is_where_it_was = wall_s >= sample.wall_s - LIMIT_S
    has_passed_it = wall_s >= sample.at_s - LIMIT_S
    if sample.skew_s and is_where_it_was and not (sample.skew_s < 0 and has_passed_it):
        return sample.skew_s
    return 0.0 if has_passed_it else wall_s - sample.at_s


_COLUMNS = "c.skew_s, c.wall_s, c.boot_s, c.boot, c.beats, c.waits_s"
_OF_SQLITE = f"SELECT {_COLUMNS} FROM catalog_clock AS c"
_OF_POSTGRESQL = (
    f"SELECT CAST(extract(epoch FROM clock_timestamp()) AS float8), {_COLUMNS}"
    " FROM (SELECT 1) AS one LEFT JOIN catalog_clock AS c ON true"
)
_BARE = "SELECT CAST(extract(epoch FROM clock_timestamp()) AS float8)"


def begin_sqlite(observer: Observer, connection: sa.Connection) -> None:
    """Tell a transaction that has just begun what time it is: the clock is this machine's."""
    driver: Any = connection.connection.dbapi_connection
    try:
        row = driver.execute(_OF_SQLITE).fetchone()
    except sqlite3.Error as error:
        if not _is_unknown(str(error)):
            # Once more, for an error as all others are.
            connection.exec_driver_sql(_OF_SQLITE)
        row = None
    clock.begin(observer.moment(clock.wall(), _sample(row)))


def _is_unknown(told: str) -> bool:
    """Whether the schema is one of before."""
    return told.startswith(("no such table", "no such column"))


def begin_postgresql(observer: Observer, driver: Any) -> None:
    """As `begin_sqlite`, of a connection that is being lent, outside of any transaction."""
    import psycopg

    before = driver.autocommit
    if not before:
        driver.autocommit = True
    try:
        try:
            told = driver.execute(_OF_POSTGRESQL).fetchone()
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
            told = (*driver.execute(_BARE).fetchone(), None)
    finally:
        if not before and not driver.closed:
            driver.autocommit = before
    clock.begin(observer.moment(clock.wall_of(told[0]), _sample(told[1:])))


def _sample(row: Any) -> Sample | None:
    """The row as it was read; None where nobody has taken a sample."""
    return None if row is None or row[0] is None or not row[3] else Sample(*row)


def may_remove(session: Session) -> bool:
    """Whether what can't be undone may follow from the time that has passed.

    Not while the clock can't be compared with anything, nor after a start long after the last
    sample, until a person has accepted the clock or an hour is over.
    """
    session.connection()
    return clock.begun().is_sure


def either(session: Session) -> tuple[datetime, datetime]:
    """Catalog time and the database's own, the earlier one first: files have times of a clock."""
    session.connection()
    told = clock.begun()
    return clock.at(min(told.at_s, told.wall_s)), clock.at(max(told.at_s, told.wall_s))


def sample(session: Session) -> Sample | None:
    """The row as it is now."""
    query = sa.select(
        col(CatalogClock.skew_s),
        col(CatalogClock.wall_s),
        col(CatalogClock.boot_s),
        col(CatalogClock.boot),
        col(CatalogClock.beats),
        col(CatalogClock.waits_s),
    )
    return _sample(session.execute(query).one_or_none())


def keep(session: Session) -> None:
    """Take a sample, with the skew that this transaction began with; for the role's holder.

    A change of the skew is an event. One that another process has sampled meanwhile is left.
    """
    before = sample(session)
    told = clock.begun()
    values: dict[str, Any] = {
        "skew_s": told.skew_s, "wall_s": told.wall_s, "boot_s": told.boot_s, "boot": machine(),
    }  # fmt: skip
    beats = 0
    if before is not None:
        beats = before.beats
        values["waits_s"] = _wait_left(told, before)
        _tell(session, told, before, values)
    session.execute(
        sa.update(CatalogClock)
        .where(col(CatalogClock.beats) == beats)
        .values(beats=col(CatalogClock.beats) + 1, **values),
        execution_options={"synchronize_session": False},
    )


def follow(session: Session) -> None:
    """Take a sample where the last one says another skew; for who waits for a role.

    Before anybody holds it: in a catalog that stands still, as its clock is behind, no lease ends.
    """
    session.connection()
    before = sample(session)
    if before is not None and abs(before.skew_s - clock.begun().skew_s) > LIMIT_S:
        keep(session)


def _wait_left(told: Moment, before: Sample) -> float:
    if before.boot == machine():
        return max(0.0, before.waits_s - (told.boot_s - before.boot_s))
    is_gap = told.skew_s == before.skew_s and told.wall_s - before.wall_s > GAP_S
    return WAIT_S if is_gap and not told.is_sure else before.waits_s


def _tell(session: Session, told: Moment, before: Sample, values: dict[str, Any]) -> None:
    """Note in words what the clock did since the sample before."""
    moved_s = told.skew_s - before.skew_s
    if values["waits_s"] > before.waits_s:
        gap = words(told.wall_s - before.wall_s)
        event(session, "GAP", f"the first look at the clock in {gap}; {_GAP}")
    if abs(moved_s) <= LIMIT_S:
        return
    which = "ahead" if moved_s > 0 else "back"
    jumped = f"the database's clock was set {which} by {words(abs(moved_s))}"
    if told.skew_s == 0.0:
        values |= {"back_at": clock.at(told.at_s)}
        event(session, "RETURNED", f"{jumped}, and is right again")
        return
    if before.skew_s == 0.0:
        values |= {"since": clock.at(told.at_s), "back_at": None, "most_s": told.skew_s}
    elif abs(told.skew_s) > abs(before.skew_s):
        values |= {"most_s": told.skew_s}
    event(session, "SET", f"{jumped}; the catalog goes on by the time before")


_GAP = "what goes by elapsed time waits for `spdf clock accept`, or an hour"


def event(session: Session, word: str, message: str) -> None:
    """Append an event of the clock."""
    row = {"entity": ENTITY, "entity_id": ROW, "after": word, "message": message}
    session.execute(sa.insert(Event), [row])


def accept(session: Session) -> None:
    """Have the database's clock be right: from here on catalog time is its time."""
    told = clock.begun()
    clock.begin(Moment(told.wall_s, told.wall_s, told.boot_s))
    session.execute(
        sa.update(CatalogClock).values(
            skew_s=0.0, wall_s=told.wall_s, boot_s=told.boot_s, boot=machine(),
            beats=col(CatalogClock.beats) + 1, waits_s=0.0, since=None, back_at=None, most_s=0.0,
        ),
        execution_options={"synchronize_session": False},
    )  # fmt: skip
    moved = f"{words(abs(told.skew_s))} {'ahead' if told.skew_s > 0 else 'back'}"
    event(session, "ACCEPTED", f"catalog time goes {moved}" if told.skew_s else "the wait is over")
