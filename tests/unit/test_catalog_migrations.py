"""Migrations: from nothing and from every earlier revision, with rows in every table."""

import shutil
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlmodel import SQLModel

from catalog import clock, pilots, requests, schema
from catalog.db import Catalog
from catalog.errors import Conflict, Unavailable
from catalog.requests import parse
from catalog.schema import SchemaMismatch

Rows = dict[str, list[dict[str, Any]]]

OWN = {"alembic_version", "catalog_clock", "catalog_info", "schema_info"}
COUNT = 3


def config() -> Config:
    made = Config()
    made.set_main_option("script_location", str(schema.migrations()))
    return made


def revisions() -> list[str]:
    """All revisions, oldest first."""
    return sorted(
        script.revision for script in ScriptDirectory.from_config(config()).walk_revisions()
    )


@pytest.fixture
def bare(bare_url: str) -> Iterator[Catalog]:
    """A database without tables."""
    opened = Catalog(bare_url)
    yield opened
    opened.close()


def migrate(catalog: Catalog, revision: str) -> None:
    with catalog.engine.begin() as connection:
        made = config()
        made.attributes["connection"] = connection
        command.upgrade(made, revision)


def tables(catalog: Catalog) -> list[sa.Table]:
    """The catalog's tables as they are in the database."""
    found = sa.MetaData()
    found.reflect(catalog.engine)
    return [table for name, table in found.tables.items() if name not in OWN]


def value_of(column: sa.Column[Any], number: int) -> Any:
    """Something that a column takes, another for every row."""
    kind = column.type
    if isinstance(kind, sa.Boolean):
        return number % 2 == 0
    if isinstance(kind, sa.DateTime):
        return datetime(2026, 1, number, tzinfo=UTC if kind.timezone else None)
    if isinstance(kind, sa.JSON):
        return {"number": number}
    if isinstance(kind, sa.Integer | sa.Float):
        return number
    return f"{column.name}-{number}"[: getattr(kind, "length", None) or 99]


def fill(catalog: Catalog) -> None:
    """Put rows into every table: first without the references that may be NULL, then with them."""
    everything = tables(catalog)
    waiting = {table.name: table for table in everything}
    with catalog.engine.begin() as connection:
        while waiting:
            free = [t for t in waiting.values() if not needs(t) & waiting.keys()]
            assert free, f"a circle of references that can't be NULL: {sorted(waiting)}"
            for table in free:
                connection.execute(
                    sa.insert(table), [row_of(table, n) for n in range(1, COUNT + 1)]
                )
                del waiting[table.name]
        for table in everything:
            for column in table.columns:
                if column.foreign_keys and column.nullable:
                    connection.execute(sa.update(table).values({column: COUNT}))


def needs(table: sa.Table) -> set[str]:
    """Other tables that its rows can't be without."""
    columns = [column for column in table.columns if not column.nullable]
    return {key.column.table.name for column in columns for key in column.foreign_keys}


def row_of(table: sa.Table, number: int) -> dict[str, Any]:
    return {
        column.name: number if column.foreign_keys else value_of(column, number)
        for column in table.columns
        if not (column.foreign_keys and column.nullable)
    }


def rows(catalog: Catalog, columns: dict[str, list[str]]) -> Rows:
    """What the tables hold, in these columns of theirs."""
    everything = tables(catalog)
    with catalog.engine.connect() as connection:
        return {
            table.name: sorted(
                (
                    dict(row)
                    for row in connection.execute(
                        sa.select(*(table.c[name] for name in columns[table.name]))
                    ).mappings()
                ),
                key=repr,
            )
            for table in everything
            if table.name in columns
        }


def differences(catalog: Catalog) -> list[Any]:
    """Between the database and the models."""
    options = {"compare_type": True, "compare_server_default": True}
    with catalog.engine.connect() as connection, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Cannot correctly sort tables", sa.exc.SAWarning)
        context = MigrationContext.configure(connection, opts=options)
        return list(compare_metadata(context, SQLModel.metadata))


@pytest.mark.parametrize("revision", revisions())
def test_every_revision_with_rows_in_it_comes_up_to_date(bare: Catalog, revision: str) -> None:
    migrate(bare, revision)
    fill(bare)
    columns = {table.name: [column.name for column in table.columns] for table in tables(bare)}
    before = rows(bare, columns)
    assert {name: len(held) for name, held in before.items()} == dict.fromkeys(columns, COUNT)
    assert schema.upgrade(bare).found == revision
    assert schema.check(bare).found == schema.HEAD
    assert rows(bare, columns) == before
    assert differences(bare) == []


def test_what_ended_workflows_have_left_open_is_incomplete(bare: Catalog) -> None:
    migrate(bare, "0015")
    fill(bare)
    with bare.engine.begin() as connection:
        for text in (
            "UPDATE dataset SET task_id = id, state = 'OPEN'",
            "UPDATE workflow SET state = CASE id WHEN 1 THEN 'CANCELLED' ELSE 'IN_PROGRESS' END",
        ):
            connection.execute(sa.text(text))
    schema.upgrade(bare)
    with bare.read() as session:
        found = session.scalars(sa.text("SELECT incomplete FROM dataset ORDER BY id"))
        assert list(found) == ["workflow 1, which made it, is CANCELLED", None, None]


