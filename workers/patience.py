"""Waiting for a storage that is away or full: an outage is no fault of the job that meets it.

A payload's work is not thrown away for it at once, and all others are told meanwhile.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from catalog.checksums import algorithm_of, file_checksum
from catalog.drivers import StorageDriver, Stored
from catalog.errors import ErrorCode, StorageError
from catalog.refs import StorageTrouble
from workers.cwl import ToolStopped
from workers.node import Node
from workers.onefile import blamed

log = logging.getLogger(__name__)

R = TypeVar("R")
_WAIT_S = (0.5, 10.0)
_PASSING = frozenset({ErrorCode.STORAGE_UNAVAILABLE, ErrorCode.STORAGE_FULL})
"""What may be over soon without anybody's doing."""


def patiently(
    call: Callable[[], R],
    node: Node,
    *,
    writing: bool = False,
    needed_bytes: int = 0,
    stop: threading.Event | None = None,
) -> R:
    """What `call` gives, tried again for the node's patience while its storage is away or full.

    The node tells of the storage that the error names. Raises the last `StorageError`, and
    `ToolStopped` when `stop` is set.
    """
    until, wait_s = time.monotonic() + node.patience_s, _WAIT_S[0]
    while True:
        try:
            return call()
        except StorageError as error:
            left_s = until - time.monotonic()
            if error.code not in _PASSING or left_s <= 0:
                raise
            log.warning("storage out", extra={"fault": str(error), "left_s": round(left_s)})
            if error.storage_id is not None:
                node.tell(
                    StorageTrouble(error.code, str(error), error.storage_id, writing, needed_bytes)
                )
        if (stop or threading.Event()).wait(min(wait_s, left_s)):
            raise ToolStopped
        wait_s = min(wait_s * 2, _WAIT_S[1])


@contextmanager
def naming(storage_id: int) -> Iterator[None]:
    """Have errors of a storage say which one it is."""
    try:
        yield
    except StorageError as error:
        error.storage_id = storage_id
        raise


@dataclass(frozen=True)
class Twin:
    """A file that was stored a moment ago: where it is on its storage, and what was stored."""

    path: str
    stored: Stored


def put_patiently(
    node: Node,
    storage_id: int,
    source: Path,
    path: str,
    *,
    checksum: str,
    move: bool,
    size_bytes: int,
    keep: bool = False,
    twin: Twin | None = None,
    stop: threading.Event | None = None,
) -> Stored:
    """`driver.put` without sync, tried again while the storage is away or full.

    What is there already, as `twin`, gets another name where the storage can do that. A try whose
    answer was lost may have stored the bytes: then they are there, and are ours.
    """
    away = False

    def put() -> Stored:
        nonlocal away
        with naming(storage_id):
            driver = node.storages[storage_id]
            try:
                if twin is not None and driver.put_again(twin.path, path):
                    if move and not keep:
                        source.unlink(missing_ok=True)
                    return twin.stored
                return driver.put(source, path, checksum=checksum, move=move, keep=keep, sync=False)
            except StorageError as error:
                if error.code is ErrorCode.OUTPUT_EXISTS and away:
                    return _stored_before(driver, source, path, checksum, move and not keep, error)
                away = away or error.code is ErrorCode.STORAGE_UNAVAILABLE
                raise blamed(driver, node.directory, {path: error})[path] from error

    return patiently(put, node, writing=True, needed_bytes=size_bytes, stop=stop)


def _stored_before(
    driver: StorageDriver, source: Path, path: str, algorithm: str, move: bool, error: StorageError
) -> Stored:
    ours = file_checksum(source, algorithm)
    there = driver.read(path, algorithm_of(ours))
    if there.checksum != ours:
        raise error
    size_bytes = source.stat().st_size
    if move:
        source.unlink()
    return Stored(size_bytes, ours, there.stamp)
