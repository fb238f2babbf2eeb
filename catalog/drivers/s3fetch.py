"""Downloads from S3: ranges in bounded parallel streams, each resumed where it broke off."""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
from minio import Minio
from urllib3.response import BaseHTTPResponse

from catalog.checksums import ADLER32, Hasher, read_blocks
from catalog.drivers.posix import WRITE_BYTES

BLOCK_BYTES = WRITE_BYTES
"""A block that is received, hashed and written while it lies in a core's cache."""
TRIES = 5
_WAIT_S = 0.2


class Fetch:
    """One object on its way to a local file; constant memory, whatever its size."""

    def __init__(self, client: Minio, bucket: str, key: str) -> None:
        self._client, self._bucket, self._key = client, bucket, key
        found = client.stat_object(bucket, key)
        self.size_bytes, self.mtime = int(found.size or 0), found.last_modified
        self._same: dict[str, Any] = {"If-Match": f'"{found.etag}"'} if found.etag else {}

    def to(
        self, target: Path, *, streams: int, part_bytes: int, algorithm: str | None = None
    ) -> str | None:
        """Write the bytes to `target`, which must not exist; nothing is left of it on failure.

        Gives the checksum that `algorithm` asks for, computed while the bytes come.
        """
        descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            try:
                hasher = Hasher(algorithm) if algorithm else None
                self._write(descriptor, streams, part_bytes, hasher)
                return hasher.checksum if hasher else None
            finally:
                os.close(descriptor)
        except BaseException:
            target.unlink(missing_ok=True)
            raise

    def _write(self, descriptor: int, streams: int, part_bytes: int, hasher: Hasher | None) -> None:
        starts = range(0, self.size_bytes, part_bytes)
        if len(starts) < 2:
            self._part(descriptor, 0, self.size_bytes, hasher)
            return
        # Only an adler32 can be had of the parts, in whatever order they come.
        apart = hasher is not None and hasher.algorithm == ADLER32
        with ThreadPoolExecutor(min(streams, len(starts)), thread_name_prefix="s3") as pool:
            parts = [
                _Part(a, min(a + part_bytes, self.size_bytes), Hasher(ADLER32) if apart else None)
                for a in starts
            ]
            made = [
                pool.submit(self._part, descriptor, part.start, part.end, part.hasher)
                for part in parts
            ]
            try:
                _follow(descriptor, parts, made, hasher)
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _part(self, descriptor: int, start: int, end: int, hasher: Hasher | None) -> None:
        """Bytes from `start` up to `end`; what broke off goes on where it was."""

        def write(block: bytes) -> None:
            nonlocal start
            if hasher is not None:
                hasher.update(block)
            start += _write_all(descriptor, block, start)

        self.read(write, lambda: start, end)

    def read(self, take: Callable[[bytes], None], at: Callable[[], int], end: int) -> None:
        """Give the bytes from `at()` up to `end` to `take`, block by block."""
        tries = 0
        while at() < end:
            before = at()
            try:
                self._stream(take, before, end)
            except urllib3.exceptions.HTTPError:
                tries = 1 if at() > before else tries + 1
                if tries >= TRIES:
                    raise
                time.sleep(_WAIT_S * 2**tries)

    def _stream(self, take: Callable[[bytes], None], start: int, end: int) -> None:
        answer: BaseHTTPResponse = self._client.get_object(
            self._bucket, self._key, offset=start, length=end - start, request_headers=self._same
        )
        try:
            for block in answer.stream(BLOCK_BYTES):
                take(block)
        finally:
            answer.close()
            answer.release_conn()


@dataclass(frozen=True)
class _Part:
    """Bytes from `start` up to `end`, and what is to hash them as they come."""

    start: int
    end: int
    hasher: Hasher | None


def _follow(
    descriptor: int, parts: Sequence[_Part], made: Sequence[Future[None]], hasher: Hasher | None
) -> None:
    """Wait for the parts in their order and hash each while later ones come."""
    for part, one in zip(parts, made, strict=True):
        one.result()
        if hasher is None:
            continue
        if part.hasher is not None:
            hasher.append(part.hasher, part.end - part.start)
        else:
            _read_back(descriptor, part, hasher)


def _read_back(descriptor: int, part: _Part, hasher: Hasher) -> None:
    """Hash a part from the file, as far as the disk's cache goes without the disk."""
    done = part.start

    def read_into(buffer: memoryview) -> int:
        nonlocal done
        count = os.preadv(descriptor, [buffer[: part.end - done]], done)
        done += count
        return count

    for block in read_blocks(read_into):
        hasher.update(block)


def _write_all(descriptor: int, block: bytes, offset: int) -> int:
    view, done = memoryview(block), 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done : done + WRITE_BYTES], offset + done)
    return done
