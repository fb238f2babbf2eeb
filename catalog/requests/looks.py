"""Looking at the bytes of files that are to be registered, before any transaction."""

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from catalog.checksums import DEFAULT, algorithm_of
from catalog.drivers import StorageDriver, driver_for
from catalog.errors import BadInput, ErrorCode, NotFound, SpdfError, StorageError
from catalog.files import NewFileRow
from catalog.refs import StorageInfo
from catalog.requests.kinds import FileEntry, FileInput, FileProcess, RequestDocument, Verify

AWAY_S = 5.0
"""How long a storage that was away isn't tried again."""


class Waits(SpdfError):
    """A storage can't be reached now: the request is done once it can."""


class BadFiles(BadInput):
    """Files that aren't what a request says; `files` names each, with what is wrong."""

    def __init__(self, faults: Sequence[dict[str, Any]]) -> None:
        self.files = list(faults)
        more = f" (and {len(faults) - 1} more of the request)" if len(faults) > 1 else ""
        super().__init__(f"{faults[0]['error']}{more}")


@dataclass(frozen=True)
class Look:
    """A file as it was found: on which storage, and how it is to be registered."""

    storage_id: int
    storage: str
    row: NewFileRow

    @property
    def named(self) -> dict[str, Any]:
        """How an answer names it."""
        return {"storageId": self.storage, "path": self.row.path}


class Away:
    """Storages that could not be reached, for a while: who needs one of them doesn't try again."""

    def __init__(self) -> None:
        self._until: dict[int, tuple[float, str]] = {}

    def check(self, storage_id: int) -> None:
        """Raise `Waits` where the storage was away just now."""
        until, why = self._until.get(storage_id, (0.0, ""))
        if time.monotonic() < until:
            raise Waits(why)

    def note(self, storage_id: int, why: str) -> Waits:
        """The storage is away; gives the error that says so."""
        self._until[storage_id] = time.monotonic() + AWAY_S, why
        return Waits(why)


class Looker:
    """Looks at files on the storages that there are, several at a time, of whatever request."""

    def __init__(self, places: Sequence[StorageInfo], pool: ThreadPoolExecutor, away: Away) -> None:
        self._by_id = {info.id: info for info in places}
        self._by_name = {info.name: info for info in places}
        self._drivers: dict[int, StorageDriver] = {}
        self._pool, self._away = pool, away

    def look(self, documents: Sequence[RequestDocument]) -> list["tuple[Look, ...] | SpdfError"]:
        """What each request's files are: () for one that names none.

        In place of those that can't be done stands why: `BadFiles` where files aren't as it says,
        `Waits` where a storage is away.
        """
        wanted = [
            (number, file, document.verify)
            for number, document in enumerate(documents)
            if isinstance(document, FileInput | FileProcess)
            for file in document.files
        ]
        found: list[list[Look | Waits | dict[str, Any]]] = [[] for _ in documents]
        for (number, _, _), seen in zip(wanted, self._each(wanted), strict=True):
            found[number].append(seen)
        return [_together(seen) for seen in found]

    def _each(
        self, wanted: Sequence[tuple[int, FileEntry, Verify]]
    ) -> "Iterable[Look | Waits | dict[str, Any]]":
        if all(verify is Verify.NONE and file.checksum for _, file, verify in wanted):
            return [self._one(file, verify) for _, file, verify in wanted]
        return self._pool.map(lambda item: self._one(item[1], item[2]), wanted)

    def _one(self, file: FileEntry, verify: Verify) -> "Look | Waits | dict[str, Any]":
        try:
            storage = self._storage(file.storage_id)
            return Look(storage.id, storage.name, self._row(storage, file, verify))
        except Waits as error:
            return error
        except (BadInput, NotFound) as error:
            return {"storageId": file.storage_id, "path": file.path, "error": str(error)}

    def _storage(self, reference: int | str) -> StorageInfo:
        places: dict[Any, StorageInfo] = (
            self._by_id if isinstance(reference, int) else self._by_name
        )
        if reference not in places:
            raise NotFound("storage", reference)
        return places[reference]

    def _row(self, storage: StorageInfo, file: FileEntry, verify: Verify) -> NewFileRow:
        checksum = file.checksum
        if verify is not Verify.NONE or checksum is None:
            self._away.check(storage.id)
        try:
            if verify is not Verify.NONE or checksum is None:
                self._check_size(storage, file)
            if checksum is None:
                checksum = self._driver(storage).checksum(file.path, DEFAULT)
            elif verify is Verify.CHECKSUM:
                self._check_bytes(storage, file, checksum)
        except StorageError as error:
            if error.code is ErrorCode.INPUT_MISSING:
                raise BadInput(str(error)) from error
            raise self._away.note(storage.id, str(error)) from error
        return NewFileRow(storage.name, file.path, file.path, file.size, checksum)

    def _check_size(self, storage: StorageInfo, file: FileEntry) -> None:
        there = self._driver(storage).stat(file.path).size_bytes
        if there != file.size:
            raise BadInput(
                f"{file.path} on storage {storage.name!r} has {there} bytes, not the "
                f"{file.size} given; check the file, or the request."
            )

    def _check_bytes(self, storage: StorageInfo, file: FileEntry, checksum: str) -> None:
        there = self._driver(storage).checksum(file.path, algorithm_of(checksum))
        if there != checksum:
            raise BadInput(
                f"{file.path} on storage {storage.name!r} has the checksum {there}, not the "
                f"{checksum} given; check the file, or the request."
            )

    def _driver(self, storage: StorageInfo) -> StorageDriver:
        if storage.id not in self._drivers:
            try:
                self._drivers[storage.id] = driver_for(storage)
            except StorageError as error:
                raise self._away.note(storage.id, str(error)) from error
        return self._drivers[storage.id]


def _together(seen: Sequence["Look | Waits | dict[str, Any]"]) -> "tuple[Look, ...] | SpdfError":
    """One request's files: all of them, or why it can't be done (now)."""
    faults = [item for item in seen if isinstance(item, dict)]
    if faults:
        return BadFiles(faults)
    waits = next((item for item in seen if isinstance(item, Waits)), None)
    return waits or tuple(item for item in seen if isinstance(item, Look))
