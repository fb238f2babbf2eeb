"""Many rows as one parameter: a JSON text that the database itself takes apart.

A statement over such a parameter has the same text whatever the number of rows, so it is compiled,
parsed and planned once. A list of `VALUES` or an expanded `IN` is a new statement for each number.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Session, SQLModel

from catalog.bulk import is_postgresql, table_of
from catalog.jsontext import dumps


def among(session: Session, column: Any, values: Collection[Any]) -> sa.ColumnElement[bool]:
    """That a column of numbers or texts has one of these values."""
    if is_postgresql(session):
        array = sa.literal(list(values), ARRAY(column.type))
        clause: sa.ColumnElement[bool] = column == sa.any_(array)
        return clause
    found: sa.ColumnElement[bool] = column.in_(sa.select(listed(session, column.type, values)))
    return found


def listed(session: Session, kind: Any, values: Collection[Any]) -> sa.FromClause:
    """Numbers or texts that a statement may select from, as the column `value`."""
    if is_postgresql(session):
        array = sa.literal(list(values), ARRAY(kind))
        return sa.func.unnest(array).table_valued("value", name="each").render_derived()
    return _each(sa.literal(dumps(list(values)), sa.String()))


def rowset(
    session: Session, columns: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> sa.FromClause:
    """Rows that a statement may select from, with `columns` (types by name).

    Values are what JSON has; a column of type JSON takes a mapping.
    """
    if is_postgresql(session):
        text = sa.literal(dumps([{n: row[n] for n in columns} for row in rows]), sa.String())
        named = [sa.column(name, kind) for name, kind in columns.items()]
        found = sa.func.json_to_recordset(sa.cast(text, sa.JSON)).table_valued(*named)
        return found.render_derived(name="cells", with_types=True)
    text = sa.literal(dumps([[row[n] for n in columns] for row in rows]), sa.String())
    value = _each(text).c.value
    cells = [
        sa.type_coerce(sa.func.json_extract(value, f"$[{place}]"), kind).label(name)
        for place, (name, kind) in enumerate(columns.items())
    ]
    return sa.select(*cells).subquery("cells")


def insert_rows(
    session: Session,
    model: type[SQLModel],
    rows: Sequence[Mapping[str, Any]],
    *returning: Any,
) -> Sequence[sa.Row[Any]]:
    """Insert rows that all name the same columns; gives `returning` of each, in no set order."""
    if not rows:
        return []
    table = table_of(model)
    names = list(rows[0])
    cells = rowset(session, {name: table.c[name].type for name in names}, rows)
    chosen = sa.select(*(cells.c[name] for name in names))
    insert = sa.insert(table).from_select(names, chosen)
    if not returning:
        session.connection().execute(insert)
        return []
    return session.connection().execute(insert.returning(*returning)).all()


def update_rows(
    session: Session,
    model: type[SQLModel],
    rows: Sequence[Mapping[str, Any]],
    common: Callable[[sa.FromClause], Mapping[str, Any]],
) -> None:
    """Set, in the rows found by `id`, columns to values of their own, and others to `common`.

    `common` gets the rowset, as its expressions may be of these values.
    """
    if not rows:
        return
    table = table_of(model)
    names = [name for name in rows[0] if name != "id"]
    cells = rowset(session, {name: table.c[name].type for name in ("id", *names)}, rows)
    session.connection().execute(
        sa.update(table)
        .where(table.c.id == cells.c.id)
        .values(**{name: cells.c[name] for name in names}, **common(cells))
    )


def _each(text: Any) -> sa.TableValuedAlias:
    return sa.func.json_each(text).table_valued("value", name="each")
