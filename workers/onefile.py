"""One file's trouble, told from its storage's: what can't be read or written while others can."""

import os
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path

from catalog.drivers import ObjectInfo, StorageDriver
from catalog.errors import ErrorCode, StorageError
from workers.probe import check_storage

_LOOKS = 32
"""Files that are tried beside the one that can't be read, and as many of the whole storage."""


@contextmanager
def reading(driver: StorageDriver, path: str, name: str) -> Iterator[None]:
    """Have a file that alone can't be read end in `INPUT_UNREADABLE`, not as its storage's outage.

    Others are looked at only then.
    """
    try:
        yield
    except StorageError as error:
        if not error.of_path or not _reads_others(driver, path):
            raise
        raise StorageError(
            ErrorCode.INPUT_UNREADABLE,
            f"file {name!r} can't be read, and others on its storage can: {error}",
        ) from error


def blamed(
    driver: StorageDriver, scratch: Path, faults: Mapping[str, StorageError]
) -> dict[str, StorageError]:
    """Why paths could not be written: `OUTPUT_UNWRITABLE` of those that alone can't be.

    `scratch` is a folder of the node. The storage is looked at only where it may be well.
    """
    if not any(fault.of_path for fault in faults.values()) or not _takes_others(driver, scratch):
        return dict(faults)
    return {path: _unwritable(fault) for path, fault in faults.items()}


def _unwritable(fault: StorageError) -> StorageError:
    if not fault.of_path:
        return fault
    return StorageError(
        ErrorCode.OUTPUT_UNWRITABLE,
        f"an output can't be stored, and others can on that storage: {fault}",
    )


def _takes_others(driver: StorageDriver, scratch: Path) -> bool:
    try:
        check_storage(driver, scratch, needed_bytes=0, writing=True)
    except (StorageError, OSError):
        return False
    return True


def _reads_others(driver: StorageDriver, path: str) -> bool:
    """Whether a storage is itself and gives bytes of others than `path`.

    Where there are none, or we may not list them, its marker must do.
    """
    try:
        driver.check()
        tried = False
        for other in _others(driver, path):
            if _reads(driver, other.path):
                return True
            tried = True
        return not tried and driver.read_marker() is not None
    except StorageError:
        return False


def _others(driver: StorageDriver, path: str) -> Iterator[ObjectInfo]:
    """Some files: those beside it first."""
    folder = path.rpartition("/")[0]
    for prefix in dict.fromkeys((f"{folder}/" if folder else "", "")):
        try:
            found = islice(driver.list(prefix, unread=lambda _path, _fault: None), _LOOKS)
            yield from (other for other in found if other.path != path)
        except StorageError:
            continue


def _reads(driver: StorageDriver, path: str) -> bool:
    try:
        if driver.local_path(path) is None:
            driver.stat(path)
            return True
        with closing(driver.open(path)) as stream:
            # What memory still has says nothing of the disk.
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            stream.read(1)
    except (StorageError, OSError):
        return False
    return True
