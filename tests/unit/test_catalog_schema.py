"""The schema: made by migrations alone, and the same as the models."""

import threading
import warnings
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlmodel import SQLModel

from catalog import schema
from catalog.db import Catalog
from catalog.errors import SpdfError
from catalog.schema import SchemaMismatch


def test_migrated_schema_equals_the_models(catalog: Catalog) -> None:
    options = {"compare_type": True, "compare_server_default": True}
    with catalog.engine.connect() as connection, warnings.catch_warnings():
        # Of the circle dataset, task, workflow, which is handled in the migration.
        warnings.filterwarnings("ignore", "Cannot correctly sort tables", sa.exc.SAWarning)
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, SQLModel.metadata) == []


def test_models_have_all_tables_of_the_design(catalog: Catalog) -> None:
    with catalog.engine.connect() as connection:
        tables = set(sa.inspect(connection).get_table_names())
    assert tables >= {
        "storage", "dataset", "file", "replica", "dataset_file", "template", "workflow", "task",
        "job", "attempt", "job_input", "job_output", "pilot", "request", "event",
    }  # fmt: skip


def test_foreign_keys_of_the_circle_hold(catalog: Catalog) -> None:
    statement = sa.text(
        "INSERT INTO dataset (name, state, derived, task_id, next_position, created_at) "
        "VALUES ('d', 'OPEN', false, 99, 0, '2026-01-01 00:00:00')"
    )
    with pytest.raises(sa.exc.IntegrityError), catalog.write() as session:
        session.execute(statement)


def test_head_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(schema.migrations()))
    assert ScriptDirectory.from_config(config).get_heads() == [schema.HEAD]


def test_upgrade_of_an_upgraded_catalog_changes_nothing(catalog: Catalog) -> None:
    schema.upgrade(catalog)
    schema.check(catalog)


def test_concurrent_upgrades_give_one_schema(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new.db'}"
    errors: list[Exception] = []

    def upgrade() -> None:
        opened = Catalog(url)
        try:
            schema.upgrade(opened)
            schema.check(opened)
        except (SpdfError, sa.exc.SQLAlchemyError) as error:
            errors.append(error)
        finally:
            opened.close()

    threads = [threading.Thread(target=upgrade) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_empty_catalog_is_refused_with_the_mend(tmp_path: Path) -> None:
    opened = Catalog(f"sqlite:///{tmp_path / 'empty.db'}")
    with pytest.raises(SchemaMismatch, match="is empty; `spdf catalog migrate` makes its tables"):
        schema.check(opened)
    opened.close()


def say(catalog: Catalog, found: str, oldest: str) -> None:
    """Make the catalog claim another schema."""
    with catalog.write() as session:
        session.execute(sa.text(f"UPDATE alembic_version SET version_num = '{found}'"))
        session.execute(sa.text(f"UPDATE schema_info SET oldest_program = '{oldest}'"))


def test_an_older_schema_is_refused_with_the_mend(catalog: Catalog) -> None:
    say(catalog, "0000", "0000")
    sentence = "schema 0000, older than this program's .*; `spdf catalog migrate` brings it up"
    with pytest.raises(SchemaMismatch, match=sentence):
        schema.check(catalog)


def test_a_newer_schema_that_was_only_added_to_is_worked_with(catalog: Catalog) -> None:
    say(catalog, "9999", schema.HEAD)
    assert schema.check(catalog).found == "9999"
    assert schema.upgrade(catalog).found == "9999"
    assert schema.check(catalog).found == "9999", "an older program leaves it as it is"


def test_a_newer_schema_that_dropped_something_is_refused(catalog: Catalog) -> None:
    say(catalog, "9999", "9998")
    for refuses in (schema.check, schema.upgrade):
        with pytest.raises(SchemaMismatch, match=r"schema 9999, newer than .* install a newer"):
            refuses(catalog)


def test_the_sentences_show_no_password(catalog: Catalog) -> None:
    say(catalog, "9999", "9998")
    with pytest.raises(SchemaMismatch) as refusal:
        schema.check(catalog)
    assert (catalog.url.password or "none") not in str(refusal.value)
