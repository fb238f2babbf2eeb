"""Many objects removed from an S3 server by few requests, and again those it was too busy for."""

from collections.abc import Mapping

from minio import Minio
from minio.deleteobjects import DeleteObject

from catalog import tries
from catalog.drivers.s3client import DENIED, explained
from catalog.errors import ErrorCode, StorageError
from catalog.places import Place

_AT_ONCE = 1000
_PASSING = frozenset({"SlowDown", "InternalError", "ServiceUnavailable", "OperationAborted"})
"""What a server says of one of many objects that it may remove a moment later."""


def remove_many(
    storage: str, place: Place, client: Minio, paths: Mapping[str, str]
) -> dict[str, StorageError]:
    """Remove objects, given by key with their paths; gives why those stay that do, by path."""
    faults: dict[str, StorageError] = {}
    keys = list(paths)
    for start in range(0, len(keys), _AT_ONCE):
        part = {key: paths[key] for key in keys[start : start + _AT_ONCE]}
        faults |= _remove(storage, place, client, part)
    return faults


def _remove(
    storage: str, place: Place, client: Minio, paths: Mapping[str, str]
) -> dict[str, StorageError]:
    faults: dict[str, StorageError] = {}
    left = dict(paths)
    for tried in range(1, tries.REQUEST.tries + 1):
        try:
            with explained(storage, place, next(iter(left.values())), client=client):
                wanted = [DeleteObject(key) for key in left]
                stayed = list(client.remove_objects(place.bucket, wanted))
        except StorageError as error:
            return faults | dict.fromkeys(left.values(), error)
        busy: dict[str, str] = {}
        for fault in stayed:
            why = _refused(storage, place, str(fault.code), str(fault.message))
            # A refusal of the whole request names no object.
            those = {fault.name: left[fault.name]} if fault.name in left else dict(left)
            faults |= dict.fromkeys(those.values(), why)
            if fault.code in _PASSING:
                busy |= those
        if not busy or tried == tries.REQUEST.tries:
            break
        for path in busy.values():
            del faults[path]
        left = busy
        tries.pause(tries.REQUEST.wait_s(tried))
    return faults


def _refused(storage: str, place: Place, code: str, message: str) -> StorageError:
    """Why a server would not delete an object, as it tells inside of an answer."""
    kind = ErrorCode.STORAGE_DENIED if code in DENIED else ErrorCode.STORAGE_FAILED
    told = f"storage {storage!r}: {place.host} removes nothing ({code}: {message})"
    return StorageError(kind, f"{told}; it is tried again.")
