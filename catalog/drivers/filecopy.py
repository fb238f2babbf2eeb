"""One file made to hold the bytes of another: shared where the file system can, else read once."""

import fcntl
import os
from collections.abc import Callable
from io import FileIO
from pathlib import Path

from catalog.checksums import Hasher, read_blocks, stream_checksum
from catalog.drivers.posix import LARGE_BYTES, WRITE_BYTES, start_writeback

_FICLONE = 0x40049409
"""Linux's ioctl that makes one file share the blocks of another: see ioctl_ficlone(2)."""


def copy_file(
    reader: FileIO, writer: FileIO, size_bytes: int, algorithm: str | None, *, flush: bool = False
) -> tuple[int, str | None]:
    """Give `writer`, a new file open for both, the bytes of `reader`; gives size and checksum.

    `size_bytes` is what to expect. With `flush` the bytes go to the disk as they come, so that
    an `fsync` afterwards finds little to do.
    """
    if size_bytes >= LARGE_BYTES:
        before = _stamp(reader)
        if _clone(reader, writer):
            checksum = stream_checksum(reader.readinto, algorithm) if algorithm else None
            if algorithm and _stamp(reader) != before:
                checksum = stream_checksum(writer.readinto, algorithm)
            return os.fstat(writer.fileno()).st_size, checksum
    return _copy(reader, writer, algorithm, flush)


def clone_file(source: str, target: str) -> bool:
    """Make `target`, a new file, of the same blocks as `source`.

    False where that can't be done; an empty file may be left to be overwritten.
    """
    try:
        with (
            Path(source).open("rb", buffering=0) as reader,
            Path(target).open("xb", buffering=0) as writer,
        ):
            return _clone(reader, writer)
    except OSError:
        return False


def _clone(reader: FileIO, writer: FileIO) -> bool:
    """Share the blocks; False where the file systems don't do that."""
    try:
        fcntl.ioctl(writer.fileno(), _FICLONE, reader.fileno())
    except OSError:
        return False
    return True


def _copy(
    reader: FileIO, writer: FileIO, algorithm: str | None, flush: bool
) -> tuple[int, str | None]:
    hasher = Hasher(algorithm) if algorithm else None
    done = flushed = 0
    for block in read_blocks(reader.readinto):
        if hasher:
            hasher.update(block)
        done += write_all(writer.write, block)
        if flush and done - flushed >= LARGE_BYTES:
            start_writeback(writer.fileno(), flushed, done - flushed)
            flushed = done
    return done, hasher.checksum if hasher else None


def write_all(write: Callable[[memoryview], int | None], block: memoryview) -> int:
    """Write a whole block; gives its length."""
    done = 0
    while done < len(block):
        done += write(block[done : done + WRITE_BYTES]) or 0
    return done


def _stamp(file: FileIO) -> tuple[int, int]:
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns
