"""Files brought into a directory and out of it: renamed or copied, each whole or not at all."""

import errno
import os
import stat
from contextlib import nullcontext
from io import FileIO
from pathlib import Path

from catalog.checksums import stream_checksum
from catalog.drivers.filecopy import copy_file
from catalog.drivers.posix import LARGE_BYTES, fsync_path, partial_name, publish, steadily, synced
from catalog.drivers.protocol import Stored
from catalog.errors import BadInput, ErrorCode, StorageError
from catalog.stamps import Reading, of_stat, reading

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_MODE = 0o444


def check_source(source: Path) -> int:
    """A file's size; raises `StorageError` or `BadInput` for what is none that can be stored."""
    try:
        found = steadily(source.stat)
    except FileNotFoundError as error:
        raise StorageError(
            ErrorCode.INPUT_MISSING, f"{source} is not there, so it can't be stored."
        ) from error
    if not stat.S_ISREG(found.st_mode):
        raise BadInput(f"{source} is no regular file, so it can't be stored.")
    return found.st_size


def can_take(source: Path, folder: Path) -> bool:
    """Whether a link to `source` in `folder` would be the file's only other name, and ours."""
    found = source.lstat()
    return (
        stat.S_ISREG(found.st_mode)
        and found.st_nlink == 1
        and found.st_dev == folder.stat().st_dev
        and os.geteuid() in (0, found.st_uid)
    )


def take(
    source: Path, final: Path, size_bytes: int, algorithm: str | None, sync: bool, keep: bool
) -> Stored:
    """Give a file the name `final` in the same file system, and take its old one away later.

    Without `keep` it may be gone at once, where a file has one name only.
    """
    source.chmod(_MODE)
    with source.open("rb", buffering=0) as file:
        on_disk = synced(file.fileno(), early=size_bytes >= LARGE_BYTES) if sync else nullcontext()
        with on_disk:
            found = _read(file, algorithm) if algorithm else None
    if keep:
        os.link(source, final, follow_symlinks=False)
    else:
        publish(source, final)
    if sync:
        fsync_path(final.parent)
    return Stored(size_bytes, found.checksum, found.stamp) if found else Stored(size_bytes, None)


def _read(file: FileIO, algorithm: str) -> Reading:
    return reading(file.fileno(), lambda: stream_checksum(file.readinto, algorithm))


def copy_in(
    source: Path, final: Path, size_bytes: int, algorithm: str | None, sync: bool
) -> Stored:
    """Copy a file to a partial one beside `final`, which is then published."""
    if os.path.lexists(final):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final))
    partial = final.with_name(partial_name())
    try:
        stored = steadily(lambda: _to_partial(source, partial, size_bytes, algorithm, sync))
        steadily(lambda: _publish(partial, final))
    finally:
        steadily(lambda: partial.unlink(missing_ok=True))
    if sync:
        fsync_path(final.parent)
    return stored


def _to_partial(
    source: Path, partial: Path, size_bytes: int, algorithm: str | None, sync: bool
) -> Stored:
    """Make a new file of a file's bytes; what an earlier try has made of it goes."""
    partial.unlink(missing_ok=True)
    with source.open("rb", buffering=0) as reader, partial.open("x+b", buffering=0) as writer:
        copied, checksum = copy_file(reader, writer, size_bytes, algorithm, flush=sync)
        os.fchmod(writer.fileno(), _MODE)
        if sync:
            os.fsync(writer.fileno())
    # Once it is closed: a file of NFS has its server's time only then.
    return Stored(copied, checksum, of_stat(partial.stat()) if algorithm else None)


def _publish(partial: Path, final: Path) -> None:
    """As `publish`; a server that did it and could not say so says that the name is taken."""
    try:
        publish(partial, final)
    except FileExistsError:
        if not partial.samefile(final):
            raise


def copy_out(
    path: str, reader: FileIO, size_bytes: int, target: Path, algorithm: str | None
) -> str | None:
    """Copy an open file to `target`, which must not exist; nothing is left of it on failure."""
    writer = target.open("x+b", buffering=0)
    try:
        with writer:
            return copy_file(reader, writer, size_bytes, algorithm)[1]
    except BaseException as error:
        target.unlink()
        if isinstance(error, OSError) and error.errno in FULL:
            raise StorageError(
                ErrorCode.NODE_DISK_FULL,
                f"no space left for {target} while {path!r} was copied; free some there.",
            ) from error
        raise
