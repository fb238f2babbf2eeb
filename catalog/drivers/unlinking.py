"""Names taken away in a directory, by its descriptor: whatever is mounted there meanwhile."""

import os
import stat

from catalog.drivers.posix import steadily
from catalog.drivers.protocol import ObjectInfo
from catalog.drivers.walk import info_of

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def open_folder(folder: str, root: int) -> int:
    """A descriptor of a folder below another one."""
    return steadily(lambda: os.open(folder or ".", _FOLDER, dir_fd=root))


def unlink_seen(path: str, name: str, folder: int, seen: ObjectInfo | None) -> str | None:
    """Remove a file's name, unless another thing has it by now; gives what that is.

    Each try looks anew: after a wait it may be another's. Raises `FileNotFoundError` where nothing
    has the name.
    """

    def remove() -> str | None:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        what = _what_else(path, found, seen)
        if what is None:
            os.unlink(name, dir_fd=folder)
        return what

    return steadily(remove)


def unlink(path: str, folder: int) -> bool:
    """Remove a file's name; False where nothing has it, and nothing had."""
    tried = 0

    def remove() -> bool:
        nonlocal tried
        tried += 1
        try:
            os.unlink(path, dir_fd=folder)
        except (FileNotFoundError, NotADirectoryError):
            # Perhaps it went by a try of which nothing more was heard.
            return tried > 1
        return True

    return steadily(remove)


def _what_else(path: str, found: os.stat_result, seen: ObjectInfo | None) -> str | None:
    """What lies under a path that isn't the file which did; None where it may be that file."""
    if stat.S_ISDIR(found.st_mode):
        return "a folder has its path now"
    if stat.S_ISLNK(found.st_mode):
        return "a symbolic link has its path now"
    if seen is not None and info_of(path, found) != seen:
        return "other bytes lie under its path now"
    return None


def sync_folder(folder: str, root: int) -> None:
    """Have on the disk which names a folder has."""
    descriptor = open_folder(folder, root)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def prune(folder: str, root: int) -> None:
    """Remove a folder, and those above it, where they are empty now."""
    while folder:
        try:
            os.rmdir(folder, dir_fd=root)
        except OSError:
            break
        folder = folder.rpartition("/")[0]
