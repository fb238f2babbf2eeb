"""Drivers: how the bytes of each kind of storage are reached."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from catalog.drivers.identity import Identity
from catalog.drivers.local import LocalDriver
from catalog.drivers.protocol import NOTHING_SEEN, ObjectInfo, StorageDriver, Stored, Unread
from catalog.errors import ErrorCode, StorageError
from catalog.overlaps import shared
from catalog.refs import StorageInfo, StorageKind

if TYPE_CHECKING:
    from catalog.settings import Settings

__all__ = [
    "NOTHING_SEEN", "Drivers", "ObjectInfo", "StorageDriver", "Stored", "Unread", "driver_for",
    "undo",
]  # fmt: skip


def driver_for(storage: StorageInfo, settings: "Settings | None" = None) -> StorageDriver:
    """The driver that speaks to a storage, with the login of the settings where it needs one.

    Raises `StorageError` `STORAGE_DENIED` where there is none. Nothing is connected yet.
    """
    match storage.kind:
        case StorageKind.LOCAL:
            return LocalDriver(storage.name, Path(storage.url), _identity(storage))
        case StorageKind.S3:
            # The client is slow to import, and most processes of an embedded profile need none.
            from catalog.drivers.s3 import S3Driver
            from catalog.drivers.s3client import login_of
            from catalog.settings import get_settings

            settings = settings or get_settings()
            login = login_of(settings, storage.name)
            return S3Driver(storage.name, storage.url, login, settings, _identity(storage))
        case _:
            assert_never(storage.kind)


class Drivers(Mapping[int, StorageDriver]):
    """The ways to storages, made when they are asked for: one without a login stops no other.

    Asking raises `StorageError` where there is none.
    """

    def __init__(self, places: Iterable[StorageInfo], settings: "Settings | None" = None) -> None:
        self._places, self._settings = {place.id: place for place in places}, settings
        self._made: dict[int, StorageDriver] = {}
        self._shared = shared(list(self._places.values()))

    def __getitem__(self, storage_id: int) -> StorageDriver:
        """The driver of a storage."""
        if storage_id not in self._made:
            if (place := self._places.get(storage_id)) is None:
                raise StorageError(
                    ErrorCode.STORAGE_UNAVAILABLE,
                    f"storage {storage_id} was added after this began; the next one has it.",
                )
            self._made[storage_id] = driver = driver_for(place, self._settings)
            driver.shared = storage_id in self._shared
        return self._made[storage_id]

    def also(self, storage_id: int, driver: StorageDriver) -> "Drivers":
        """The same ones, and one that no catalog has."""
        more = Drivers(self._places.values(), self._settings)
        more._made[storage_id] = driver
        return more

    def __iter__(self) -> Iterator[int]:
        """The ids of all storages that are known."""
        return iter(dict.fromkeys([*self._places, *self._made]))

    def __len__(self) -> int:
        """How many there are."""
        return len({*self._places, *self._made})


def undo(driver: StorageDriver, paths: Iterable[str]) -> None:
    """Remove what the caller has just put there itself, under names that nothing had.

    Where another storage has a part of the place it stays, as dark data: a row of that one may
    name it. Raises `StorageError` for the first that can't be removed.
    """
    for path in paths:
        if not driver.shared:
            driver.delete(path)


def _identity(storage: StorageInfo) -> Identity | None:
    return None if storage.identity is None else Identity(storage.identity, storage.marked)
