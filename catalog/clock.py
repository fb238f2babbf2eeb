"""The database's own clock: every time that decides anything comes from here."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import DateTime, Dialect, Float, literal
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


class _Now(FunctionElement[Any]):
    type = UtcTime()
    inherit_cache = True
    name = "spdf_now"


@compiles(_Now, "sqlite")
def _now_sqlite(element: _Now, compiler: Any, **kw: Any) -> str:
    offset = compiler.process(element.clauses, **kw)
    return f"strftime('%Y-%m-%d %H:%M:%f', 'now', printf('%.6f seconds', {offset}))"


@compiles(_Now)
def _now_default(element: _Now, compiler: Any, **kw: Any) -> str:
    offset = compiler.process(element.clauses, **kw)
    return f"(clock_timestamp() + make_interval(secs => {offset}))"


_shift = timedelta()


def now(offset_s: float | ColumnElement[float] = 0.0) -> ColumnElement[datetime]:
    """The database's time plus `offset_s` seconds, as an expression for a statement."""
    shift_s = _shift.total_seconds()
    if isinstance(offset_s, int | float):
        return _Now(literal(offset_s + shift_s, Float))
    return _Now(offset_s + literal(shift_s, Float))


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
    """Move this process's idea of the database's time, for tests; 0 puts it right."""
    global _shift
    _shift = timedelta(seconds=offset_s)
