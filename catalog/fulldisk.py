"""A disk without room left is called that, and by what lies on it.

SQLite, Python and PostgreSQL each say it in their own way, of which some name another cause: where
a log of SQLite's can't be made it "can't open the database".
"""

import errno
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError

from catalog.names import spelt_out
from catalog.places import sqlite_path
from catalog.settings import Settings, get_settings

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_PERHAPS = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY})
"""What SQLite says also where a disk is full."""
_DISK_FULL = "53100"
"""SQLSTATE of PostgreSQL."""
_LEAST_BYTES = 64 * 1024
"""A disk with less is full: SQLite's smallest step is 32 KiB."""


def told(error: BaseException) -> str | None:
    """What to say of an error that a full disk made, and how to mend it; None for any other."""
    if isinstance(error, OSError):
        return _of_file(error) if error.errno in FULL else None
    origin = getattr(error, "orig", None)
    if getattr(origin, "sqlstate", None) == _DISK_FULL:
        return "no space left on the disk of the database's server: free some, and try again."
    code = getattr(origin, "sqlite_errorcode", None)
    if code is None:
        return None
    database = _database(get_settings())
    if code & 0xFF == sqlite3.SQLITE_FULL:
        return _sentence(database or get_settings().home)
    if code & 0xFF in _PERHAPS and database is not None and is_full(database):
        return _sentence(database)
    return None


def problems(settings: Settings) -> Iterator[str]:
    """Each disk of SPDF_HOME that is full: of the home itself, its catalog, its logs, its spool."""
    seen = set()
    for place in (settings.home, _database(settings), settings.home / "log", settings.spool):
        if place is not None and is_full(place) and (device := _device(place)) not in seen:
            seen.add(device)
            yield _sentence(place)


def is_full(place: Path) -> bool:
    """Whether the disk that a path lies on, or would, has no room or no inodes left for us."""
    try:
        found = os.statvfs(_standing(place))
    except OSError:
        return False
    has_inodes = found.f_files == 0 or found.f_favail > 0
    return not has_inodes or found.f_bavail * found.f_frsize < _LEAST_BYTES


def _of_file(error: OSError) -> str:
    if error.filename is not None:
        return _sentence(Path(os.fsdecode(error.filename)))
    # What fails while it is written, and not when it is opened, has no name.
    full = next(problems(get_settings()), None)
    return full or "no space left where the output goes: free some, and try again."


def _sentence(place: Path) -> str:
    settings = get_settings()
    mend = "free some, and try again; what is there stays as it is."
    home, what = settings.home, ""
    if place.absolute().is_relative_to(home) and _device(place) == _device(home):
        place, what = home, " (SPDF_HOME)"
    elif place == settings.spool:
        what = " (SPDF_SPOOL)"
    elif place == _database(settings):
        what = " (SPDF_CATALOG_URL)"
    return f"no space left on {spelt_out(str(place))}{what}: {mend}"


def _device(place: Path) -> int:
    return _standing(place).stat().st_dev


def _database(settings: Settings) -> Path | None:
    """The folder of an SQLite catalog."""
    try:
        parts = sa.make_url(settings.catalog_url)
    except ArgumentError:
        return None
    if parts.get_backend_name() != "sqlite" or not parts.database:
        return None
    return sqlite_path(parts.database).absolute().parent


def _standing(place: Path) -> Path:
    """The path, or the nearest folder above it that there is."""
    return next((one for one in (place, *place.parents) if one.exists()), Path("/"))