def test_an_empty_database_gets_the_whole_schema(bare: Catalog) -> None:
    assert schema.upgrade(bare).found is None
    assert schema.check(bare).oldest_program == schema.oldest_program(schema.HEAD)
    assert differences(bare) == []


def test_every_migration_says_which_programs_can_work_with_it() -> None:
    declared = [schema.oldest_program(revision) for revision in revisions()]
    assert declared == sorted(declared), "what was dropped doesn't come back"
    assert all(old <= new for old, new in zip(declared, revisions(), strict=True))


@pytest.mark.parametrize("program", ["0005", "0007", "0009"])
def test_a_program_that_would_break_what_the_schema_promises_is_refused(
    bare: Catalog, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It knows no grace and no originals, or takes a storage's marker for dark data."""
    schema.upgrade(bare)
    monkeypatch.setattr(schema, "HEAD", program)
    for refuses in (schema.check, schema.require, schema.upgrade):
        with pytest.raises(SchemaMismatch, match=r"not for programs before .* install a newer"):
            refuses(bare)


@pytest.mark.parametrize("promise", ["0008", "0010"])
def test_each_promise_is_declared_where_it_is_made(promise: str) -> None:
    assert schema.oldest_program(promise) == promise


def test_a_program_that_does_without_what_was_added_goes_on(
    bare: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema.upgrade(bare)
    monkeypatch.setattr(schema, "HEAD", schema.oldest_program(schema.HEAD))
    assert schema.require(bare).is_usable


@pytest.fixture
def next_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, str], str]:
    """Turns this program into the next version, with one migration more; gives its revision."""

    def write(statement: str, oldest: str) -> str:
        folder = tmp_path / "migrations"
        shutil.copytree(schema.migrations(), folder, ignore=shutil.ignore_patterns("__pycache__"))
        revision = f"{int(schema.HEAD) + 1:04}"
        (folder / "versions" / f"{revision}_next.py").write_text(
            "import sqlalchemy as sa\n"
            "from alembic import op\n"
            f"revision, down_revision = {revision!r}, {schema.HEAD!r}\n"
            f"oldest_program = {oldest or revision!r}\n"
            f"def upgrade() -> None:\n    {statement}\n"
        )
        monkeypatch.setattr(schema, "migrations", lambda: folder)
        monkeypatch.setattr(schema, "HEAD", revision)
        return revision

    return write


@pytest.fixture
def contracting(next_version: Callable[[str, str], str]) -> str:
    """This program, one version on: its migration drops what today's still reads."""
    return next_version("op.drop_table('request')", "")


@pytest.fixture
def pilot(catalog: Catalog, chain: Any) -> int:
    """A pilot at work for one of the chain's tasks."""
    with catalog.write() as session:
        task = session.execute(sa.text("SELECT min(id) FROM task")).scalar_one()
        return pilots.start(session, task, pool="cpu", node="n", pid=1, slots=1, flow_run_id=None)


def test_a_schema_that_pilots_at_work_need_is_not_dropped(
    catalog: Catalog, pilot: int, contracting: str
) -> None:
    with pytest.raises(Conflict, match=f"pilots at work .* before the schema {contracting}"):
        schema.upgrade(catalog)
    with catalog.write() as session:
        pilots.end(session, pilot, "done")
    schema.upgrade(catalog)
    assert schema.check(catalog).oldest_program == contracting


def test_pilots_that_died_hold_up_no_migration(
    catalog: Catalog, pilot: int, contracting: str
) -> None:
    clock.shift_clock(3600.0)
    schema.upgrade(catalog)
    assert schema.check(catalog).found == contracting


def test_what_only_adds_is_migrated_under_pilots_at_work(
    catalog: Catalog,
    pilot: int,
    next_version: Callable[[str, str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    addition = "op.add_column('request', sa.Column('added', sa.Text()))"
    added = next_version(addition, schema.oldest_program(schema.HEAD))
    schema.upgrade(catalog)
    monkeypatch.undo()
    assert schema.check(catalog).found == added > schema.HEAD, "today's program works with it"
    with catalog.write() as session:
        asked = parse({"kind": "dataset.close", "key": "key", "datasetId": "d"})
        assert requests.submit(session, [asked])


def test_tables_that_stay_in_use_are_waited_for_a_while_only(
    catalog: Catalog, contracting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if catalog.is_sqlite:
        pytest.skip("writers of SQLite wait for each other in any case")
    monkeypatch.setattr(schema, "_LOCK_WAIT", "100ms")
    with catalog.read() as session:
        session.execute(sa.text("SELECT 1 FROM request"))
        with pytest.raises(Unavailable, match="stay in use"):
            schema.upgrade(catalog)
    schema.upgrade(catalog)
