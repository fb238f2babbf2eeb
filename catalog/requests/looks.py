"""Looking at the bytes of files that are to be registered, before any transaction."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalog.checksums import DEFAULT, algorithm_of
from catalog.drivers import ObjectInfo, StorageDriver, driver_for
from catalog.drivers.walk import linked_part
from catalog.errors import BadInput, ErrorCode, NotFound, SpdfError, StorageError
from catalog.files import NewFileRow
from catalog.outage import is_outage, printable, sentence
from catalog.refs import StorageInfo, StorageKind
from catalog.requests.kinds import FileEntry, Reread, Verify
from catalog.stamps import Reading, Stamp, same_time

AWAY_S = 5.0
"""How long a storage that was away isn't tried again."""
_NOTHING = ".spdf-none/"
"""A prefix that nothing has: to list it asks a storage for nothing but an answer."""
MOST_FAULTS = 20
"""Files that one answer names as offending."""


class Waits(SpdfError):
    """A storage can't be reached now: the request is done once it can."""


class BadFiles(BadInput):
    """Files that aren't what a request says; `files` names each, with what is wrong."""

    def __init__(self, faults: Sequence[dict[str, Any]]) -> None:
        self.files = list(faults[:MOST_FAULTS])
        more = f" (and {len(faults) - 1} more of the request)" if len(faults) > 1 else ""
        super().__init__(f"{faults[0]['error']}{more}")


@dataclass(frozen=True)
class Look:
    """A file as it was found: on which storage, and how it is to be registered."""

    storage_id: int
    storage: str
    row: NewFileRow
    member: str
    """The file's name in its dataset."""

    @property
    def named(self) -> dict[str, Any]:
        """How an answer names it."""
        return {"storageId": self.storage, "path": self.row.path}


Seen = Look | Waits | dict[str, Any]
"""What was found of a file: it is right, its storage is away, or what is wrong with it."""


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
    """Looks at files on the storages that there are."""

    def __init__(self, places: Sequence[StorageInfo], away: Away) -> None:
        self._by_id = {info.id: info for info in places}
        self._by_name = {info.name: info for info in places}
        self._drivers: dict[int, StorageDriver] = {}
        self._away = away

    def look(self, file: FileEntry, verify: Verify) -> Seen:
        """What a file is; in place of one that isn't as it should be stands why.

        Whatever goes wrong is the file's, but for an outage of the catalog or this machine.
        """
        try:
            storage = self._storage(file.storage_id)
            row = self._row(storage, file, verify)
            return Look(storage.id, storage.name, row, file.name or row.name)
        except Waits as error:
            return error
        except Exception as error:
            if is_outage(error):
                raise
            return {
                "storageId": file.storage_id,
                "path": printable(file.path),
                "error": sentence(error),
            }

    def storage(self, file: FileEntry) -> StorageInfo | None:
        """The storage that a file is said to lie on; None where there is none of that name."""
        try:
            return self._storage(file.storage_id)
        except NotFound:
            return None

    def scope(self, file: FileEntry) -> str:
        """The scope of a file's name: its storage's; "" where there is no such storage."""
        try:
            return self._storage(file.storage_id).name
        except NotFound:
            return ""

    def _storage(self, reference: int | str) -> StorageInfo:
        places: dict[Any, StorageInfo] = (
            self._by_id if isinstance(reference, int) else self._by_name
        )
        if reference not in places:
            raise NotFound("storage", reference)
        return places[reference]

    def _row(self, storage: StorageInfo, file: FileEntry, verify: Verify) -> NewFileRow:
        if not is_looked_at(file, verify):
            assert file.checksum is not None
            return NewFileRow(storage.name, file.path, file.path, file.size, file.checksum)
        self._away.check(storage.id)
        found = self._checked(storage, file, verify)
        return NewFileRow(
            storage.name, file.path, file.path, file.size, found.checksum, found.stamp, found.read
        )

    def _checked(self, storage: StorageInfo, file: FileEntry, verify: Verify) -> "_Found":
        """A file that is as it is said to be. Raises `Waits`, `BadInput`."""
        try:
            return self._compare(storage, file, verify)
        except StorageError as error:
            if error.code is ErrorCode.INPUT_MISSING:
                raise BadInput(str(error)) from error
            self._check_there(storage)
        try:
            return self._compare(storage, file, verify)
        except StorageError as error:
            # The storage is there, and so it is this one file: nobody waits for it.
            raise BadInput(str(error)) from error

    def _check_there(self, storage: StorageInfo) -> None:
        """Raise `Waits` where the storage can't even be listed: then no file is to blame."""
        try:
            next(iter(self._driver(storage).list(_NOTHING)), None)
        except StorageError as error:
            raise self._away.note(storage.id, str(error)) from error

    def _compare(self, storage: StorageInfo, file: FileEntry, verify: Verify) -> "_Found":
        # First whether it is a file: to open a pipe would be to wait for its writer.
        before = self._driver(storage).stat(file.path)
        _check_no_link(storage, file.path)
        if verify is not Verify.NONE and before.size_bytes != file.size:
            raise BadInput(
                f"{file.path} on storage {storage.name!r} has {before.size_bytes} bytes, not the "
                f"{file.size} given; check the file, or the request."
            )
        reads = file.checksum is None or verify is Verify.CHECKSUM or _is_changed(file, before)
        if not reads:
            return _Found(str(file.checksum), before.stamp)
        wanted = DEFAULT if file.checksum is None else algorithm_of(file.checksum)
        kept = file.algorithm if isinstance(file, Reread) else wanted
        found = None
        if file.checksum is not None:
            found = self._read(storage, before, wanted)
            if found.checksum != file.checksum:
                raise BadInput(
                    f"{file.path} on storage {storage.name!r} has the checksum {found.checksum}, "
                    f"not the {file.checksum} given; check the file, or the request."
                )
        if found is None or kept != wanted:
            found = self._read(storage, before, kept)
        return _Found(found.checksum, found.stamp, read=True)

    def _read(self, storage: StorageInfo, before: ObjectInfo, algorithm: str) -> Reading:
        """The checksum of a file that stays what it was `before`; else `BadInput`."""
        driver = self._driver(storage)
        found = driver.read(before.path, algorithm)
        if storage.kind is StorageKind.S3:
            # It was read as one object: whether that is the one that was seen, its stamp tells.
            is_same = found.stamp == before.stamp
        else:
            is_same = found.stamp is not None and driver.stat(before.path) == before
        if not is_same:
            raise BadInput(
                f"{before.path} on storage {storage.name!r} changed while it was read; "
                "ask again once it is complete, with the size that it has then."
            )
        return found

    def _driver(self, storage: StorageInfo) -> StorageDriver:
        if storage.id not in self._drivers:
            try:
                self._drivers[storage.id] = driver_for(storage)
            except StorageError as error:
                raise self._away.note(storage.id, str(error)) from error
        return self._drivers[storage.id]


