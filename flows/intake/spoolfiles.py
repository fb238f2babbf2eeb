"""The files of the spool: taken away only as what was read, and set aside beside what lies there.

A program may rename a new file over one that is being accepted, and give it the same name as one
that was rejected. Neither may be lost by that.
"""

import filecmp
import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from catalog.checksums import SHA256, file_checksum
from catalog.drivers.posix import publish

Stamp = tuple[int, int, int, int]
"""Device, inode, size and time of a file: another one under its name has another stamp."""

_TAKEN = ".spdf-taken-"
"""Begins names under which files are for a moment; those of a process that died are given back."""
_MOST_NAME = 250
"""Bytes of a name that leave room for `.why`."""
_MOST_STEM = 200


def stamp_of(path: Path) -> Stamp:
    """The stamp of a file; raises `FileNotFoundError`."""
    found = path.lstat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


@contextmanager
def taken(path: Path, stamp: Stamp) -> Iterator[Path | None]:
    """The file of that stamp under a name that no program writes; None where it isn't there.

    What is under that name at the end is given back, and so is another file that has come.
    """
    aside = path.with_name(f"{_TAKEN}{secrets.token_hex(8)}{path.suffix}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        yield None
        return
    try:
        yield aside if stamp_of(aside) == stamp else None
    finally:
        if os.path.lexists(aside):
            _give_back(aside, path)


def is_taken(name: str) -> bool:
    """Whether a name is one under which a file is for a moment."""
    return name.startswith(_TAKEN)


def give_back(aside: Path) -> None:
    """Have a file looked at that a process which died has taken."""
    _give_back(aside, aside.with_name(aside.name.removeprefix(_TAKEN)))


def _give_back(aside: Path, path: Path) -> None:
    """Under its name, or under another one where a newer file has that by now."""
    try:
        publish(aside, path)
    except FileExistsError:
        publish(aside, path.with_name(_named(path.name, secrets.token_hex(8))))
    aside.unlink(missing_ok=True)


def set_aside(file: Path, folder: Path, name: str, tell: Callable[[str], None]) -> None:
    """Move a file into a folder, beside what has its name there; the same bytes are kept once.

    `tell` hears before which name it gets. Raises `FileExistsError` where there is none for it.
    """
    for wanted in _names(file, name):
        place = folder / wanted
        is_there = os.path.lexists(place)
        if is_there and not _is_same(file, place):
            continue
        tell(wanted)
        if not is_there:
            publish(file, place)
        file.unlink(missing_ok=True)
        return
    raise FileExistsError(f"{folder} has other files under the names for {name}.")


def _names(file: Path, name: str) -> Iterator[str]:
    """What a file may be called: as it is, else with a digest of its bytes, where it has any."""
    yield name if len(os.fsencode(name)) <= _MOST_NAME else _short(name)
    token = secrets.token_hex(8)
    # To open a pipe would be to wait for its writer.
    if stat.S_ISREG(file.lstat().st_mode):
        with suppress(OSError):
            token = file_checksum(file, SHA256).partition(":")[2][:16]
    yield _named(name, token)


def _is_same(file: Path, place: Path) -> bool:
    """Whether both are files of the same bytes, as far as they can be read."""
    try:
        return place.is_file() and filecmp.cmp(file, place, shallow=False)
    except OSError:
        return False


def _short(name: str) -> str:
    """A name made of a longer one, with its suffix."""
    return _named(name, hashlib.sha256(os.fsencode(name)).hexdigest()[:16])


def _named(name: str, token: str) -> str:
    return f"{_cut(Path(name).stem)}-{token}{Path(name).suffix}"


def _cut(stem: str) -> str:
    """What a name begins with, in as many bytes: as characters where it is of such."""
    kept = os.fsencode(stem)[:_MOST_STEM]
    try:
        stem.encode()
    except UnicodeEncodeError:
        # U+FFFD in place of each byte would be three.
        return os.fsdecode(kept)
    return kept.decode(errors="ignore")
