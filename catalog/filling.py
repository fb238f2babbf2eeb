"""How full storages are, how fast they fill, and when they will be full."""

import shutil
from collections import Counter
from dataclasses import dataclass

from catalog import answering, durations, lifetimes, storages, usage
from catalog.db import Catalog
from catalog.refs import StorageInfo, StorageKind, StorageRole
from catalog.usage import Usage

SINCE_S = 900.0
"""The time that a forecast looks back on."""
_SOON_S = 7 * 86400.0


@dataclass(frozen=True)
class Fill:
    """A storage: bytes on it, bytes it can hold (None: unknown), and its growth (None: unknown).

    `away` says that its directory doesn't answer, and what to do; None where it does.
    """

    storage_id: int
    storage: str
    role: str
    files: int
    size_bytes: int
    capacity_bytes: int | None
    has_quota: bool
    pressed: bool
    growth_bytes_per_s: float | None
    away: str | None = None
    overdue_bytes: int = 0
    """Of datasets that are kept though their lifetime is over: none of it goes by itself."""
    is_early: bool = False
    """Whether an input buffer is above its low mark."""

    @property
    def full_in_s(self) -> float | None:
        """Seconds until it is full, if it goes on so; None where it doesn't fill."""
        if self.capacity_bytes is None or not self.growth_bytes_per_s:
            return None
        if self.growth_bytes_per_s <= 0:
            return None
        return max(0.0, (self.capacity_bytes - self.size_bytes) / self.growth_bytes_per_s)

    @property
    def warning(self) -> str | None:
        """A sentence for an operator, where it is away, full, or will be within a week."""
        if self.away is not None:
            return self.away
        if self.role == StorageRole.INPUT and (self.pressed or self.is_early):
            return self._alarm
        if self.pressed:
            return f"storage {self.storage} is above its high-water mark: producing stages pause"
        if self.full_in_s is None or self.full_in_s > _SOON_S:
            return None
        what = "input buffer" if self.role == StorageRole.INPUT else "storage"
        when = durations.words(self.full_in_s)
        return f"{what} {self.storage} full in {when}{self._overdue}"

    @property
    def _alarm(self) -> str:
        """Of an input buffer, early: no stage of ours can wait for it."""
        mark = "high-water" if self.pressed else "low"
        when = "" if self.full_in_s is None else f", full in {durations.words(self.full_in_s)}"
        return (
            f"input buffer {self.storage} is above its {mark} mark{when}: only who writes there "
            f"can slow down{self._overdue}"
        )

    @property
    def _overdue(self) -> str:
        if not self.overdue_bytes:
            return ""
        return f"; {self.overdue_bytes} bytes of it are overdue: `spdf dataset list --overdue`"


def fills(catalog: Catalog) -> list[Fill]:
    """Every storage, by name; one that doesn't answer holds up nobody for long."""
    with catalog.read() as session:
        places = {info.id: info for info in storages.list_all(session)}
        known = [
            (item, usage.growth_bytes_per_s(usage.samples(session, item.storage_id, SINCE_S)))
            for item in usage.of_storages(session)
            if item.storage_id in places  # It may have been added between the two looks.
        ]
        late: Counter[int | None] = Counter()
        for one in lifetimes.sums(session):
            late[one.storage_id] += one.size_bytes
    local = [info.url for info in places.values() if info.kind is StorageKind.LOCAL]
    hanging = answering.hanging(local)
    return [
        _fill(item, growth, place, place.url not in hanging, late[item.storage_id])
        for item, growth in known
        for place in (places[item.storage_id],)
    ]


def _fill(
    item: Usage, growth: float | None, place: StorageInfo, answers: bool, overdue_bytes: int
) -> Fill:
    capacity = item.quota_bytes
    if capacity is None and place.kind is StorageKind.LOCAL and answers:
        capacity = _room(place.url, item.size_bytes)
    return Fill(
        item.storage_id,
        item.storage,
        item.role,
        item.files,
        item.size_bytes,
        capacity,
        item.quota_bytes is not None,
        item.pressed_at is not None,
        growth,
        None if answers else answering.words(item.storage, place.url),
        overdue_bytes,
        is_early=item.share is not None and 100 * item.share >= item.low_percent,
    )


def _room(directory: str, size_bytes: int) -> int | None:
    """What a directory can hold: what is there, and what its file system has free."""
    try:
        return size_bytes + shutil.disk_usage(directory).free
    except OSError:
        return None
