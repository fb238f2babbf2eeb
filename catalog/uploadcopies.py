"""One file of an upload: its bytes copied to the place that is reserved for it.

Nothing there is taken for ours because of the reservation: only the file's own bytes are, and those
that a source with other bytes has just given.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from catalog.checksums import algorithm_of
from catalog.drivers import StorageDriver
from catalog.errors import Conflict, ErrorCode, StorageError
from catalog.refs import ReplicaRef


@dataclass(frozen=True)
class UploadCopy:
    """A file to be copied, with the replica that is made."""

    file_id: int
    name: str
    size_bytes: int
    checksum: str
    sources: tuple[ReplicaRef, ...]
    replica_id: int
    path: str


class Cannot(Conflict):
    """An upload can't go on: the sentence says why."""


def bring(
    item: UploadCopy,
    target: StorageDriver,
    drivers: Mapping[int, StorageDriver],
    scratch: Path,
    take_away: Callable[[str], None],
) -> bool:
    """Have the bytes at their place, and as the catalog knows them there; False: others lie there.

    What a run that died has put is whole: a part of it is never seen under its path.
    """
    lies_there = _lies_there(item, target)
    if lies_there is not None:
        return lies_there
    algorithm, faults = algorithm_of(item.checksum), []
    for source in item.sources:
        origin = drivers[source.storage_id]
        try:
            _put(item, source, target, origin, scratch)
        except StorageError as error:
            if error.code is ErrorCode.OUTPUT_EXISTS:
                return bool(_lies_there(item, target))
            if error.code not in (ErrorCode.INPUT_MISSING, ErrorCode.INPUT_CORRUPT):
                raise
            faults.append(str(error))
            continue
        there = target.checksum(item.path, algorithm)
        if there == item.checksum:
            return True
        faults.append(f"its copy has the checksum {there}, not {item.checksum}")
        if not _has(origin, source.path, there):
            faults.append(f"it stays under {item.path!r}, since its source has other bytes")
            break
        try:
            take_away(item.path)
        except StorageError as error:
            if error.code is not ErrorCode.STORAGE_DENIED:
                raise
            faults.append(str(error))
            break
    told = "; ".join(faults) or "no copy of it is AVAILABLE"
    raise Cannot(f"file {item.name!r} can't be copied: {told}; `spdf file recover` may make it.")


def _lies_there(item: UploadCopy, target: StorageDriver) -> bool | None:
    """Whether the file's own bytes lie at its place; None where nothing does."""
    try:
        if target.stat(item.path).size_bytes != item.size_bytes:
            return False
    except StorageError as error:
        if error.code is ErrorCode.INPUT_MISSING:
            return None
        raise
    return _has(target, item.path, item.checksum)


def _has(driver: StorageDriver, path: str, checksum: str) -> bool:
    """Whether bytes of that checksum lie under a path."""
    try:
        return driver.checksum(path, algorithm_of(checksum)) == checksum
    except StorageError as error:
        if error.code is ErrorCode.INPUT_MISSING:
            return False
        raise


def _put(
    item: UploadCopy,
    source: ReplicaRef,
    target: StorageDriver,
    origin: StorageDriver,
    scratch: Path,
) -> None:
    place = origin.local_path(source.path)
    if place is not None:
        target.put(place, item.path)
        return
    scratch.mkdir(parents=True, exist_ok=True)
    passing = scratch / f"upload-{uuid4().hex}"
    try:
        origin.get(source.path, passing)
        target.put(passing, item.path, move=True)
    finally:
        passing.unlink(missing_ok=True)
