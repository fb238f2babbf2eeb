"""Backups: round trips on both databases, and every refusal."""

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from catalog import clock, datasets, pilots, requests, schema, singletons
from catalog.backup import _new_file, back_up, postgres, restore, sqlite
from catalog.db import Catalog
from catalog.errors import BadInput, Conflict, Unavailable
from catalog.pgprograms import program
from catalog.requests import parse
from catalog.schema import SchemaMismatch


@pytest.fixture
def other(bare_url: str) -> Iterator[Catalog]:
    """Another database of the same kind, without tables."""
    opened = Catalog(bare_url)
    yield opened
    opened.close()


def everything(catalog: Catalog) -> dict[str, list[str]]:
    """All rows of all tables, as text, but for what a restore says of itself."""
    known = sa.MetaData()
    known.reflect(catalog.engine)
    with catalog.engine.connect() as connection:
        return {
            name: sorted(str(row) for row in connection.execute(sa.select(table)))
            for name, table in known.tables.items()
            if name not in ("restore", "catalog_info")
        }


def test_a_restored_catalog_is_what_was_backed_up(
    catalog: Catalog, chain: Any, other: Catalog, tmp_path: Path
) -> None:
    made = back_up(catalog, tmp_path / "backup")
    assert made.path.stat().st_mode & 0o777 == 0o600
    assert made.size_bytes == made.path.stat().st_size > 1000
    assert [path.name for path in tmp_path.glob("*backup*")] == ["backup"], "nothing else is left"
    done = restore(other, made.path)
    assert (done.schema.found, done.aside) == (schema.HEAD, None)
    assert everything(other) == everything(catalog)
    schema.check(other)
    with other.write() as session:
        new = datasets.create(session, "later")
    assert new not in chain.raw, "ids go on after those of the backup"


def test_what_a_restore_replaces_is_kept(catalog: Catalog, chain: Any, tmp_path: Path) -> None:
    made = back_up(catalog, tmp_path / "backup")
    before = everything(catalog)
    with catalog.write() as session:
        datasets.create(session, "since")
    with pytest.raises(Conflict, match=r"is not empty \(.*dataset.*\); `--replace` puts aside"):
        restore(catalog, made.path)
    done = restore(catalog, made.path, replace=True)
    assert everything(catalog) == before
    assert "since" in kept_datasets(catalog, done.aside)
    again = back_up(catalog, tmp_path / "again")
    restore(catalog, again.path, replace=True)
    assert everything(catalog) == before, "what was put aside is in no backup"


def kept_datasets(catalog: Catalog, aside: str | None) -> list[str]:
    assert aside is not None
    if catalog.is_sqlite:
        with closing(sqlite3.connect(aside)) as connection:
            return [name for (name,) in connection.execute("SELECT name FROM dataset")]
    with catalog.read() as session:
        return list(session.scalars(sa.text(f'SELECT name FROM "{aside}".dataset')))


def test_storages_alone_are_no_reason_to_refuse(
    catalog: Catalog, storage: Any, tmp_path: Path
) -> None:
    made = back_up(catalog, tmp_path / "backup")
    assert restore(catalog, made.path).aside is not None


def test_a_backup_is_of_one_moment_while_others_write(
    catalog: Catalog, other: Catalog, tmp_path: Path
) -> None:
    """Each transaction makes two requests: a backup has both or neither."""
    end = threading.Event()

    def write() -> None:
        number = 0
        while not end.is_set():
            with catalog.write() as session:
                pair = [
                    parse({"kind": "dataset.close", "key": f"{number}-{half}", "datasetId": "d"})
                    for half in "ab"
                ]
                requests.submit(session, pair[:1])
                requests.submit(session, pair[1:])
            number += 1

    writers = [threading.Thread(target=write)]
    for writer in writers:
        writer.start()
    try:
        made = [back_up(catalog, tmp_path / f"backup-{i}") for i in range(5)]
    finally:
        end.set()
        for writer in writers:
            writer.join()
    for one in made:
        restore(other, one.path, replace=True)
        keys = [row.split(", ")[2] for row in everything(other)["request"]]
        assert len(keys) % 2 == 0


def test_a_backup_replaces_no_file(catalog: Catalog, tmp_path: Path) -> None:
    path = tmp_path / "backup"
    path.write_text("mine")
    with pytest.raises(Conflict, match="is there already; give the backup another name"):
        back_up(catalog, path)
    assert path.read_text() == "mine"


