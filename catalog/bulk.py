"""Set-based statements in pieces that every database takes."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, SQLModel

Item = TypeVar("Item")

CHUNK = 500
"""Values in one `IN (…)` or rows in one look-up: below every driver's limit of parameters."""


def chunks(items: Sequence[Item], size: int = CHUNK) -> Iterator[Sequence[Item]]:
    """`items` in their order, at most `size` at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def batches(items: Iterator[Item], size: int = CHUNK) -> Iterator[list[Item]]:
    """As `chunks`, of items that are not all in memory."""
    while batch := list(islice(items, size)):
        yield batch


def table_of(model: type[SQLModel]) -> sa.Table:
    """The table of a model, for statements that bypass the ORM."""
    table: sa.Table = model.__table__  # type: ignore[attr-defined]
    return table


def insert_ignore(
    session: Session, model: type[SQLModel], rows: Sequence[Mapping[str, Any]]
) -> int:
    """Insert the rows that clash with no unique constraint; gives how many were new."""
    return len(insert_new(session, model, rows, *table_of(model).primary_key.columns))


def insert_new(
    session: Session,
    model: type[SQLModel],
    rows: Sequence[Mapping[str, Any]],
    *returning: Any,
) -> Sequence[sa.Row[Any]]:
    """As `insert_ignore`, but gives these columns of the new rows, in no set order.

    All rows must name the same columns. SQLAlchemy cuts the statement into batches of many rows
    each. To be safe against deadlocks, callers give the rows in a fixed order (by name or id).
    """
    if not rows:
        return []
    table = table_of(model)
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    statement = dialect.insert(table).on_conflict_do_nothing()
    return session.execute(statement.returning(*returning), rows).all()
