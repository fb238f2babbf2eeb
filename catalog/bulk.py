"""Set-based statements in pieces that every database takes."""

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count, islice, repeat
from operator import itemgetter
from typing import Any, TypeVar

import psycopg
import sqlalchemy as sa
from psycopg.errors import UniqueViolation
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, IntegrityError
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


def insert_rest(
    session: Session, model: type[SQLModel], rows: Sequence[Mapping[str, Any]], key: str
) -> list[Any]:
    """As `insert_new`, but gives the column `key` of the rows that clashed, which mostly none do.

    Of several rows with the same key that is new, all but one have clashed.
    """
    if not rows:
        return []
    table = table_of(model)
    insert = _ignoring(session, table).returning(table.c[key])
    if not _by_copy(session, rows):
        inserted = Counter(session.scalars(insert, rows))
        return list((Counter(row[key] for row in rows) - inserted).elements())
    if _copied_straight(session, table, rows):
        return []
    with _copied(session, table, rows) as copied:
        new = insert.from_select(list(rows[0]), sa.select(*copied.c)).cte("new")
        rest = sa.select(copied.c[key]).except_all(sa.select(new.c[key]))
        return list(session.scalars(rest))


def insert_keyed(
    session: Session, model: type[SQLModel], rows: Sequence[Mapping[str, Any]], *key: str
) -> dict[tuple[Any, ...], int]:
    """As `insert_new`, but gives the ids of the new rows by `key`; mostly all are new."""
    table = table_of(model)
    if _by_copy(session, rows):
        ids = _reserved(session, table, len(rows))
        numbered = [{"id": i, **row} for i, row in zip(ids, rows, strict=True)]
        if _copied_straight(session, table, numbered):
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
    with _copied(session, table, rows) as copied:
        return session.execute(insert.from_select(list(rows[0]), sa.select(*copied.c))).all()


def is_postgresql(session: Session) -> bool:
    """Whether the session speaks to PostgreSQL, and not to SQLite."""
    return session.get_bind().dialect.name == "postgresql"


def _ignoring(session: Session, table: sa.Table) -> Any:
    """An insertion that leaves out what clashes."""
    dialect: Any = postgresql if is_postgresql(session) else sqlite
    return dialect.insert(table).on_conflict_do_nothing()


def _by_copy(session: Session, rows: Sequence[Mapping[str, Any]]) -> bool:
    return len(rows) >= COPY_ROWS and is_postgresql(session)


@contextmanager
def _copied(
    session: Session, table: sa.Table, rows: Sequence[Mapping[str, Any]]
) -> Iterator[sa.Table]:
    """A temporary table with the rows, and with their columns alone; they are sent by COPY."""
    connection = session.connection()
    columns = [sa.Column(column, table.c[column].type) for column in rows[0]]
    made = sa.Table(f"copied_{next(_copies)}", sa.MetaData(), *columns, prefixes=["TEMPORARY"])
    made.create(connection)
    _send(
        connection, made, {column: _cells(made.c[column], rows, connection) for column in rows[0]}
    )
    yield made
    made.drop(connection)


def _copied_straight(session: Session, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the rows went in by COPY without a clash, in half of the time; else none has."""
    connection = session.connection()
    columns = {column: _cells(table.c[column], rows, connection) for column in rows[0]}
    columns |= _defaults(connection, [c for c in table.c if c.name not in columns])
    try:
        with connection.begin_nested():
            _send(connection, table, columns)
    except IntegrityError as error:
        if isinstance(error.orig, UniqueViolation):
            return False
        raise
    return True


def _defaults(
    connection: sa.Connection, columns: Iterable[sa.Column[Any]]
) -> dict[str, Iterable[Any]]:
    """What SQLAlchemy would fill in, which is the same for all rows."""
    filled: list[Any] = [column for column in columns if column.default is not None]
    if not filled:
        return {}
    # A constant or an expression of the database, such as its time.
    values = [sa.type_coerce(column.default.arg, column.type) for column in filled]
    row = connection.execute(sa.select(*values)).one()
    return {
        column.name: repeat(*_cells(column, [{column.name: value}], connection))
        for column, value in zip(filled, row, strict=True)
    }


def _reserved(session: Session, table: sa.Table, number: int) -> list[int]:
    """Ids that nobody else gets."""
    name = sa.func.pg_get_serial_sequence(table.name, "id")
    # A subquery: else the sequence is looked up by its name for each.
    sequence = sa.select(sa.cast(name, postgresql.REGCLASS)).scalar_subquery()
    numbers = sa.func.generate_series(1, number).table_valued("number")
    query = sa.select(sa.func.array_agg(sa.func.nextval(sequence))).select_from(numbers)
    return list(session.scalars(query).one())


def _send(connection: sa.Connection, table: sa.Table, cells: Mapping[str, Iterable[Any]]) -> None:
    driver: Any = connection.connection.driver_connection
    listed = ", ".join(f'"{column}"' for column in cells)
    statement = f'COPY "{table.name}" ({listed}) FROM STDIN'
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for row in zip(*cells.values(), strict=False):
                copy.write_row(row)
    except psycopg.Error as error:
        # As SQLAlchemy has the errors of its own statements, by which an outage is known.
        dialect: Any = connection.dialect
        raise DBAPIError.instance(
            statement, None, error, psycopg.Error, dialect=dialect,
            connection_invalidated=dialect.is_disconnect(error, driver, None),
        ) from error  # fmt: skip


def _cells(
    column: sa.Column[Any], rows: Sequence[Mapping[str, Any]], connection: sa.Connection
) -> Iterable[Any]:
    """One column's values, with what SQLAlchemy does to each before the driver gets it."""
    values = [row[column.name] for row in rows]
    dialect = connection.dialect
    processor = column.type.dialect_impl(dialect).bind_processor(dialect)
    return map(processor, values) if processor else values
