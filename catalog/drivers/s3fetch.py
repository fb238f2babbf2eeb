"""Downloads from S3: ranges in bounded parallel streams, each resumed where it broke off."""

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
from minio import Minio
from urllib3.response import BaseHTTPResponse

from catalog import tries
from catalog.checksums import ADLER32, Hasher, read_blocks
from catalog.drivers.posix import WRITE_BYTES
from catalog.drivers.s3pool import GaveUp, Met

BLOCK_BYTES = WRITE_BYTES
"""A block that is received, hashed and written while it lies in a core's cache."""


class Patience:
    """What reads a stream that breaks off, and goes on where it was; a byte that came is a sign."""

    def __init__(self) -> None:
        self._met = Met()

    def goes_on(self) -> None:
        """Something came: what was met before is over."""
        if self._met.told:
            self._met = Met()

    def wait(self, error: urllib3.exceptions.HTTPError) -> None:
        """It broke off: wait before the next try; raises `GaveUp` where that was the last one."""
        if isinstance(error, GaveUp):
            raise error
        self._met.note(None, error)
        tried = len(self._met.told)
        if tried >= tries.REQUEST.tries or self._met.waited_s >= tries.REQUEST.limit_s:
            raise GaveUp(self._met) from error
        tries.pause(tries.REQUEST.wait_s(tried))


def whole(client: Minio, bucket: str, key: str, most_bytes: int) -> tuple[bytes, str]:
    """A small object, as far as `most_bytes`, and its ETag."""
    patience = Patience()
    while True:
        try:
            answer = client.get_object(bucket, key)
            try:
                return answer.read(most_bytes), answer.headers.get("ETag", "")
            finally:
                answer.close()
                answer.release_conn()
        except urllib3.exceptions.HTTPError as error:
            patience.wait(error)


class Resumed(io.RawIOBase):
    """An object's bytes as a stream, which goes on where it broke off; all are of one object."""

    explained: Callable[[], AbstractContextManager[None]] = nullcontext
    """What gives its errors their codes."""

    def __init__(self, client: Minio, bucket: str, key: str) -> None:
        self._client, self._bucket, self._key = client, bucket, key
        self._done, self._patience = 0, Patience()
        self._answer: BaseHTTPResponse | None = client.get_object(bucket, key)
        self._etag = self._answer.headers.get("ETag", "")
        self._end = int(self._answer.headers.get("Content-Length") or 0)

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """The next bytes; 0 at the end."""
        view = memoryview(buffer).cast("B")
        with self.explained():
            while len(view) and self._done < self._end:
                try:
                    block = self._begun().read(len(view))
                    if not block:
                        raise urllib3.exceptions.ProtocolError("it ended too early")
                except urllib3.exceptions.HTTPError as error:
                    self._leave()
                    self._patience.wait(error)
                    continue
                self._patience.goes_on()
                self._done += len(block)
                view[: len(block)] = block
                return len(block)
        return 0

    def close(self) -> None:
        """Give the connection back."""
        self._leave()
        super().close()

    def _begun(self) -> BaseHTTPResponse:
        if self._answer is None:
            same: dict[str, Any] = {"If-Match": self._etag} if self._etag else {}
            self._answer = self._client.get_object(
                self._bucket, self._key, offset=self._done, request_headers=same
            )
        return self._answer

    def _leave(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer.release_conn()
            self._answer = None


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
        patience = Patience()
        while at() < end:
            before = at()
            try:
                self._stream(take, before, end)
            except urllib3.exceptions.HTTPError as error:
                if at() > before:
                    patience.goes_on()
                patience.wait(error)

    def _stream(self, take: Callable[[bytes], None], start: int, end: int) -> None:
        answer: BaseHTTPResponse = self._client.get_object(
            self._bucket, self._key, offset=start, length=end - start, request_headers=self._same
        )
        try:
            for block in answer.stream(BLOCK_BYTES):
                take(block)
                start += len(block)
            if start < end:
                raise urllib3.exceptions.ProtocolError("it ended too early")
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
