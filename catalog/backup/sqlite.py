"""Backups of a catalog on SQLite: copies by SQLite's own means."""

import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from catalog import restores, schema
from catalog.db import Catalog
from catalog.drivers.posix import fsync_path, partial_name
from catalog.errors import BadInput, Conflict, Unavailable
from catalog.schema import SchemaState

MAGIC = b"SQLite format 3\x00"
_WAIT_S = 2.0


def file_of(catalog: Catalog) -> Path:
    """The file that the catalog is in."""
    return catalog.file


def dump(catalog: Catalog, part: Path) -> None:
    """Copy the database as it stands at one moment to `part`; writers go on meanwhile.

    Raises `Unavailable` where that can't be, and for a catalog that is damaged itself.
    """
    _copy(file_of(catalog), part)
    with closing(_reader(part)) as connection:
        if fault := _fault(connection):
            raise Unavailable(
                f"the catalog {file_of(catalog)} is damaged ({fault}); restore a backup of it."
            )


def state_of(path: Path) -> SchemaState:
    """The schema of a backup; raises `BadInput` for a damaged one."""
    try:
        with closing(_reader(path)) as connection:
            names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
            if fault := _fault(connection):
                raise _damaged(path, fault)
            return schema.state_of(
                _only(connection, names, "alembic_version", "version_num"),
                _only(connection, names, "schema_info", "oldest_program"),
            )
    except sqlite3.DatabaseError as error:
        raise _damaged(path, str(error)) from error


def restore(catalog: Catalog, path: Path) -> str | None:
    """Put a copy of the backup in the catalog's place; gives the file that has the old one.

    Raises `Conflict` where another process has the catalog open.
    """
    target = file_of(catalog)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = target.with_name(partial_name())
    new.touch(0o600, exist_ok=False)
    try:
        _copy(path, new)
        with catalog.lock():
            before = _generation(target) if target.exists() else 0
            aside = _put_aside(target) if target.exists() else None
            if aside is not None:
                shutil.copymode(aside, new)
            _say_restored(new, before, aside)
            new.replace(target)
    finally:
        new.unlink(missing_ok=True)
    return None if aside is None else str(aside)


def _generation(path: Path) -> int:
    """Of a catalog; 0 where it can't be told, since restoring is for what is damaged, too."""
    try:
        with closing(_reader(path)) as connection:
            (found,) = connection.execute("SELECT max(id) FROM restore").fetchone()
    except sqlite3.DatabaseError:
        return 0
    return int(found or 0)


def _say_restored(new: Path, before: int, aside: Path | None) -> None:
    """Have a catalog say that it is restored, before anybody can open it."""
    with closing(sqlite3.connect(new)) as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        for statement in restores.statements(
            "sqlite",
            after=before,
            aside=None if aside is None else str(aside),
            claims="catalog_info" in names,
        ):
            connection.execute(statement)
        connection.commit()
    fsync_path(new)


def _copy(source: Path, target: Path) -> None:
    """Copy a database to an empty file, which then is all there is of it."""
    try:
        with closing(_reader(source)) as reader, closing(sqlite3.connect(target)) as writer:
            reader.backup(writer)
            writer.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        raise Unavailable(
            f"{source} can't be copied to {target.parent} ({error}); check both."
        ) from error
    fsync_path(target)


def _put_aside(target: Path) -> Path:
    _fold_in(target)
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}"
    aside = target.with_name(f"{target.name}.before-{stamp}")
    # The log first: beside a database that it isn't of, it would be taken for that one's.
    for suffix in ("-wal", "-shm", ""):
        part = Path(f"{target}{suffix}")
        if part.exists():
            part.rename(f"{aside}{suffix}")
    return aside


def _fold_in(target: Path) -> None:
    """Have everything in the file itself; SQLite does that for none but the only user of it."""
    with closing(sqlite3.connect(target, timeout=_WAIT_S, isolation_level=None)) as connection:
        try:
            connection.execute("PRAGMA journal_mode = DELETE").fetchone()
        except sqlite3.OperationalError as error:
            raise Conflict(
                f"another process has the catalog {target} open; end it (`spdf down`), then "
                "restore again."
            ) from error
        except sqlite3.DatabaseError:
            return  # Damaged: it goes aside with its log, as it is.


def _fault(connection: sqlite3.Connection) -> str | None:
    """What is wrong with the structure of a database; None where it is sound."""
    try:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        return str(error)
    return None if found == "ok" else str(found)


def _reader(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=60)


def _only(connection: sqlite3.Connection, names: set[str], table: str, column: str) -> str | None:
    if table not in names:
        return None
    row = connection.execute(f"SELECT {column} FROM {table}").fetchone()
    return None if row is None else str(row[0])


def _damaged(path: Path, why: str) -> BadInput:
    return BadInput(f"the backup {path} is damaged ({why}); take another one.")
