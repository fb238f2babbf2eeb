"""Looks at storages and at the node itself: whether what was out is well again."""

import errno
import os
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from catalog.drivers import StorageDriver, undo
from catalog.drivers.posix import partial_name
from catalog.errors import ErrorCode, StorageError

_ROOM_SHARE, _ROOM_BYTES = 0.01, 64 << 20
"""Of a disk that is not full: so much of it is free, or so many bytes."""
_SAID_TIMES = 16
"""Where a program said that there was no room, others may have made some since."""
_LITTLE_BYTES = 64 << 10
_MOST_BYTES = 64 << 20
"""Written to see whether a storage has room, at most."""
_FILES = 64
_BLOCK_BYTES = 512
"""Of `st_blocks`, on any file system."""
_WORDS = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT))


def check_disk(folder: str | Path, *, said: str = "", sync: bool = False) -> None:
    """Raise `OSError` where the disk of a folder has no room, bytes or inodes, or takes no bytes.

    `said` is what a program printed that failed: where it speaks of a full disk, one that is
    nearly full is believed to have been.
    """
    found = os.statvfs(folder)
    spoken = _SAID_TIMES if any(word in said for word in _WORDS) else 1
    least = min(_ROOM_SHARE * found.f_blocks * found.f_frsize, _ROOM_BYTES) * spoken
    free = found.f_bavail * found.f_frsize
    if free < least:
        _full(folder, f"{free} bytes are free")
    if found.f_files and found.f_favail < _FILES:
        _full(folder, f"{found.f_favail} inodes are free")
    # A quota and a broken disk show only in writing.
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=".spdf-")
    try:
        left = b"\0" * _LITTLE_BYTES
        while left:
            left = left[os.write(descriptor, left) :]
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
        with suppress(OSError):
            Path(name).unlink()


def fills(folder: str) -> bool:
    """Whether more than half of a whole disk, of its bytes or inodes, is taken by a folder of it.

    What can't be looked at counts for nothing.
    """
    disk, device = os.statvfs(folder), os.lstat(folder).st_dev
    took_bytes = took_inodes = 0
    left = [folder]
    # By hand: `os.walk` goes no deeper than Python does, and a payload may.
    while left:
        with suppress(OSError), os.scandir(left.pop()) as entries:
            for entry in entries:
                with suppress(OSError):
                    found = entry.stat(follow_symlinks=False)
                    if found.st_dev == device:
                        took_bytes += found.st_blocks * _BLOCK_BYTES
                        took_inodes += 1
                        if entry.is_dir(follow_symlinks=False):
                            left.append(entry.path)
    has_bytes, has_inodes = disk.f_blocks * disk.f_frsize, disk.f_files
    return 2 * took_bytes > has_bytes or 0 < has_inodes < 2 * took_inodes


class LastFull:
    """When the work disk of a node was last seen without room: for all processes of its pilots.

    Who fails for want of room makes some by failing: the next to be looked after finds the disk
    well that failed with it.
    """

    def __init__(self, work_dir: Path) -> None:
        self._path = work_dir / "last-full"
        with suppress(OSError):
            # Now, as there may be no room for it later.
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            os.utime(self._path, (0, 0))

    def now(self) -> None:
        """It is full."""
        with suppress(OSError):
            os.utime(self._path)

    def within(self, past_s: float) -> bool:
        """Whether it was in the last so many seconds."""
        try:
            return time.time() - self._path.stat().st_mtime <= past_s
        except OSError:
            return False


def _full(folder: str | Path, how: str) -> None:
    raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}, {how}", str(folder))


def check_node(folder: Path) -> None:
    """Raise `OSError` where a node has no room on its work disk, no files, memory or processes."""
    check_disk(folder, sync=True)
    opened: list[int] = []
    try:
        for _ in range(_FILES):
            opened.append(os.open(folder, os.O_RDONLY | os.O_CLOEXEC))
        subprocess.run(["/bin/true"], check=False, stdin=subprocess.DEVNULL, close_fds=True)
    finally:
        for descriptor in opened:
            os.close(descriptor)


def check_storage(
    driver: StorageDriver, scratch: Path, *, needed_bytes: int, writing: bool
) -> None:
    """Raise `StorageError` where a storage can't be read from, or with `writing` written to.

    What is written, as much as there was no room for but not very much, is removed again.
    `scratch` is a folder of the node.
    """
    driver.check()
    name = partial_name()
    try:
        driver.stat(name)
    except StorageError as error:
        if error.code is not ErrorCode.INPUT_MISSING:
            raise
    if not writing:
        return
    root = driver.local_path("any")
    if root is not None and needed_bytes:
        _check_room(driver, root.parent, needed_bytes)
    with tempfile.NamedTemporaryFile(dir=scratch, prefix=".spdf-") as file:
        file.truncate(min(max(needed_bytes, 1), _MOST_BYTES))
        driver.put(Path(file.name), name)
    undo(driver, [name])


def _check_room(driver: StorageDriver, root: Path, needed_bytes: int) -> None:
    """What a file system says of itself costs nothing, however much is asked for."""
    with suppress(FileNotFoundError):
        found = os.statvfs(root)
        free = found.f_bavail * found.f_frsize
        if free < needed_bytes or (found.f_files and not found.f_favail):
            raise StorageError(
                ErrorCode.STORAGE_FULL,
                f"the storage at {root} has {free} bytes and {found.f_favail} inodes free, and "
                f"{needed_bytes} are needed; free some space there.",
            )
