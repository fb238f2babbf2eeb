"""Catalog time in statements: every time that decides anything comes from here.

A transaction is told once, as it begins, what time it is (`catalog/cattime.py`); from there its
time goes on by CLOCK_BOOTTIME, which no set clock moves and no suspend stops.
"""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from time import CLOCK_BOOTTIME
from time import clock_gettime as _boottime
from typing import Any

from sqlalchemy import DateTime, Dialect, Float, bindparam, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator


class UtcTime(TypeDecorator[datetime]):
    """A point in time, always aware and in UTC in Python, on every database."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a time that doesn't say its zone."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"time without a zone: {value!r}")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """SQLite forgets the zone; it is always UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Moment:
    """What time it is in the catalog, as a transaction began; times are seconds since 1970.

    `wall_s` is what the database's clock said, `boot_s` this machine's CLOCK_BOOTTIME. `is_sure`
    says whether it was compared with anything: what is removed by elapsed time waits for that.
    """

    at_s: float
    wall_s: float
    boot_s: float
    is_sure: bool = True

    @property
    def base_s(self) -> float:
        """What BOOTTIME is to be added to."""
        return self.at_s - self.boot_s

    @property
    def skew_s(self) -> float:
        """How far the database's clock is ahead of the catalog."""
        return self.wall_s - self.at_s


_local = threading.local()
_passed_s = 0.0
_set_s = 0.0


def boottime() -> float:
    """Seconds of this machine that no set clock moves, and no suspend stops."""
    return _boottime(CLOCK_BOOTTIME) + _passed_s


def wall_of(told_s: float) -> float:
    """What a clock is taken to say that said `told_s`; tests move it."""
    return told_s + _passed_s + _set_s


def wall() -> float:
    """What this machine's clock says, in seconds since 1970."""
    return wall_of(time.time())


def begin(moment: Moment) -> None:
    """From here on this is the time of this thread's transaction."""
    _local.moment, _local.base_s = moment, moment.base_s


def begun() -> Moment:
    """The time of this thread's last transaction, as it began."""
    found: Moment | None = getattr(_local, "moment", None)
    return _untold() if found is None else found


def _untold() -> Moment:
    """Nobody was asked: this machine's clock, as it is."""
    at_s = wall()
    return Moment(at_s, at_s, boottime(), is_sure=False)


@contextmanager
def apart() -> Iterator[None]:
    """What begins inside doesn't change the time of the transaction around it."""
    before: Moment | None = getattr(_local, "moment", None)
    try:
        yield
    finally:
        if before is not None:
            begin(before)


def seconds_in(offset_s: float = 0.0) -> float:
    """Catalog time in this thread's transaction, plus `offset_s`, in seconds since 1970."""
    # Asked for each of many rows.
    try:
        base_s: float = _local.base_s
    except AttributeError:
        base_s = begun().base_s
    return _boottime(CLOCK_BOOTTIME) + _passed_s + base_s + offset_s


def moment_in(offset_s: float = 0.0) -> datetime:
    """Catalog time in this thread's transaction, plus `offset_s` seconds."""
    return at(seconds_in(offset_s))


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST = datetime(1, 1, 1, tzinfo=UTC)
_LATEST = datetime(9999, 12, 31, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """A point in time by its seconds since 1970, or the nearest one that can be told."""
    try:
        return _EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        return _LATEST if seconds > 0 else _EARLIEST


class _Now(FunctionElement[Any]):
    """Bound as the statement is sent, so that one that is compiled already has the time, too.

    As a number, of which the database makes a time: that costs less for each of many rows.
    """

    type = UtcTime()
    inherit_cache = True
    name = "spdf_now"

    def __init__(self, offset_s: float, *more: ColumnElement[float]) -> None:
        self.offset_s = offset_s
        bound = bindparam(None, type_=Float(), callable_=partial(seconds_in, offset_s))
        super().__init__(bound, *more)


@compiles(_Now, "sqlite")
def _now_sqlite(element: _Now, compiler: Any, **kw: Any) -> str:
    seconds = _seconds(element, compiler, kw)
    return f"strftime('%Y-%m-%d %H:%M:%f', {seconds}, 'unixepoch')"


@compiles(_Now)
def _now_default(element: _Now, compiler: Any, **kw: Any) -> str:
    return f"to_timestamp({_seconds(element, compiler, kw)})"


def _seconds(element: _Now, compiler: Any, kw: dict[str, Any]) -> str:
    bound, *more = element.clauses
    first = f"@now({element.offset_s!r})"
    if not kw.get("literal_binds"):
        first = f"CAST({compiler.process(bound, **kw)} AS DOUBLE PRECISION)"
    return " + ".join([first, *(compiler.process(clause, **kw) for clause in more)])


_MARK = re.compile(r"@now\(([^)]*)\)")


def has_now(statement: str) -> bool:
    """Whether a statement that was written out asks for the time."""
    return "@now(" in statement


def with_now(statement: str) -> str:
    """A statement that was written out, with the time of this thread's transaction in it."""
    return _MARK.sub(lambda found: f"{seconds_in(float(found[1])):.6f}", statement)


class _Shifted(FunctionElement[Any]):
    type = UtcTime()
    inherit_cache = True
    name = "spdf_shifted"


@compiles(_Shifted, "sqlite")
def _shifted_sqlite(element: _Shifted, compiler: Any, **kw: Any) -> str:
    moment, offset = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"strftime('%Y-%m-%d %H:%M:%f', {moment}, printf('%.6f seconds', {offset}))"


@compiles(_Shifted)
def _shifted_default(element: _Shifted, compiler: Any, **kw: Any) -> str:
    moment, offset = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"({moment} + make_interval(secs => {offset}))"


def moved(moment: Any, offset_s: float) -> ColumnElement[datetime]:
    """A column's point in time, `offset_s` seconds later."""
    return _Shifted(moment, literal(offset_s, Float))


def now(offset_s: float | ColumnElement[float] = 0.0) -> ColumnElement[datetime]:
    """Catalog time plus `offset_s` seconds, as an expression for a statement."""
    if isinstance(offset_s, int | float):
        return _Now(offset_s)
    return _Now(0.0, offset_s)


class _Later(FunctionElement[Any]):
    type = UtcTime()
    inherit_cache = True
    name = "spdf_later"


@compiles(_Later, "sqlite")
def _later_sqlite(element: _Later, compiler: Any, **kw: Any) -> str:
    return f"max({compiler.process(element.clauses, **kw)})"


@compiles(_Later)
def _later_default(element: _Later, compiler: Any, **kw: Any) -> str:
    return f"GREATEST({compiler.process(element.clauses, **kw)})"


def later_of(one: ColumnElement[datetime], other: ColumnElement[datetime]) -> ColumnElement[Any]:
    """The later of two points in time."""
    return _Later(one, other)


def shift_clock(offset_s: float) -> None:
    """Let time pass for this process, for tests; 0 takes it back."""
    global _passed_s
    _passed_s = offset_s


def set_clock(offset_s: float) -> None:
    """Set the clock wrong by so much, for tests, while no time passes; 0 puts it right."""
    global _set_s
    _set_s = offset_s
