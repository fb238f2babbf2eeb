"""How full storages are, how fast they fill, and when they will be full."""

import shutil
from dataclasses import dataclass

from sqlmodel import Session

from catalog import durations, storages, usage
from catalog.refs import StorageKind

SINCE_S = 900.0
"""The time that a forecast looks back on."""
_SOON_S = 7 * 86400.0


@dataclass(frozen=True)
class Fill:
    """A storage: bytes on it, bytes it can hold (None: unknown), and its growth (None: unknown)."""

    storage_id: int
    storage: str
    role: str
    files: int
    size_bytes: int
    capacity_bytes: int | None
    has_quota: bool
    pressed: bool
    growth_bytes_per_s: float | None

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
        """A sentence for an operator, where it is full, or will be within a week."""
        if self.pressed:
            return f"storage {self.storage} is above its high-water mark: producing stages pause"
        if self.full_in_s is None or self.full_in_s > _SOON_S:
            return None
        what = "input buffer" if self.role == "input" else "storage"
        return f"{what} {self.storage} full in {durations.words(self.full_in_s)}"


def fills(session: Session) -> list[Fill]:
    """Every storage, by name."""
    places = {info.id: info for info in storages.list_all(session)}
    found = []
    for item in usage.of_storages(session):
        place = places.get(item.storage_id)
        if place is None:
            continue  # It was added between the two looks.
        capacity = item.quota_bytes
        if capacity is None and place.kind is StorageKind.LOCAL:
            capacity = _room(place.url, item.size_bytes)
        points = usage.samples(session, item.storage_id, SINCE_S)
        found.append(
            Fill(
                item.storage_id,
                item.storage,
                item.role,
                item.files,
                item.size_bytes,
                capacity,
                item.quota_bytes is not None,
                item.pressed_at is not None,
                usage.growth_bytes_per_s(points),
            )
        )
    return found


def _room(directory: str, size_bytes: int) -> int | None:
    """What a directory can hold: what is there, and what its file system has free."""
    try:
        return size_bytes + shutil.disk_usage(directory).free
    except OSError:
        return None
