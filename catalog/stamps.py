"""Stamps: size and time of bytes when they were read, or seen at registration.

A copy is believed while it has its stamp; where it has another, its bytes are read. A change of the
same size within one tick of the file system's clock, and one whose writer set the time back to what
it was, can't be seen so: only a read tells.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from catalog.checksums import DEFAULT, stream_checksum

EARLIEST = datetime(1, 1, 2, tzinfo=UTC)
LATEST = datetime(9999, 12, 30, tzinfo=UTC)
"""Between these every time is kept as it is; a time zone doesn't lead out of what Python has."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TICK = timedelta(microseconds=1)
_SECOND_US, _MILLISECOND_US = 1_000_000, 1_000


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a file's metadata said; the time in microseconds since 1970."""

    size_bytes: int
    mtime_us: int

    def agrees(self, other: "Stamp") -> bool:
        """Whether both may be of the same bytes."""
        return self.size_bytes == other.size_bytes and same_time(self.mtime_us, other.mtime_us)


@dataclass(frozen=True, slots=True)
class Reading:
    """The checksum of bytes that were read, and their stamp; None where they changed meanwhile."""

    checksum: str
    stamp: Stamp | None


def same_time(one_us: int, other_us: int) -> bool:
    """Whether two times are the same in the coarser of their resolutions.

    Which that is they tell themselves: S3 has whole seconds in one answer and milliseconds in
    another, and the same file system whole seconds on one node and nanoseconds on the next.
    """
    if one_us == other_us:
        return True
    unit = max(_unit(one_us), _unit(other_us))
    return one_us // unit == other_us // unit


def _unit(mtime_us: int) -> int:
    if mtime_us % _MILLISECOND_US:
        return 1
    return _MILLISECOND_US if mtime_us % _SECOND_US else _SECOND_US


def time_of(seconds: float) -> datetime:
    """A file's time, or the nearest that can be had: a corrupt one may be of any year."""
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return LATEST if seconds > 0 else EARLIEST
    return min(max(moment, EARLIEST), LATEST)


def micros(moment: datetime) -> int:
    """A time as a stamp has it."""
    return (moment - _EPOCH) // _TICK


def moment_of(mtime_us: int) -> datetime:
    """The time that `micros` gave."""
    return _EPOCH + timedelta(microseconds=mtime_us)


def of_stat(found: os.stat_result) -> Stamp:
    """The stamp of a file, as its `stat` tells it."""
    return Stamp(found.st_size, micros(time_of(found.st_mtime)))


def reading(descriptor: int, read: Callable[[], str]) -> Reading:
    """What `read` gives of an open file, with the stamp that it had before and after."""
    before = os.fstat(descriptor)
    checksum = read()
    return Reading(checksum, settled(before, os.fstat(descriptor)))


def settled(before: os.stat_result, after: os.stat_result) -> Stamp | None:
    """The stamp of a file that stayed as it was, to the nanosecond; None of one that didn't."""
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        return None
    return of_stat(after)


def read_file(path: Path, algorithm: str = DEFAULT) -> Reading:
    """Read a file's bytes, in blocks; raises `OSError` as `open` does."""
    with path.open("rb", buffering=0) as file:
        return reading(file.fileno(), lambda: stream_checksum(file.readinto, algorithm))
