"""Looking back: whether what lies under a copy's path is still what the catalog has there."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from catalog.checksums import algorithm_of
from catalog.drivers import ObjectInfo, StorageDriver
from catalog.errors import ErrorCode, StorageError

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
    driver: StorageDriver, path: str, size_bytes: int, checksum: str, since: datetime | None
) -> Sight:
    """Compare what lies under a path with what the catalog has there `since` a moment.

    Bytes are read only where they are younger, or where they were never known to be there (None).
    Raises `StorageError` where the storage can't tell, or isn't known to be itself.
    """
    try:
        there = driver.stat(path)
        younger = since is None or there.mtime > since + _SKEW
        if there.size_bytes != size_bytes or (
            younger and driver.checksum(path, algorithm_of(checksum)) != checksum
        ):
            driver.check(marked=True)
            return Sight(OTHER, there)
    except StorageError as error:
        if error.code is not ErrorCode.INPUT_MISSING:
            raise
        driver.check(marked=True)
        return Sight(ABSENT)
    return Sight(AS_REGISTERED, there)
