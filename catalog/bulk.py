"""Set-based statements in pieces that every database takes."""

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from operator import itemgetter
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, SQLModel

from catalog.copying import copied, copied_straight, reserved

Item = TypeVar("Item")

COPY_ROWS = 200
"""From so many rows on PostgreSQL gets them by COPY, through a temporary table."""

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


def insert_rest(
    session: Session, model: type[SQLModel], rows: Sequence[Mapping[str, Any]], key: str
) -> list[Any]:
    """As `insert_new`, but gives the column `key` of the rows that clashed, which mostly none do.

    So they are tried without a look at what is there, in half of the time. Of several rows with
    the same key that is new, all but one have clashed.
    """
    if not rows:
        return []
    table = table_of(model)
    insert = _ignoring(session, table).returning(table.c[key])
    if not _by_copy(session, rows):
        inserted = Counter(session.scalars(insert, rows))
        return list((Counter(row[key] for row in rows) - inserted).elements())
    if copied_straight(session, table, rows):
        return []
    with copied(session, table, rows) as them:
        new = insert.from_select(list(rows[0]), sa.select(*them.c)).cte("new")
        rest = sa.select(them.c[key]).except_all(sa.select(new.c[key]))
        return list(session.scalars(rest))


def insert_keyed(
    session: Session, model: type[SQLModel], rows: Sequence[Mapping[str, Any]], *key: str
) -> dict[tuple[Any, ...], int]:
    """As `insert_new`, but gives the ids of the new rows by `key`.

    Mostly all are new, so they are tried without a look at what is there, in half of the time.
    """
    table = table_of(model)
    if _by_copy(session, rows):
        ids = reserved(session, table, len(rows))
        numbered = [{"id": i, **row} for i, row in zip(ids, rows, strict=True)]
        if copied_straight(session, table, numbered):
            return dict(zip(map(itemgetter(*key), rows), ids, strict=True))
    new = insert_new(session, model, rows, *(table.c[name] for name in (*key, "id")))
    return {tuple(values): i for *values, i in new}


def unclaimed(
    items: Iterable[Item], new: Collection[Hashable], key: Callable[[Item], Hashable]
) -> list[Item]:
    """The items that are none of the rows just inserted, which `new` has by key.

    Of several items with the key of a new row the first is that row, the others are not.
    """
    rest, claimed = [], set()
    for item in items:
        if (wanted := key(item)) in new and wanted not in claimed:
            claimed.add(wanted)
        else:
            rest.append(item)
    return rest


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
    each; on PostgreSQL many rows go by COPY. To be safe against deadlocks, callers give the rows in
    a fixed order (by name or id).
    """
    if not rows:
        return []
    table = table_of(model)
    insert = _ignoring(session, table).returning(*returning)
    if not _by_copy(session, rows):
        return session.execute(insert, rows).all()
    with copied(session, table, rows) as them:
        return session.execute(insert.from_select(list(rows[0]), sa.select(*them.c))).all()


def is_postgresql(session: Session) -> bool:
    """Whether the session speaks to PostgreSQL, and not to SQLite."""
    return session.get_bind().dialect.name == "postgresql"


def _ignoring(session: Session, table: sa.Table) -> Any:
    """An insertion that leaves out what clashes."""
    dialect: Any = postgresql if is_postgresql(session) else sqlite
    return dialect.insert(table).on_conflict_do_nothing()


def _by_copy(session: Session, rows: Sequence[Mapping[str, Any]]) -> bool:
    return len(rows) >= COPY_ROWS and is_postgresql(session)
