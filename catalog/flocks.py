"""Locks by which a process of this machine is known to live: an flock on a file of its own.

Whoever takes a role keeps it locked for as long as it lives, and the role's row names it. Another
process that sees that very file, on a file system of this machine, and finds it free, knows that
the role is free, whatever any clock says. A process number would not do: read in another namespace
it is another process's, or nobody's.
"""

import fcntl
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from threading import Lock

from catalog.cattime import machine

_LOCAL = frozenset(
    {"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "overlay", "tmpfs", "xfs", "zfs"}
)
"""Where an flock is seen by all processes of this machine, and gone with its process."""
_OLD_S = 7 * 86400.0
_SEPARATOR = "|"


@dataclass(frozen=True)
class Mark:
    """A file that its process keeps locked, and the boot in which that one runs."""

    boot: str
    device: int
    inode: int
    path: str

    def __str__(self) -> str:
        """As a row has it."""
        return _SEPARATOR.join((self.boot, str(self.device), str(self.inode), self.path))


_turn = Lock()
_mine: dict[tuple[Path, int], Mark | None] = {}


def mine(folder: Path) -> str | None:
    """The mark of this process, made and locked once; None where `folder` is no place for one."""
    with _turn:
        key = folder, os.getpid()
        if key not in _mine:
            with suppress(OSError):
                _forget_old(folder)
            try:
                _mine[key] = _make(folder)
            except OSError:
                _mine[key] = None
        made = _mine[key]
    return None if made is None else str(made)


def _make(folder: Path) -> Mark | None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{os.getpid()}-{token_hex(4)}"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    # The descriptor is kept open, and so the lock, until the process ends.
    found = os.fstat(descriptor)
    if not _is_local(found.st_dev):
        os.close(descriptor)
        path.unlink()
        return None
    return Mark(_boot(), found.st_dev, found.st_ino, str(path))


def _forget_old(folder: Path) -> None:
    """Remove what processes that ended long ago have left."""
    for path in folder.iterdir():
        if time.time() - path.stat().st_mtime > _OLD_S and _is_free(path, None):
            path.unlink()


def is_dead(mark: str | None) -> bool:
    """Whether the process of a mark is known to have ended; False also where nobody can tell."""
    parts = (mark or "").split(_SEPARATOR, 3)
    if len(parts) != 4 or parts[0] != _boot():
        return False
    try:
        return _is_free(Path(parts[3]), (int(parts[1]), int(parts[2])))
    except (OSError, ValueError):
        return False


def _is_free(path: Path, whose: tuple[int, int] | None) -> bool:
    """Whether nobody has a lock on a file, which must be that very one on a local file system."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        found = os.fstat(descriptor)
        if whose is not None and (found.st_dev, found.st_ino) != whose:
            return False
        if not _is_local(found.st_dev):
            return False
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _boot() -> str:
    return machine().partition("/")[0]


def _is_local(device: int) -> bool:
    """Whether a device is a file system of this machine, as far as that is known."""
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split()[2] == number:
            return rest.split()[0] in _LOCAL
    return False
