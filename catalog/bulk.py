"""Set-based statements in pieces that every database takes."""

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import count, islice
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, SQLModel

Item = TypeVar("Item")

COPY_ROWS = 200
"""From so many rows on PostgreSQL gets them by COPY, through a temporary table."""

_copies = count()

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
    dialect = postgresql if is_postgresql(session) else sqlite
    insert = dialect.insert(table).on_conflict_do_nothing().returning(*returning)
    return _execute(session, table, insert, rows).all()


def is_postgresql(session: Session) -> bool:
    """Whether the session speaks to PostgreSQL, and not to SQLite."""
    return session.get_bind().dialect.name == "postgresql"


def _execute(
    session: Session, table: sa.Table, insert: sa.Insert, rows: Sequence[Mapping[str, Any]]
) -> sa.Result[Any]:
    if len(rows) < COPY_ROWS or not is_postgresql(session):
        return session.execute(insert, rows)
    names = list(rows[0])
    copied = _copied(session, table, names, rows)
    chosen = sa.select(*(copied.c[name] for name in names))
    kept = session.execute(insert.from_select(names, chosen)).freeze()
    copied.drop(session.connection())
    return kept()


def _copied(
    session: Session, table: sa.Table, names: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> sa.Table:
    """A temporary table of those columns with the rows, sent by COPY."""
    connection = session.connection()
    name = f"copied_{next(_copies)}"
    columns = [sa.Column(column, table.c[column].type) for column in names]
    made = sa.Table(name, sa.MetaData(), *columns, prefixes=["TEMPORARY"])
    made.create(connection)
    convert = [_converter(column.type, connection.dialect) for column in columns]
    driver: Any = connection.connection.driver_connection
    listed = ", ".join(f'"{column}"' for column in names)
    with driver.cursor() as cursor, cursor.copy(f"COPY {name} ({listed}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row([f(row[n]) for f, n in zip(convert, names, strict=True)])
    return made


def _converter(kind: sa.types.TypeEngine[Any], dialect: sa.Dialect) -> Callable[[Any], Any]:
    """What SQLAlchemy does to a value of that type before the driver gets it."""
    processor = kind.dialect_impl(dialect).bind_processor(dialect)
    return processor or (lambda value: value)
