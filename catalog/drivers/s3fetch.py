"""Downloads from S3: ranges in bounded parallel streams, each resumed where it broke off."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import urllib3
from minio import Minio
from urllib3.response import BaseHTTPResponse

BLOCK_BYTES = 1 << 20
TRIES = 5
_WAIT_S = 0.2


class Fetch:
    """One object on its way to a local file; constant memory, whatever its size."""

    def __init__(self, client: Minio, bucket: str, key: str) -> None:
        self._client, self._bucket, self._key = client, bucket, key
        found = client.stat_object(bucket, key)
        self.size_bytes = int(found.size or 0)
        self._same: dict[str, Any] = {"If-Match": f'"{found.etag}"'} if found.etag else {}

    def to(self, target: Path, *, streams: int, part_bytes: int) -> None:
        """Write the bytes to `target`, which must not exist; nothing is left of it on failure."""
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            try:
                self._write(descriptor, streams, part_bytes)
            finally:
                os.close(descriptor)
        except BaseException:
            target.unlink(missing_ok=True)
            raise

    def _write(self, descriptor: int, streams: int, part_bytes: int) -> None:
        starts = range(0, self.size_bytes, part_bytes)
        if len(starts) < 2:
            self._part(descriptor, 0, self.size_bytes)
            return
        with ThreadPoolExecutor(min(streams, len(starts)), thread_name_prefix="s3") as pool:
            ends = [(a, min(a + part_bytes, self.size_bytes)) for a in starts]
            made = [pool.submit(self._part, descriptor, start, end) for start, end in ends]
            try:
                for one in made:
                    one.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _part(self, descriptor: int, start: int, end: int) -> None:
        """Bytes from `start` up to `end`; what broke off goes on where it was."""

        def write(block: bytes) -> None:
            nonlocal start
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


def _write_all(descriptor: int, block: bytes, offset: int) -> int:
    view, done = memoryview(block), 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done:], offset + done)
    return done
