"""Looking at the bytes of files that are to be registered, before any transaction."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from catalog.checksums import DEFAULT, algorithm_of
from catalog.drivers import StorageDriver, driver_for
from catalog.errors import BadInput, ErrorCode, NotFound, SpdfError, StorageError
from catalog.files import NewFileRow
from catalog.refs import StorageInfo
from catalog.requests.kinds import FileEntry, FileInput, FileProcess, RequestDocument, Verify


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


class Looker:
    """Looks at files on the storages that there are, several at a time."""

    def __init__(self, places: Sequence[StorageInfo], pool: ThreadPoolExecutor) -> None:
        self._by_id = {info.id: info for info in places}
        self._by_name = {info.name: info for info in places}
        self._drivers: dict[int, StorageDriver] = {}
        self._pool = pool

    def look(self, document: RequestDocument) -> tuple[Look, ...]:
        """What a request's files are; () for one that names none.

        Raises `BadFiles` for those that aren't as it says, `Waits` where a storage is away.
        """
        if not isinstance(document, FileInput | FileProcess):
            return ()
        found = self._each(document.files, document.verify)
        faults = [item for item in found if isinstance(item, dict)]
        if faults:
            raise BadFiles(faults)
        return tuple(item for item in found if isinstance(item, Look))

    def _each(
        self, files: Sequence[FileEntry], verify: Verify
    ) -> Sequence["Look | dict[str, Any]"]:
        untouched = verify is Verify.NONE and all(file.checksum for file in files)
        if untouched or len(files) == 1:
            return [self._one(file, verify) for file in files]
        return list(self._pool.map(lambda file: self._one(file, verify), files, chunksize=64))

    def _one(self, file: FileEntry, verify: Verify) -> "Look | dict[str, Any]":
        try:
            storage = self._storage(file.storage_id)
            return Look(storage.id, storage.name, self._row(storage, file, verify))
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
            raise Waits(str(error)) from error
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
                raise Waits(str(error)) from error
        return self._drivers[storage.id]
