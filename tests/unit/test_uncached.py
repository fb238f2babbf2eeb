"""Reading a file once: the page cache is left to others."""

import ctypes
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog import uncached
from catalog.checksums import ADLER32, file_checksum, stream_checksum
from catalog.drivers.local import LocalDriver

SIZE = 16 * 2**20
MEMORY = Path("/dev/shm")


def cached_pages(path: Path) -> int:
    """Pages of a file that are in the page cache, as the kernel tells."""
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        count = -(-len(mapped) // mmap.PAGESIZE)
        told = (ctypes.c_ubyte * count)()
        start = (ctypes.c_char * len(mapped)).from_buffer(mapped)
        failed = libc.mincore(start, ctypes.c_size_t(len(mapped)), told)
        del start
        assert not failed, os.strerror(ctypes.get_errno())
        return sum(page & 1 for page in told)


@pytest.fixture
def cold(tmp_path: Path) -> Path:
    """A file on disk that isn't cached, where a read can leave it so."""
    path = tmp_path / "cold"
    path.write_bytes(os.urandom(SIZE))
    with path.open("rb") as file:
        os.fsync(file.fileno())
        try:
            os.preadv(file.fileno(), [bytearray(1)], 0, 0x80)
        except OSError as error:
            pytest.skip(f"this kernel or file system reads through its cache: {error}")
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if cached_pages(path):
            pytest.skip("this file system keeps what it is asked to forget")
    return path


def test_a_checksum_leaves_no_pages_behind(cold: Path) -> None:
    checksum = LocalDriver("disk", cold.parent).checksum(cold.name, ADLER32)
    assert cached_pages(cold) < SIZE // mmap.PAGESIZE // 4
    assert checksum == file_checksum(cold, ADLER32)


def test_what_was_cached_before_stays(cold: Path) -> None:
    assert len(cold.read_bytes()) == SIZE
    before = cached_pages(cold)
    LocalDriver("disk", cold.parent).checksum(cold.name, ADLER32)
    assert cached_pages(cold) == before > 0


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A file of a file system that has no reads past its cache."""
    path = MEMORY / f"spdf-test-{os.getpid()}"
    path.write_bytes(os.urandom(SIZE // 2) + b"end")
    yield path
    path.unlink()


@pytest.mark.skipif(not MEMORY.is_dir(), reason="no file system in memory here")
def test_where_the_file_system_can_not_do_it_the_bytes_come_all_the_same(in_memory: Path) -> None:
    with in_memory.open("rb", buffering=0) as file:
        checksum = stream_checksum(uncached.reader(file.fileno()), ADLER32)
    assert checksum == file_checksum(in_memory, ADLER32)
