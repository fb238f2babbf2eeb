"""Looking back: whether what lies under a copy's path is still what the catalog has there."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from catalog.checksums import algorithm_of
from catalog.drivers import ObjectInfo, StorageDriver
from catalog.errors import ErrorCode, StorageError
from catalog.stamps import same_time

_SKEW = timedelta(seconds=60)
"""How far the clocks of a storage and of the catalog may be apart before bytes are read."""


class SightKind(StrEnum):
    """What was seen."""

    AS_REGISTERED = "as registered"
    OTHER = "other bytes"
    ABSENT = "no bytes"


AS_REGISTERED, OTHER, ABSENT = SightKind.AS_REGISTERED, SightKind.OTHER, SightKind.ABSENT


@dataclass(frozen=True)
class Sight:
    """What lies under a path; `there` is None where nothing does."""

    kind: SightKind
    there: ObjectInfo | None = None


def look(
    driver: StorageDriver,
    path: str,
    size_bytes: int,
    checksum: str,
    since: datetime | None,
    *,
    mtime_us: int | None = None,
    goes: bool = False,
) -> Sight:
    """Compare what lies under a path with what the catalog has there `since` a moment.

    `mtime_us` is its stamp's time: bytes that have another are read. Without one those are read
    that are to go (`goes`), and of those that stay the younger ones. And all are that were never
    known to be there (`since` is None). Raises `StorageError` where the storage can't tell, or
    isn't known to be itself.
    """
    try:
        there = driver.stat(path)
        if since is None:
            is_believed = False
        elif mtime_us is not None:
            is_believed = same_time(there.stamp.mtime_us, mtime_us)
        else:
            is_believed = not goes and there.mtime <= since + _SKEW
        if there.size_bytes != size_bytes or not (
            is_believed or driver.checksum(path, algorithm_of(checksum)) == checksum
        ):
            driver.check(marked=True)
            return Sight(OTHER, there)
    except StorageError as error:
        if error.code is not ErrorCode.INPUT_MISSING:
            raise
        driver.check(marked=True)
        return Sight(ABSENT)
    return Sight(AS_REGISTERED, there)
