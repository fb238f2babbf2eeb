"""What a POSIX file system needs to store a file whole or not at all, and never over another."""

import ctypes
import errno
import os
import secrets
from pathlib import Path

PARTIAL_PREFIX = ".spdf-"
PARTIAL_SUFFIX = ".part"

_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})
_RENAME_NOREPLACE = 1
_AT_FDCWD = -100


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
        if error.errno not in _NO_LINKS:
            raise
        rename_exclusively(source, final)


def rename_exclusively(source: Path, final: Path) -> None:
    """Linux's `renameat2(RENAME_NOREPLACE)`, for file systems without hard links."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
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
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
