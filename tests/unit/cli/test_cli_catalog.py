"""`spdf catalog`."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from catalog import db, schema
from catalog.backup import back_up
from catalog.db import Catalog
from catalog.settings import get_settings

Spdf = Callable[..., Any]


@pytest.fixture
def no_tables(bare_home: Path, bare_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The catalog of the settings is a database without tables."""
    monkeypatch.setenv("SPDF_CATALOG_URL", bare_url)
    yield
    db.get_catalog().close()


def test_an_empty_database_is_migrated_once(spdf: Spdf, ok: Spdf, no_tables: None) -> None:
    done = spdf("dataset", "list")
    assert "`spdf catalog migrate`" in done.err or "there is no catalog" in done.err
    assert ok("catalog", "migrate").out == f"the schema was not there and is {schema.HEAD} now.\n"
    assert spdf("catalog", "migrate", "--check").code == 0
    assert ok("catalog", "migrate", "--json").json == {
        "before": schema.HEAD, "after": schema.HEAD, "expected": schema.HEAD,
    }  # fmt: skip
    assert ok("dataset", "list").code == 0


def test_show_tells_what_is_there(ok: Spdf, home: Path, catalog: Catalog) -> None:
    ok("dataset", "create", "run-1")
    shown = ok("catalog", "show", "--json").json
    assert shown["rows"]["dataset"] == 1 and shown["rows"]["storage"] == 3
    assert shown["schema_found"] == shown["schema_expected"] == schema.HEAD
    assert shown["usable"] is True and shown["size_bytes"] > 10_000
    assert (catalog.url.password or "none") not in ok("catalog", "show").out


def test_check_says_and_changes_nothing(spdf: Spdf, home: Path, catalog: Catalog) -> None:
    with catalog.write() as session:
        session.execute(sa.text("UPDATE alembic_version SET version_num = '0000'"))
    done = spdf("catalog", "migrate", "--check")
    assert done.code == 1
    assert done.out == f"the schema is 0000; this program's is {schema.HEAD}.\n"
    assert spdf("catalog", "show", "--json").json["schema_found"] == "0000"


def test_a_schema_of_the_future_is_refused(spdf: Spdf, home: Path, catalog: Catalog) -> None:
    with catalog.write() as session:
        session.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
        session.execute(sa.text("UPDATE schema_info SET oldest_program = '9999'"))
    for words in (["catalog", "migrate"], ["catalog", "migrate", "--check"], ["dataset", "list"]):
        done = spdf(*words)
        assert done.code == 2 and "install a newer spdf" in done.err, words


def test_backup_and_restore_say_what_they_did(
    spdf: Spdf, ok: Spdf, home: Path, catalog: Catalog, tmp_path: Path
) -> None:
    ok("dataset", "create", "run-1")
    backup = tmp_path / "backup"
    assert ok("catalog", "backup", backup).out.startswith(f"{backup}: {catalog.url!r}, schema")
    again = spdf("catalog", "backup", backup)
    assert again.code == 4 and "is there already" in again.err
    ok("dataset", "create", "run-2")
    catalog.close()
    refused = spdf("catalog", "restore", backup)
    assert refused.code == 4 and "--replace" in refused.err
    done = ok("catalog", "restore", backup, "--replace")
    assert "what was there is kept in " in done.err and "migrate" not in done.err
    assert [info["name"] for info in ok("dataset", "list", "--json").json] == ["run-1"]
    restored = ok("catalog", "restore", backup, "--replace", "--json").json
    assert (restored["schema"], restored["usable"]) == (schema.HEAD, True)
    none = spdf("catalog", "restore", tmp_path / "none")
    assert none.code == 2 and str(tmp_path / "none") in none.err


def test_a_restored_older_catalog_asks_to_be_migrated(
    ok: Spdf, home: Path, catalog: Catalog, bare_url: str, tmp_path: Path
) -> None:
    older = Catalog(bare_url)
    with older.engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(schema.migrations()))
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
    back_up(older, tmp_path / "backup")
    older.close()
    catalog.close()
    done = ok("catalog", "restore", tmp_path / "backup", "--replace")
    assert "`spdf catalog migrate` brings its schema up to date" in done.err
    assert ok("catalog", "migrate").out == f"the schema was 0002 and is {schema.HEAD} now.\n"
    ok("dataset", "list")


def test_history_is_counted_then_pruned_and_files_keep_their_way(
    spdf: Spdf, ok: Spdf, home: Path, catalog: Catalog, chain: Any
) -> None:
    with catalog.write() as session:
        session.execute(sa.text("UPDATE workflow SET ended_at = '2020-01-01 00:00:00'"))
    before = ok("file", "show", str(chain.merged), "--json").json
    counted = ok("catalog", "prune", "--older-than", "30d", "--dry-run", "--json").json
    assert (counted["workflows"], counted["jobs"], counted["dry_run"]) == (1, 3, True)
    assert ok("catalog", "show", "--json").json["rows"]["job"] == 3
    done = ok("catalog", "prune")
    assert done.out.startswith("removed: 1 workflows, 3 jobs, ")
    rows = ok("catalog", "show", "--json").json["rows"]
    assert (rows["job"], rows["past_job"]) == (0, 3)
    assert ok("file", "show", str(chain.merged), "--json").json == before
    gone = spdf("job", "show", str(chain.merge_job))
    assert gone.code == 3 and "its history was pruned" in gone.err


def test_history_that_is_kept_for_ever_is_pruned_by_a_date_alone(
    spdf: Spdf, ok: Spdf, home: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPDF_HISTORY_DAYS", "0")
    get_settings.cache_clear()
    refused = spdf("catalog", "prune")
    assert refused.code == 2 and "say --older-than 30d" in refused.err
    assert ok("catalog", "prune", "--older-than", "30d").code == 0
    assert spdf("catalog", "prune", "--older-than", "soon").code == 2
