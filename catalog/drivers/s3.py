"""The S3 driver: a storage is a bucket of an S3 server, or what is below a prefix of it."""

import io
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO, cast

from catalog import tries
from catalog.checksums import Hasher, stream_checksum
from catalog.drivers.identity import Identity, require
from catalog.drivers.marker import MOST_BYTES
from catalog.drivers.protocol import NOTHING_SEEN, ObjectInfo, Passed, Stored, Unread
from catalog.drivers.s3client import Login, connect, explained, is_full
from catalog.drivers.s3fetch import Fetch, Resumed, whole
from catalog.drivers.s3pool import ConditionalPool
from catalog.drivers.s3removal import remove_many
from catalog.drivers.storing import check_source
from catalog.errors import BadInput, ErrorCode, OtherBytes, StorageError
from catalog.names import MARKER, check_path
from catalog.places import place_of
from catalog.settings import Settings
from catalog.stamps import EARLIEST, LATEST, Reading, time_of

log = logging.getLogger(__name__)

MOST_LINK_S = 7 * 86400
"""The longest life of a presigned link that S3's signature allows."""
_SURE = "sha256"
"""By which bytes are compared that may be ours."""
_LOOKED_S = 60.0
"""How long a bucket that was itself is taken for that by who writes to it."""


class S3Driver:
    """A storage on an S3 server. Its objects are made whole or not at all, and never replaced.

    With an `identity` nothing is written, listed or told to be absent where the bucket isn't
    the one that has it.
    """

    def __init__(
        self,
        name: str,
        url: str,
        login: Login,
        settings: Settings,
        identity: Identity | None = None,
    ) -> None:
        self.name, self._settings, self._identity = name, settings, identity
        self._place = place_of(url)
        self._client = connect(self._place, login, settings)
        self._itself_until = 0.0
        self.shared = False

    def check(self, *, marked: bool = False) -> None:
        """Raise `StorageError` where the bucket is away: see `StorageDriver.check`."""
        where = f"{self._place.host}/{self._place.bucket}/{self._place.prefix}"
        require(self.name, where, self._identity, self.read_marker(), marked=marked)
        self._itself_until = time.monotonic() + _LOOKED_S

    def _glance(self) -> None:
        if self._identity is not None and time.monotonic() > self._itself_until:
            self.check()

    def read_marker(self, folder: str = "") -> bytes | None:
        """The marker of the storage, or of another whose root is that prefix of it."""
        found = self._marker(folder)
        return None if found is None else found[0]

    def _marker(self, folder: str = "") -> tuple[bytes, str] | None:
        """The marker's text, and its ETag."""
        key = f"{check_path('folder', folder)}/{MARKER}" if folder else MARKER
        try:
            with self._explained(key):
                return whole(self._client, self._place.bucket, self._place.prefix + key, MOST_BYTES)
        except StorageError as error:
            if error.code is not ErrorCode.INPUT_MISSING:
                raise
            return None

    def write_marker(self, text: bytes, *, before: bytes | None = None) -> None:
        """Write the marker: see `StorageDriver.write_marker`."""
        found = None if before is None else self._marker()
        if before is not None and (found is None or found[0] != before):
            raise self._taken(MARKER)
        etag = None if found is None else found[1]
        # Ceph's gateway compares with an ETag without its quotes.
        for over in dict.fromkeys((etag, etag and etag.strip('"'))):
            if self._put_marker(text, over):
                return
        raise self._taken(MARKER)

    def _put_marker(self, text: bytes, over: str | None) -> bool:
        """Whether it is written; False where another one is there."""
        self._pool.begin()
        try:
            with self._explained(MARKER), self._pool.only_over(over):
                self._client.put_object(
                    self._place.bucket, self._place.prefix + MARKER, io.BytesIO(text), len(text)
                )
        except StorageError as error:
            if self._pool.is_unsure and self.read_marker() == text:
                return True
            if error.code is not ErrorCode.OUTPUT_EXISTS:
                raise
            return False
        return True

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
        keep: bool = False,
        sync: bool = True,
    ) -> Stored:
        """Store a local file under `path`: see `StorageDriver.put`.

        Above `s3_part_bytes` in parts, by `s3_streams` parallel streams; a failed upload leaves
        no part behind. Each request carries a digest of its bytes, which the server checks.
        """
        check_source(source)
        self._glance()
        hasher = Hasher(checksum) if checksum else None
        with source.open("rb", buffering=0) as file:
            size_bytes = os.fstat(file.fileno()).st_size
            try:
                self._put(file, path, size_bytes, hasher)
            except StorageError:
                # It may have been stored by a request whose answer was lost.
                if not (self._pool.is_unsure and self._is_there(path, file, size_bytes)):
                    raise
        if move and not keep:
            source.unlink(missing_ok=True)
        return Stored(size_bytes, hasher.checksum if hasher else None)

    def _put(self, file: FileIO, path: str, size_bytes: int, hasher: Hasher | None) -> None:
        self._pool.begin()
        with self._explained(path):
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

    def _is_there(self, path: str, file: FileIO, size_bytes: int) -> bool:
        """Whether the bytes of a file lie under a path: they are read, here and there.

        Raises `StorageError` `OUTPUT_EXISTS` where others do.
        """
        try:
            there = self.stat(path).size_bytes
            found = self.checksum(path, _SURE) if there == size_bytes else None
        except StorageError as error:
            log.warning("not known whether it was stored", extra={"path": path, "why": str(error)})
            return False
        file.seek(0)
        if found != stream_checksum(file.readinto, _SURE):
            raise self._taken(path)
        return True

    def put_again(self, held: str, path: str) -> bool:
        """False: an object has one key."""
        return False

    def _check_free(self, path: str) -> None:
        """Some servers complete a multipart upload over an object, whatever its condition says."""
        try:
            self.stat(path)
        except StorageError as error:
            if error.code is ErrorCode.INPUT_MISSING:
                return
            raise
        raise self._taken(path)

    def _taken(self, path: str) -> StorageError:
        return StorageError(
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
        return self._get(path, target, checksum)[0]

    def fetch(self, path: str, target: Path, algorithm: str) -> Reading:
        """As `get` of a copy with a checksum: see `StorageDriver.fetch`."""
        checksum, fetched = self._get(path, target, algorithm)
        assert checksum is not None
        return Reading(checksum, _info(path, fetched.size_bytes, fetched.mtime).stamp)

    def _get(self, path: str, target: Path, algorithm: str | None) -> tuple[str | None, Fetch]:
        try:
            with self._itself(path):
                fetch = self._fetch(path)
                checksum = fetch.to(
                    target,
                    streams=self._settings.s3_streams,
                    part_bytes=self._settings.s3_part_bytes,
                    algorithm=algorithm,
                )
                return checksum, fetch
        except OSError as error:
            if not is_full(error):
                raise
            raise StorageError(
                ErrorCode.NODE_DISK_FULL,
                f"no space left for {target} while {path!r} was fetched; free some there.",
            ) from error

    def open(self, path: str) -> BinaryIO:
        """The bytes under `path`, as they come."""
        with self._itself(path):
            begun = Resumed(self._client, self._place.bucket, self._key(path))
        begun.explained = lambda: self._explained(path)
        return cast(BinaryIO, io.BufferedReader(begun))

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

    def delete_many(
        self, paths: Iterable[str], seen: Mapping[str, ObjectInfo] = NOTHING_SEEN
    ) -> dict[str, StorageError]:
        """Remove what is under `paths`, a thousand in a request. See `StorageDriver`.

        What was `seen` is looked at once more, each right before its own request.
        """
        wanted = list(paths)
        try:
            if self._identity is not None:
                self.check()
        except StorageError as error:
            return dict.fromkeys(wanted, error)
        faults: dict[str, StorageError] = {}
        for path in (path for path in wanted if path in seen):
            try:
                self._delete_seen(seen[path])
            except StorageError as error:
                faults[path] = error
        unseen = {self._key(path): path for path in wanted if path not in seen}
        return faults | remove_many(self.name, self._place, self._client, unseen)

    def _delete_seen(self, seen: ObjectInfo) -> None:
        """Remove what is as it was seen; each try looks anew: after a wait it may be another's."""
        busy: StorageError | None = None

        def remove() -> None:
            nonlocal busy
            if not self._is_as(seen):
                return
            try:
                with self._explained(seen.path), self._pool.once():
                    self._client.remove_object(self._place.bucket, self._key(seen.path))
            except StorageError as error:
                busy = error
                raise

        tries.again(remove, lambda error: error is busy and tries.may_be_back(error), tries.REQUEST)

    def _is_as(self, seen: ObjectInfo) -> bool:
        """Whether an object is as it was seen; False where it is gone.

        Raises `OtherBytes` where another one lies there.
        """
        try:
            there = self.stat(seen.path)
        except StorageError as error:
            if error.code is ErrorCode.INPUT_MISSING:
                return False
            raise
        if there != seen:
            raise OtherBytes(self.name, seen.path, "other bytes lie under its path now")
        return True

    def list(
        self, prefix: str = "", *, unread: Unread | None = None, passed: Passed | None = None
    ) -> Iterator[ObjectInfo]:
        """All objects whose path begins with `prefix`, page by page; there are no folders."""
        if self._identity is not None:
            self.check()
        with self._explained(prefix):
            for found in self._client.list_objects(
                self._place.bucket, prefix=self._place.prefix + prefix, recursive=True
            ):
                path = str(found.object_name).removeprefix(self._place.prefix)
                if path.rpartition("/")[2] == MARKER:
                    continue
                yield _info(path, int(found.size or 0), found.last_modified)

    def stat(self, path: str) -> ObjectInfo:
        """Size and time of what is under `path`."""
        with self._itself(path):
            found = self._client.stat_object(self._place.bucket, self._key(path))
        return _info(path, int(found.size or 0), found.last_modified)

    def checksum(self, path: str, algorithm: str) -> str:
        """`algorithm:hex` of the bytes under `path`, read anew."""
        return self.read(path, algorithm).checksum

    def read(self, path: str, algorithm: str) -> Reading:
        """Read the bytes under `path`, all of one object: what replaced it meanwhile is none."""
        hasher, done = Hasher(algorithm), 0

        def take(block: bytes) -> None:
            nonlocal done
            hasher.update(block)
            done += len(block)

        with self._itself(path):
            fetch = self._fetch(path)
            fetch.read(take, lambda: done, fetch.size_bytes)
        return Reading(hasher.checksum, _info(path, fetch.size_bytes, fetch.mtime).stamp)

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

    @contextmanager
    def _itself(self, path: str) -> Iterator[None]:
        """As `_explained`; an object isn't missing from what isn't the storage."""
        try:
            with self._explained(path):
                yield
        except StorageError as error:
            if error.code is ErrorCode.INPUT_MISSING and self._identity is not None:
                self.check()
            raise

    @property
    def _pool(self) -> ConditionalPool:
        pool = self._client._http
        assert isinstance(pool, ConditionalPool)
        return pool

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


def _info(path: str, size_bytes: int, moment: datetime | None) -> ObjectInfo:
    return ObjectInfo(path, size_bytes, _utc(moment))


def _utc(moment: datetime | None) -> datetime:
    if moment is None:
        return time_of(0.0)
    try:
        return min(max(moment.astimezone(UTC), EARLIEST), LATEST)
    except (OverflowError, ValueError):
        return LATEST if moment.year > EARLIEST.year else EARLIEST
