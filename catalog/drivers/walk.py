"""What lies in a directory tree, file by file; what can't be read of it holds up nothing else."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from catalog.drivers.posix import steadily
from catalog.drivers.protocol import ObjectInfo, Passed
from catalog.names import MARKER, MAX_PATH
from catalog.stamps import time_of

Fault = Callable[[str, OSError], None]
"""Hears of a folder, or a file, that can't be looked at, and why."""

FOLDER = "folder"
_KINDS = {
    stat.S_IFLNK: "symbolic link",
    stat.S_IFSOCK: "socket",
    stat.S_IFIFO: "pipe",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}

if TYPE_CHECKING:
    _Entries = os._ScandirIterator[str]
else:
    _Entries = Iterator

_READABLE = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH
_TOO_DEEP = OSError(errno.ENAMETOOLONG, "it lies too deep for any path to be used")


def walk(
    folder: Path, base: str, start: str, unread: Fault, passed: Passed | None = None
) -> Iterator[ObjectInfo]:
    """All regular files below `folder` whose name in it begins with `start`.

    Their paths begin with `base`. Symbolic links and other things that are no files are passed
    over, and told to `passed`, as is each folder before what is in it; markers of storages are
    passed over, and nobody hears of them. Memory and open folders are bounded by the longest path
    that can be used.
    """
    levels: list[tuple[_Entries, str]] = []
    try:
        _enter(levels, str(folder), base, unread)
        while levels:
            entries, inside = levels[-1]
            entry = _next(entries, inside, unread)
            if entry is None:
                levels.pop()[0].close()
                continue
            if len(levels) == 1 and not entry.name.startswith(start):
                continue
            path = inside + entry.name
            if not _is_folder(entry):
                if (info := _file(entry, path, unread, passed)) is not None:
                    yield info
            elif len(os.fsencode(path)) > MAX_PATH:
                unread(path, _TOO_DEEP)
            else:
                if passed is not None:
                    passed(path, FOLDER)
                _enter(levels, entry.path, f"{path}/", unread)
    finally:
        for entries, _ in levels:
            entries.close()


def linked_part(root: Path, path: str) -> Path | None:
    """The first part of a path below `root` that is a symbolic link: `walk` wouldn't get there."""
    place = root
    for name in path.split("/"):
        place /= name
        if place.is_symlink():
            return place
    return None


def _enter(levels: list[tuple[_Entries, str]], place: str, inside: str, unread: Fault) -> None:
    try:
        levels.append((steadily(lambda: os.scandir(place)), inside))
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        unread(inside.rstrip("/"), error)


def _next(entries: _Entries, inside: str, unread: Fault) -> os.DirEntry[str] | None:
    try:
        return next(entries, None)
    except OSError as error:
        unread(inside.rstrip("/"), error)
        return None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _file(
    entry: os.DirEntry[str], path: str, unread: Fault, passed: Passed | None
) -> ObjectInfo | None:
    if entry.name == MARKER:
        return None
    try:
        if entry.is_file(follow_symlinks=False):
            found = steadily(lambda: entry.stat(follow_symlinks=False))
            if _is_closed(entry.path, found.st_mode):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return info_of(path, found)
        if passed is not None:
            mode = stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)
            passed(path, _KINDS.get(mode, "thing of another kind"))
    except FileNotFoundError:
        pass
    except OSError as error:
        unread(path, error)
    return None


def _is_closed(place: str, mode: int) -> bool:
    """Whether a file can't be opened by us; most say so by their mode alone."""
    if mode & _READABLE == _READABLE:
        return False
    return not os.access(place, os.R_OK, effective_ids=True) and os.path.lexists(place)


def info_of(path: str, found: os.stat_result) -> ObjectInfo:
    """A file as its `stat` tells it."""
    return ObjectInfo(path, found.st_size, time_of(found.st_mtime), found.st_ino)
