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


def look(name: str, folder: int) -> os.stat_result:
    """What has a name there; a link itself."""
    return steadily(lambda: os.stat(name, dir_fd=folder, follow_symlinks=False))


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


def what_else(path: str, found: os.stat_result, seen: ObjectInfo | None) -> str | None:
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
