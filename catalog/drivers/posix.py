"""What a POSIX file system needs to store a file whole or not at all, and never over another."""

import ctypes
import errno
import os
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from catalog import tries

R = TypeVar("R")

EXHAUSTED = frozenset(
    {
        errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOBUFS, errno.ENOLCK,
        errno.EUSERS,
    }
)  # fmt: skip
"""The machine has none left of what processes need: no fault of a file, nor of its storage."""

FALTERING = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EREMOTEIO})
"""What a server of files, or a disk, may say at one moment and not at the next."""

PARTIAL_PREFIX = ".spdf-"
PARTIAL_SUFFIX = ".part"

LARGE_BYTES = 8 << 20
"""From this size on it pays to work on a file's bytes while the disk does."""

WRITE_BYTES = 1 << 18
"""Written by one call at most.

For larger writes Linux looks for large pieces of memory, at up to four times the cost.
"""

NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})
"""A file system can't give a file another name, or not this file, or not there."""

_RENAME_NOREPLACE = 1
_SYNC_FILE_RANGE_WRITE = 2
_AT_FDCWD = -100


def steadily(call: Callable[[], R]) -> R:
    """What `call` gives, called again where the file system falters.

    Nothing of it may be an `fsync` of what was written before: Linux tells of lost bytes once.
    """
    return tries.again(call, is_faltering, tries.FILE)


def is_faltering(error: Exception) -> bool:
    """Whether another try may find it otherwise."""
    return isinstance(error, OSError) and error.errno in FALTERING


def partial_name() -> str:
    """A new name for a file that is not whole yet; a crash may leave it behind."""
    return f"{PARTIAL_PREFIX}{secrets.token_hex(8)}{PARTIAL_SUFFIX}"


def publish(source: Path, final: Path) -> None:
    """Give a whole file its final name in the same file system; `source` may be left as a link.

    Raises `FileExistsError` where the name is taken: unlike `rename`, which would replace.
    """
    try:
        os.link(source, final, follow_symlinks=False)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        rename_exclusively(source, final)


def rename_exclusively(source: Path, final: Path) -> None:
    """Linux's `renameat2(RENAME_NOREPLACE)`, for file systems without hard links."""
    rename = _libc("renameat2")
    if rename is None:
        raise OSError(errno.ENOSYS, "neither hard links nor exclusive renames work", str(final))
    result = rename(
        _AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(final), _RENAME_NOREPLACE
    )
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(final))


def fsync_path(path: Path) -> None:
    """Have a file's bytes, or a directory's entries, on the disk."""
    descriptor = steadily(lambda: os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def synced(descriptor: int, *, early: bool) -> Iterator[None]:
    """Have a file's bytes on the disk at the end.

    With `early` that begins at once, beside what is done meanwhile, which must not write to it.
    """
    if not early:
        yield
        os.fsync(descriptor)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="fsync") as pool:
        done = pool.submit(os.fsync, descriptor)
        yield
        done.result()


def start_writeback(descriptor: int, offset: int, count: int) -> None:
    """Have the disk begin with a range of what was written; a hint, which promises nothing.

    A `count` of 0 is all from `offset` on.
    """
    start = _libc("sync_file_range")
    if start is not None:
        start(descriptor, ctypes.c_int64(offset), ctypes.c_int64(count), _SYNC_FILE_RANGE_WRITE)


@cache
def _libc(name: str) -> Any:
    """A function that Python doesn't offer; None where the C library has none of the name."""
    return getattr(ctypes.CDLL(None, use_errno=True), name, None)
