"""The S3 driver: a storage is a bucket of an S3 server, or what is below a prefix of it."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, cast

from minio.deleteobjects import DeleteObject

from catalog.checksums import Hasher
from catalog.drivers.local import check_source
from catalog.drivers.protocol import ObjectInfo, Stored
from catalog.drivers.s3client import Login, connect, explained, is_full, refused
from catalog.drivers.s3fetch import Fetch
from catalog.errors import BadInput, ErrorCode, StorageError
from catalog.names import check_path
from catalog.places import place_of
from catalog.settings import Settings

MOST_LINK_S = 7 * 86400
"""The longest life of a presigned link that S3's signature allows."""


class S3Driver:
    """A storage on an S3 server. Its objects are made whole or not at all, and never replaced."""

    def __init__(self, name: str, url: str, login: Login, settings: Settings) -> None:
        self.name, self._settings = name, settings
        self._place = place_of(url)
        self._client = connect(self._place, login, settings)

    def sync(self, paths: Sequence[str]) -> dict[str, StorageError]:
        """Nothing: what the server acknowledged is stored."""
        return {}

    def put(
        self,
        source: Path,
        path: str,
        *,
        checksum: str | None = None,
        move: bool = False,
        sync: bool = True,
    ) -> Stored:
        """Store a local file under `path`: see `StorageDriver.put`.

        Above `s3_part_bytes` in parts, by `s3_streams` parallel streams; a failed upload leaves
        no part behind. Each request carries a digest of its bytes, which the server checks.
        """
        check_source(source)
        hasher = Hasher(checksum) if checksum else None
        with self._explained(path), source.open("rb", buffering=0) as file:
            size_bytes = os.fstat(file.fileno()).st_size
            if size_bytes > self._settings.s3_part_bytes:
                self._check_free(path)
            self._client.put_object(
                self._place.bucket,
                self._key(path),
                cast(BinaryIO, _Hashed(file, hasher)),
                size_bytes,
                part_size=self._part_bytes(size_bytes),
                num_parallel_uploads=self._settings.s3_streams,
            )
        if move:
            source.unlink(missing_ok=True)
        return Stored(size_bytes, hasher.checksum if hasher else None)

    def _check_free(self, path: str) -> None:
        """Some servers complete a multipart upload over an object, whatever its condition says."""
        try:
            self.stat(path)
        except StorageError as error:
            if error.code is ErrorCode.INPUT_MISSING:
                return
            raise
        raise StorageError(
            ErrorCode.OUTPUT_EXISTS,
            f"storage {self.name!r} has something under {path!r} already; "
            "nothing is ever overwritten there.",
        )

    def _part_bytes(self, size_bytes: int) -> int:
        """Parts as the settings say, larger where there would be more than S3's 10,000."""
        least = -(-size_bytes // 10_000)
        return max(self._settings.s3_part_bytes, -(-least // 2**20) * 2**20)

    def get(
        self, path: str, target: Path, *, checksum: str | None = None, link: bool = False
    ) -> str | None:
        """Make `target` a copy of what is under `path`; there is nothing to link to.

        See `StorageDriver.get`. Raises `StorageError` `NODE_DISK_FULL` where the target's disk
        has no space.
        """
        try:
            with self._explained(path):
                return self._fetch(path).to(
                    target,
                    streams=self._settings.s3_streams,
                    part_bytes=self._settings.s3_part_bytes,
                    algorithm=checksum,
                )
        except OSError as error:
            if not is_full(error):
                raise
            raise StorageError(
                ErrorCode.NODE_DISK_FULL,
                f"no space left for {target} while {path!r} was fetched; free some there.",
            ) from error

    def open(self, path: str) -> BinaryIO:
        """The bytes under `path`, as they come."""
        with self._explained(path):
            return cast(BinaryIO, self._client.get_object(self._place.bucket, self._key(path)))

    def delete(self, path: str) -> bool:
        """Remove what is under `path`; False where there was nothing."""
        try:
            self.stat(path)
        except StorageError as error:
            if error.code is ErrorCode.INPUT_MISSING:
                return False
            raise
        with self._explained(path):
            self._client.remove_object(self._place.bucket, self._key(path))
        return True

    def delete_many(self, paths: Iterable[str]) -> dict[str, StorageError]:
        """Remove what is under `paths`, a thousand in a request. See `StorageDriver`."""
        keys = {self._key(path): path for path in paths}
        try:
            with self._explained(next(iter(keys.values()), "")):
                wanted = [DeleteObject(key) for key in keys]
                stayed = list(self._client.remove_objects(self._place.bucket, wanted))
        except StorageError as error:
            return dict.fromkeys(keys.values(), error)
        faults: dict[str, StorageError] = {}
        for fault in stayed:
            why = refused(self.name, self._place, str(fault.code), str(fault.message))
            # A refusal of the whole request names no object.
            for path in [keys[fault.name]] if fault.name in keys else keys.values():
                faults[path] = why
        return faults

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects whose path begins with `prefix`, page by page."""
        with self._explained(prefix):
            for found in self._client.list_objects(
                self._place.bucket, prefix=self._place.prefix + prefix, recursive=True
            ):
                path = str(found.object_name).removeprefix(self._place.prefix)
                yield ObjectInfo(path, int(found.size or 0), _utc(found.last_modified))

    def stat(self, path: str) -> ObjectInfo:
        """Size and time of what is under `path`."""
        with self._explained(path):
            found = self._client.stat_object(self._place.bucket, self._key(path))
        return ObjectInfo(path, int(found.size or 0), _utc(found.last_modified))

    def checksum(self, path: str, algorithm: str) -> str:
        """`algorithm:hex` of the bytes under `path`, read anew."""
        hasher, done = Hasher(algorithm), 0

        def take(block: bytes) -> None:
            nonlocal done
            hasher.update(block)
            done += len(block)

        with self._explained(path):
            fetch = self._fetch(path)
            fetch.read(take, lambda: done, fetch.size_bytes)
        return hasher.checksum

    def link(self, path: str, expires_s: float) -> str:
        """An address at which anybody can read `path` for that long, without a login."""
        if not 1 <= expires_s <= MOST_LINK_S:
            raise BadInput("a link lives from 1 second to 7 days; choose a time between.")
        self.stat(path)
        with self._explained(path):
            made: str = self._client.presigned_get_object(
                self._place.bucket, self._key(path), expires=timedelta(seconds=expires_s)
            )
        return made

    def local_path(self, path: str) -> Path | None:
        """None: nothing lies in this machine's file tree."""
        return None

    def _fetch(self, path: str) -> Fetch:
        return Fetch(self._client, self._place.bucket, self._key(path))

    def _key(self, path: str) -> str:
        return self._place.prefix + check_path("path", path)

    def _explained(self, path: str) -> AbstractContextManager[None]:
        return explained(self.name, self._place, path, client=self._client)


class _Hashed:
    """A file that is hashed as it is read."""

    def __init__(self, file: Any, hasher: Hasher | None) -> None:
        self._file, self._hasher = file, hasher

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        block: bytes = self._file.read(size)
        if self._hasher is not None:
            self._hasher.update(block)
        return block


def _utc(moment: datetime | None) -> datetime:
    return datetime.fromtimestamp(0, UTC) if moment is None else moment.astimezone(UTC)