def test_an_empty_database_is_not_backed_up(other: Catalog, tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="is empty; there is nothing to back up"):
        back_up(other, tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


def test_a_backup_that_fails_leaves_nothing(catalog: Catalog, tmp_path: Path) -> None:
    if not catalog.is_sqlite:
        pytest.skip("pg_dump's faults have a test of their own")
    with closing(sqlite3.connect(sqlite.file_of(catalog))) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with sqlite.file_of(catalog).open("r+b") as stream:
        stream.seek(3 * 4096)
        stream.write(b"\xff" * 4096 * 4)
    with pytest.raises(Unavailable, match="is damaged"):
        back_up(catalog, tmp_path / "backup")
    assert not list(tmp_path.glob("*backup*"))


@pytest.mark.parametrize("content", [b"", b"text", b"PGDM", bytes(100)])
def test_what_is_no_backup_is_refused(catalog: Catalog, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="is no backup"):
        restore(catalog, path)


def test_a_backup_of_the_other_kind_is_refused(catalog: Catalog, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(postgres.MAGIC if catalog.is_sqlite else sqlite.MAGIC)
    with pytest.raises(BadInput, match=r"is a backup of a catalog on .* in SPDF_CATALOG_URL"):
        restore(catalog, path)


def test_a_damaged_backup_changes_nothing(catalog: Catalog, chain: Any, tmp_path: Path) -> None:
    made = back_up(catalog, tmp_path / "backup")
    before = everything(catalog)
    whole = made.path.read_bytes()
    for part in (0.5, 0.9):
        made.path.write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(BadInput, match=r"is damaged|can't be read"):
            restore(catalog, made.path, replace=True)
        assert everything(catalog) == before


def test_another_database_is_no_catalog(catalog: Catalog, other: Catalog, tmp_path: Path) -> None:
    path = tmp_path / "file"
    with other.engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE something (id INTEGER)"))
    if other.is_sqlite:
        sqlite.dump(other, path)
    else:
        postgres.dump(other, path)
    with pytest.raises(BadInput, match="holds no catalog"):
        restore(catalog, path)


def test_a_backup_of_an_older_schema_says_that_it_is_one(
    catalog: Catalog, other: Catalog, tmp_path: Path
) -> None:
    with other.engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(schema.migrations()))
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
    made = back_up(other, tmp_path / "backup")
    assert made.schema == "0002"
    done = restore(catalog, made.path)
    assert done.schema.found == "0002" and not done.schema.is_usable
    schema.upgrade(catalog)
    schema.check(catalog)


def test_a_backup_of_a_newer_program_is_refused(
    catalog: Catalog, other: Catalog, tmp_path: Path
) -> None:
    with catalog.write() as session:
        session.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    allowed = back_up(catalog, tmp_path / "allowed")
    with catalog.write() as session:
        session.execute(sa.text("UPDATE schema_info SET oldest_program = '9999'"))
    refused = back_up(catalog, tmp_path / "refused")
    with pytest.raises(SchemaMismatch, match=r"the backup .* has the schema 9999, newer than"):
        restore(other, refused.path)
    assert restore(other, allowed.path).schema.is_usable


def pilot_beats(session: Any, workflow: int) -> None:
    task = session.execute(sa.text("SELECT min(id) FROM task")).scalar_one()
    pilots.start(session, task, pool="cpu", node="n", pid=1, slots=1, flow_run_id=None)


def workflow_is_owned(session: Any, workflow: int) -> None:
    session.execute(
        sa.text("UPDATE workflow SET state = 'IN_PROGRESS', lease_until = :until"),
        {"until": "2199-01-01 00:00:00"},
    )


def recorder_leads(session: Any, workflow: int) -> None:
    singletons.acquire(session, "recorder", "me", 15.0)


@pytest.mark.parametrize(
    ("happens", "who"),
    [
        (pilot_beats, r"pilots \(1\)"),
        (workflow_is_owned, r"advanced workflows \(1\)"),
        (recorder_leads, "recorder"),
    ],
)
def test_a_catalog_that_is_worked_on_is_not_replaced(
    catalog: Catalog,
    chain: Any,
    tmp_path: Path,
    happens: Callable[[Any, int], None],
    who: str,
) -> None:
    made = back_up(catalog, tmp_path / "backup")
    with catalog.write() as session:
        happens(session, chain.workflow)
    with pytest.raises(Conflict, match=f"worked on by {who}; stop them first"):
        restore(catalog, made.path, replace=True)


def test_those_who_died_are_waited_for_a_minute_only(
    catalog: Catalog, chain: Any, tmp_path: Path
) -> None:
    made = back_up(catalog, tmp_path / "backup")
    with catalog.write() as session:
        pilot_beats(session, chain.workflow)
        recorder_leads(session, chain.workflow)
    clock.shift_clock(61.0)
    restore(catalog, made.path, replace=True)


HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("SELECT count(*) FROM dataset").fetchone()
print("open", flush=True)
sys.stdin.read()
"""


def test_a_file_that_another_process_has_open_is_not_replaced(
    catalog: Catalog, chain: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not catalog.is_sqlite:
        pytest.skip("of PostgreSQL, tables in use are locked")
    monkeypatch.setattr(sqlite, "_WAIT_S", 0.1)
    made = back_up(catalog, tmp_path / "backup")
    before = everything(catalog)
    line = [sys.executable, "-c", HOLD, str(sqlite.file_of(catalog))]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "open\n"
        with pytest.raises(Conflict, match=r"another process has the catalog .* open"):
            restore(catalog, made.path, replace=True)
        holder.communicate()
    assert everything(catalog) == before
    restore(catalog, made.path, replace=True)


def test_tables_that_are_in_use_are_not_replaced(
    catalog: Catalog, chain: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if catalog.is_sqlite:
        pytest.skip("of SQLite, the file in use is not replaced")
    monkeypatch.setattr(postgres, "_LOCK_WAIT", "100ms")
    made = back_up(catalog, tmp_path / "backup")
    before = everything(catalog)
    holder = Catalog(catalog.url.render_as_string(hide_password=False))
    with holder.read() as session:
        session.execute(sa.text("SELECT 1 FROM dataset"))
        with pytest.raises(Conflict, match="tables in use"):
            restore(catalog, made.path, replace=True)
    holder.close()
    assert everything(catalog) == before


def test_a_damaged_catalog_is_replaced_and_kept(
    catalog: Catalog, chain: Any, tmp_path: Path
) -> None:
    if not catalog.is_sqlite:
        pytest.skip("PostgreSQL looks after its own files")
    made = back_up(catalog, tmp_path / "backup")
    before = everything(catalog)
    catalog.close()
    file = sqlite.file_of(catalog)
    damaged = b"no database at all" * 1000
    file.write_bytes(damaged)
    with pytest.raises(Conflict, match="it can't be read"):
        restore(catalog, made.path)
    done = restore(catalog, made.path, replace=True)
    assert Path(str(done.aside)).read_bytes() == damaged
    assert everything(catalog) == before


@pytest.fixture
def programs(catalog: Catalog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder that is all there is of PostgreSQL's programs."""
    if catalog.is_sqlite:
        pytest.skip("SQLite needs no programs")
    folder = tmp_path / "debian" / "15" / "bin"
    folder.mkdir(parents=True)
    for name in ("pg_dump", "pg_restore", "psql"):
        (folder / name).symlink_to(program(name))
    monkeypatch.setattr("catalog.pgprograms._DEBIAN", tmp_path / "debian")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return folder


def put(path: Path, script: str) -> None:
    """Put a shell script in a program's place."""
    path.unlink()
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_programs_that_are_missing_are_named(
    catalog: Catalog, programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    made = back_up(catalog, tmp_path / "backup")
    for name in ("pg_dump", "psql"):
        (programs / name).unlink()
    with pytest.raises(Unavailable, match=r"pg_dump is not on .* `postgresql-client`"):
        back_up(catalog, tmp_path / "other")
    with pytest.raises(Unavailable, match="psql is not on this machine"):
        restore(catalog, made.path)


def test_a_program_older_than_the_server_is_refused(
    catalog: Catalog, programs: Path, tmp_path: Path
) -> None:
    put(programs / "pg_dump", "echo 'pg_dump (PostgreSQL) 9.6.24'")
    with pytest.raises(Unavailable, match=r"is of PostgreSQL 9, older than the server's \d+"):
        back_up(catalog, tmp_path / "backup")


def test_a_program_that_fails_is_quoted_and_nothing_is_changed(
    catalog: Catalog, chain: Any, programs: Path, tmp_path: Path
) -> None:
    made = back_up(catalog, tmp_path / "backup")
    before = everything(catalog)
    put(programs / "psql", "head -c 100 >/dev/null; echo 'psql: error: no luck.' >&2; exit 3")
    with pytest.raises(Unavailable, match=r"changed nothing: psql: error: no luck\.$"):
        restore(catalog, made.path, replace=True)
    put(programs / "pg_dump", 'case $1 in --version) echo "(PostgreSQL) 99";; *) exit 1;; esac')
    with pytest.raises(Unavailable, match="could not back up the catalog: it did not say why"):
        back_up(catalog, tmp_path / "other")
    assert not list(tmp_path.glob("*other*"))
    assert everything(catalog) == before


def test_the_password_is_no_argument(catalog: Catalog, programs: Path, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    for name in ("pg_dump", "psql"):
        real = (programs / name).resolve()
        put(programs / name, f'echo "$0 $@" >>{seen}; exec {real} "$@"')
    made = back_up(catalog, tmp_path / "backup")
    restore(catalog, made.path)
    assert catalog.url.password is not None
    assert "dbname" in seen.read_text() and "psql" in seen.read_text()
    assert catalog.url.password not in seen.read_text()


def test_a_file_that_came_there_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "backup"
    with pytest.raises(Conflict, match="is there already"), _new_file(path) as part:
        part.write_text("ours")
        path.write_text("another's")
    assert path.read_text() == "another's"
    assert list(tmp_path.iterdir()) == [path]
