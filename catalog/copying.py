"""Many rows to PostgreSQL by COPY: straight into their table, or through a temporary one.

A row that clashes is an error of the whole COPY. So what goes straight has a savepoint, and where
it fails, nothing of it stays; the temporary table is for an INSERT that leaves out what clashes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count, repeat
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg.errors import UniqueViolation
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlmodel import Session

_copies = count()


@contextmanager
def copied(
    session: Session, table: sa.Table, rows: Sequence[Mapping[str, Any]]
) -> Iterator[sa.Table]:
    """A temporary table with the rows, and with their columns alone; they are sent by COPY."""
    connection = session.connection()
    columns = [sa.Column(column, table.c[column].type) for column in rows[0]]
    made = sa.Table(f"copied_{next(_copies)}", sa.MetaData(), *columns, prefixes=["TEMPORARY"])
    made.create(connection)
    cells = {column: _cells(made.c[column], rows, connection) for column in rows[0]}
    send(connection, made, cells)
    yield made
    made.drop(connection)


def copied_straight(session: Session, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the rows went in by COPY without a clash, in half of the time; else none has."""
    connection = session.connection()
    columns = {column: _cells(table.c[column], rows, connection) for column in rows[0]}
    columns |= _defaults(connection, [c for c in table.c if c.name not in columns])
    try:
        with connection.begin_nested():
            send(connection, table, columns)
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
    # Constants, or expressions of the database, such as its time.
    assert not any(column.default.is_callable or column.default.is_sequence for column in filled)
    values = [sa.type_coerce(column.default.arg, column.type) for column in filled]
    row = connection.execute(sa.select(*values)).one()
    return {
        column.name: repeat(*_cells(column, [{column.name: value}], connection))
        for column, value in zip(filled, row, strict=True)
    }


def reserved(session: Session, table: sa.Table, number: int) -> list[int]:
    """Ids that nobody else gets."""
    name = sa.func.pg_get_serial_sequence(table.name, "id")
    # A subquery: else the sequence is looked up by its name for each.
    sequence = sa.select(sa.cast(name, postgresql.REGCLASS)).scalar_subquery()
    numbers = sa.func.generate_series(1, number).table_valued("number")
    query = sa.select(sa.func.array_agg(sa.func.nextval(sequence))).select_from(numbers)
    return list(session.scalars(query).one())


def send(connection: sa.Connection, table: sa.Table, cells: Mapping[str, Iterable[Any]]) -> None:
    """Rows to a table, given by columns, as the driver takes them; raises SQLAlchemy's errors."""
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
