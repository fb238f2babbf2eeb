"""Columns that the tables of the catalog have in common."""

from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from catalog.clock import UtcTime, now

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
SQLModel.metadata.naming_convention = NAMING

BigInt = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Json = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


def state_word(enum: type[StrEnum]) -> Any:
    """A column that stores a state's whole word."""
    return sa.Enum(
        enum,
        native_enum=False,
        create_constraint=False,
        length=16,
        values_callable=lambda e: [member.value for member in e],
    )


def row_id() -> Any:
    """The primary key, given by the database."""
    return Field(default=None, primary_key=True, sa_type=BigInt)


def reference(target: str, *, index: bool = False, null: bool = False) -> Any:
    """A foreign key to `table.column`."""
    default: Any = {"default": None} if null else {}
    return Field(foreign_key=target, sa_type=BigInt, index=index, nullable=null, **default)


def added(default: Any, *, sa_type: Any = None, description: str | None = None) -> Any:
    """A column that came later: rows of programs that don't know it get the default, too."""
    more = {} if sa_type is None else {"sa_type": sa_type}
    kwargs = {"server_default": sa.false() if default is False else sa.text(f"'{default}'")}
    return Field(default=default, sa_column_kwargs=kwargs, description=description, **more)


def created() -> Any:
    """When the row was made, by the database's clock."""
    return Field(default=None, sa_type=UtcTime, nullable=False, sa_column_kwargs={"default": now()})


def moment() -> Any:
    """A point in time that may be missing."""
    return Field(default=None, sa_type=UtcTime, nullable=True)


MOST = 2**63 - 1
"""The largest number that a column keeps."""


# Written out: PostgreSQL takes a parameter for a bigint, and shifts by none.
_HALF: Any = sa.literal_column("32")
_LOW: Any = sa.literal_column("4294967295")


def kept(number: int) -> int:
    """`number`, or the nearest one that a column keeps."""
    return max(-MOST, min(number, MOST))


def total(column: Any) -> Any:
    """The sum of a column of bytes, or the nearest number that a column keeps.

    In halves of 32 bits: SQLite refuses a statement in which a sum exceeds 63, and one file whose
    sender gave an absurd size would keep all sums with it from being told.
    """
    high = sa.cast(sa.func.sum(column.op(">>")(_HALF)), sa.BigInteger)
    low = sa.cast(sa.func.sum(column.op("&")(_LOW)), sa.BigInteger)
    above = high + low.op(">>")(_HALF)
    exact = high * 2**32 + low
    return sa.case((above >= 2**31, MOST), (above < -(2**31), -MOST), else_=exact)


def rows_where(words: str) -> dict[str, Any]:
    """Of a partial index: the rows that it has, for either database."""
    return {"sqlite_where": sa.text(words), "postgresql_where": sa.text(words)}
