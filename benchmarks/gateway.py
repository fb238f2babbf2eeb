"""A large object on an S3 server of this program's own: our driver beside the plain client."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from minio import Minio

from benchmarks.steps import Step, remove
from catalog.drivers.s3 import S3Driver
from catalog.drivers.s3client import login_of
from catalog.places import place_of
from catalog.settings import Settings
from flows.services.rgw import ObjectStore
from flows.site.buckets import ensure_bucket

KEY = "bench"
_BLOCK_BYTES = 1 << 18
"""What the plain client writes at once. By 1 MiB, its own choice, it is up to four times slower on
some days (see `catalog.drivers.posix.WRITE_BYTES`), and we would look better than we are."""


@contextmanager
def gateway(folder: Path) -> Iterator[Settings]:
    """Settings of an S3 server that runs meanwhile; raises `Unavailable` where there is none."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    store = ObjectStore(folder, port, secrets.token_hex(10), secrets.token_urlsafe(30))
    store.prepare()
    running: list[subprocess.Popen[bytes]] = []
    try:
        for name, line in store.commands().items():
            with (folder / f"{name}.out").open("wb") as log:
                running.append(
                    subprocess.Popen(
                        line, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                        start_new_session=True,
                    )
                )  # fmt: skip
        store.wait_ready()
        yield Settings(
            _env_file=None,
            home=folder,
            s3_url=store.url,
            s3_access_key=store.access_key,
            s3_secret_key=store.secret_key,
        )
    finally:
        for process in reversed(running):
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def steps(
    settings: Settings, source: Path, target: Path, algorithms: tuple[str, ...]
) -> list[Step]:
    """Up and down; the plain client with the same number of streams and the same parts."""
    url = ensure_bucket(settings, "bench")
    driver = S3Driver("bench", url, login_of(settings, "bench"), settings)
    plain = _Plain(settings, url)
    # A server's first object takes longer.
    plain.put(source)
    made = []
    for algorithm in algorithms:
        made += [
            Step(
                f"S3 upload, {algorithm}",
                lambda a=algorithm: driver.put(source, KEY, checksum=a).checksum,
                lambda: plain.put(source),
                lambda: driver.delete(KEY),
                reads=1,
                writes=0,
            ),
            Step(
                f"S3 download, {algorithm}",
                lambda a=algorithm: driver.get(KEY, target, checksum=a),
                lambda: plain.get(target),
                lambda: remove(target),
                # Only an adler32 can be put together of parts; others follow in the disk's cache.
                reads=0 if algorithm == "adler32" else 1,
                writes=1,
            ),
        ]
    return made


class _Plain:
    """The minio client as it comes."""

    def __init__(self, settings: Settings, url: str) -> None:
        place = place_of(url)
        self._bucket = place.bucket
        self._streams, self._part_bytes = settings.s3_streams, settings.s3_part_bytes
        self._client = Minio(
            place.host,
            access_key=settings.s3_access_key.get_secret_value(),
            secret_key=settings.s3_secret_key.get_secret_value(),
            secure=False,
            region=settings.s3_region,
        )

    def put(self, source: Path) -> None:
        """Its own way up."""
        self._client.fput_object(
            self._bucket, KEY, str(source),
            part_size=self._part_bytes, num_parallel_uploads=self._streams,
        )  # fmt: skip

    def get(self, target: Path) -> None:
        """Ranges in as many streams: its own way down, `fget_object`, has one."""
        size_bytes = int(self._client.stat_object(self._bucket, KEY).size or 0)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL)

        def part(start: int) -> None:
            length = min(self._part_bytes, size_bytes - start)
            answer = self._client.get_object(self._bucket, KEY, offset=start, length=length)
            try:
                for block in answer.stream(_BLOCK_BYTES):
                    start += os.pwrite(descriptor, block, start)
            finally:
                answer.close()
                answer.release_conn()

        try:
            with ThreadPoolExecutor(self._streams) as pool:
                list(pool.map(part, range(0, size_bytes, self._part_bytes)))
        finally:
            os.close(descriptor)