@dataclass(frozen=True)
class _Found:
    """What a look gives of a file: `read` says whether the checksum was, or was only given."""

    checksum: str
    stamp: Stamp | None
    read: bool = False


def _is_changed(file: FileEntry, there: ObjectInfo) -> bool:
    """Whether a file that is known has to be read, since it isn't as its stamp says."""
    if not isinstance(file, Reread):
        return False
    return file.mtime_us is None or not same_time(file.mtime_us, there.stamp.mtime_us)


def _check_no_link(storage: StorageInfo, path: str) -> None:
    """Raise `BadInput` where what a local storage has under a path may lie elsewhere."""
    if storage.kind is not StorageKind.LOCAL:
        return
    link = linked_part(Path(storage.url), path)
    if link is not None:
        raise BadInput(
            f"{path} on storage {storage.name!r} can't be registered: {link} is a symbolic link; "
            "give the file itself, by the path at which it lies."
        )


def is_looked_at(file: FileEntry, verify: Verify) -> bool:
    """Whether a storage is asked about a file, and it isn't only registered as it is given."""
    return verify is not Verify.NONE or is_read(file, verify)


def is_read(file: FileEntry, verify: Verify) -> bool:
    """Whether a file's bytes are read; of one that is known they may be believed instead."""
    return file.checksum is None or verify is Verify.CHECKSUM or isinstance(file, Reread)


def together(seen: Sequence[Seen]) -> "tuple[Look, ...] | SpdfError":
    """One request's files: all of them, or why it can't be done (now)."""
    faults = [item for item in seen if isinstance(item, dict)]
    if faults:
        return BadFiles(faults)
    waits = next((item for item in seen if isinstance(item, Waits)), None)
    return waits or tuple(item for item in seen if isinstance(item, Look))
