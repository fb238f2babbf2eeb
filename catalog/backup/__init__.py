"""Backups of the whole catalog: made while it is in use, restored while it is not."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from catalog import overview, schema
from catalog.backup import postgres, sqlite
from catalog.db import Catalog
from catalog.drivers.posix import fsync_path, partial_name, publish
from catalog.errors import BadInput, Conflict
from catalog.schema import SchemaState

_MODE = 0o600
_SQLITE, _POSTGRESQL = "SQLite", "PostgreSQL"
_KINDS = {sqlite.MAGIC: _SQLITE, postgres.MAGIC: _POSTGRESQL}


@dataclass(frozen=True)
class Backup:
    """A backup that was made."""

    path: Path
    schema: str
    size_bytes: int


@dataclass(frozen=True)
class Restored:
    """A catalog that was restored; `aside` is where the one before is kept, if there was one."""

    schema: SchemaState
    aside: str | None


def back_up(catalog: Catalog, path: Path) -> Backup:
    """Write the catalog as it stands at one moment to a new file, for its owner's eyes only.

    Pilots go on meanwhile. Raises `Conflict` for a catalog without tables and for a file that is
    there already, `Unavailable` where the database or PostgreSQL's programs can't be used.
    """
    with catalog.read() as session:
        found = schema.read_state(session.connection()).found
    if found is None:
        raise Conflict(f"{_name(catalog)} is empty; there is nothing to back up.")
    with _new_file(path) as part:
        if catalog.is_sqlite:
            sqlite.dump(catalog, part)
        else:
            postgres.dump(catalog, part)
    return Backup(path, found, path.stat().st_size)


@contextmanager
def _new_file(path: Path) -> Iterator[Path]:
    """A file that becomes `path` at the end of the block, whole and on disk, or isn't there."""
    if path.exists():
        raise _taken(path)
    part = path.with_name(partial_name())
    try:
        part.touch(_MODE, exist_ok=False)
        yield part
        fsync_path(part)
        publish(part, path)
        fsync_path(path.parent)
    except FileExistsError as error:
        raise _taken(path) from error
    finally:
        part.unlink(missing_ok=True)


def _taken(path: Path) -> Conflict:
    return Conflict(f"{path} is there already; give the backup another name.")


def restore(catalog: Catalog, path: Path, *, replace: bool = False) -> Restored:
    """Make the catalog what it was when the backup was made, in whatever schema it had then.

    What the catalog held is never dropped, but put aside. Raises `BadInput` for what is no backup
    of such a catalog, `SchemaMismatch` for one that only newer programs can work with, `Conflict`
    while anybody works on the catalog and, unless told to `replace`, where it holds anything.
    """
    state = _state_of_backup(catalog, path)
    _refuse_use(catalog, replace)
    catalog.close()
    put = sqlite.restore if catalog.is_sqlite else postgres.restore
    aside = put(catalog, path)
    return Restored(state, aside)


def _state_of_backup(catalog: Catalog, path: Path) -> SchemaState:
    with path.open("rb") as stream:
        head = stream.read(16)
    kind = next((name for magic, name in _KINDS.items() if head.startswith(magic)), None)
    if kind is None:
        raise BadInput(f"{path} is no backup that `spdf catalog backup` made; give such a file.")
    ours = _SQLITE if catalog.is_sqlite else _POSTGRESQL
    if kind != ours:
        raise BadInput(
            f"{path} is a backup of a catalog on {kind}, and {_name(catalog)} is on {ours}; "
            f"name a catalog on {kind} in SPDF_CATALOG_URL."
        )
    state = sqlite.state_of(path) if catalog.is_sqlite else postgres.state_of(path)
    if state.found is None:
        raise BadInput(f"{path} holds no catalog; give a file that `spdf catalog backup` made.")
    schema.refuse_newer(f"the backup {path}", state)
    return state


def _refuse_use(catalog: Catalog, replace: bool) -> None:
    """Raise `Conflict` while the catalog is worked on, or where it holds something to be kept."""
    if catalog.is_missing:
        return
    try:
        with catalog.read() as session:
            state = schema.read_state(session.connection())
            if state.found is None:
                return
            workers = overview.at_work(session, is_current=state.found >= schema.HEAD)
            held = overview.is_in_use(session)
    except sa.exc.OperationalError:
        raise
    except sa.exc.DatabaseError as error:
        # A damaged file is what restoring is for.
        workers, held = [], f"it can't be read: {error.orig}"
    if workers:
        raise Conflict(
            f"{_name(catalog)} is being worked on by {', '.join(workers)}; stop them first "
            "(`spdf down`; of a site, its workers and services) and wait for a minute."
        )
    if held and not replace:
        raise Conflict(
            f"{_name(catalog)} is not empty ({held}); `--replace` puts aside what it holds."
        )


def _name(catalog: Catalog) -> str:
    return f"the catalog {catalog.where}"
