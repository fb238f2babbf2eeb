"""Waiting for a storage that is away: an outage is no fault of the job that meets it."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from catalog.checksums import algorithm_of, file_checksum
from catalog.drivers import StorageDriver, Stored
from catalog.errors import ErrorCode, StorageError
from workers.cwl import ToolStopped

log = logging.getLogger(__name__)

R = TypeVar("R")
_WAIT_S = (0.5, 10.0)


def patiently(
    call: Callable[[], R], *, patience_s: float, stop: threading.Event | None = None
) -> R:
    """What `call` gives, tried again for `patience_s` while it says STORAGE_UNAVAILABLE.

    Raises its last `StorageError`, and `ToolStopped` when `stop` is set.
    """
    until, wait_s = time.monotonic() + patience_s, _WAIT_S[0]
    while True:
        try:
            return call()
        except StorageError as error:
            left_s = until - time.monotonic()
            if error.code is not ErrorCode.STORAGE_UNAVAILABLE or left_s <= 0:
                raise
            log.warning("storage away", extra={"fault": str(error), "left_s": round(left_s)})
        if (stop or threading.Event()).wait(min(wait_s, left_s)):
            raise ToolStopped
        wait_s = min(wait_s * 2, _WAIT_S[1])


def put_patiently(
    driver: StorageDriver,
    source: Path,
    path: str,
    *,
    checksum: str,
    move: bool,
    patience_s: float,
    stop: threading.Event | None = None,
) -> Stored:
    """`driver.put` without sync, tried again while the storage is away.

    A try whose answer was lost may have stored the bytes: then they are there, and are ours.
    """
    away = False

    def put() -> Stored:
        nonlocal away
        try:
            return driver.put(source, path, checksum=checksum, move=move, sync=False)
        except StorageError as error:
            if error.code is ErrorCode.OUTPUT_EXISTS and away:
                return _stored_before(driver, source, path, checksum, move, error)
            away = away or error.code is ErrorCode.STORAGE_UNAVAILABLE
            raise

    return patiently(put, patience_s=patience_s, stop=stop)


def _stored_before(
    driver: StorageDriver, source: Path, path: str, algorithm: str, move: bool, error: StorageError
) -> Stored:
    ours = file_checksum(source, algorithm)
    if driver.checksum(path, algorithm_of(ours)) != ours:
        raise error
    size_bytes = source.stat().st_size
    if move:
        source.unlink()
    return Stored(size_bytes, ours)
