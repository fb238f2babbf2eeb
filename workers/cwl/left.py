"""Files that a payload may have put where we look: only such as end are read, and only so much."""

# Paths are plain strings here: this runs for every job.
# ruff: noqa: PTH116

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

_NULL_DEVICE = os.makedev(1, 3)


def ends(found: os.stat_result) -> bool:
    """Whether what was looked at can be read to an end at once: a regular file, or `/dev/null`."""
    if stat.S_ISCHR(found.st_mode):
        return found.st_rdev == _NULL_DEVICE
    return stat.S_ISREG(found.st_mode)


def is_straight(path: str) -> bool:
    """Whether an absolute path leads through no symbolic link, and isn't one itself."""
    return os.path.realpath(path) == path


def read_left(path: str | Path, most_bytes: int, *, follow: bool = False) -> bytes:
    """The bytes of a file, which is no link unless `follow` lets it be one.

    Raises `OSError`, also for a pipe, a device, and a file of more than `most_bytes`.
    """
    with _open(path, follow) as stream:
        data = stream.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise OSError(errno.EFBIG, f"it holds more than {most_bytes} bytes", str(path))
    return data


def end_of(path: str | Path, most_bytes: int) -> bytes:
    """The last bytes of a file, which is no link. Raises `OSError` as `read_left`."""
    with _open(path, follow=False) as stream:
        stream.seek(max(0, os.fstat(stream.fileno()).st_size - most_bytes))
        return stream.read(most_bytes)


def _open(path: str | Path, follow: bool) -> BinaryIO:
    # Looked at before: to open a device can do something to it.
    _require(os.stat(path, follow_symlinks=follow), path)
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    stream = os.fdopen(os.open(path, flags), "rb")
    try:
        _require(os.fstat(stream.fileno()), path)
    except OSError:
        stream.close()
        raise
    return stream


def _require(found: os.stat_result, path: str | Path) -> None:
    if not ends(found):
        kind = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "no regular file"
        raise OSError(errno.EINVAL, f"it is {kind}", str(path))
