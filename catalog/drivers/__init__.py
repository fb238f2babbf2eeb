"""Drivers: how the bytes of each kind of storage are reached."""

from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from catalog.drivers.local import LocalDriver
from catalog.drivers.protocol import ObjectInfo, StorageDriver, Stored
from catalog.refs import StorageInfo, StorageKind

if TYPE_CHECKING:
    from catalog.settings import Settings

__all__ = ["ObjectInfo", "StorageDriver", "Stored", "driver_for"]


def driver_for(storage: StorageInfo, settings: "Settings | None" = None) -> StorageDriver:
    """The driver that speaks to a storage, with the login of the settings where it needs one.

    Raises `StorageError` `STORAGE_DENIED` where there is none. Nothing is connected yet.
    """
    match storage.kind:
        case StorageKind.LOCAL:
            return LocalDriver(storage.name, Path(storage.url))
        case StorageKind.S3:
            # The client is slow to import, and most processes of an embedded profile need none.
            from catalog.drivers.s3 import S3Driver
            from catalog.drivers.s3client import login_of
            from catalog.settings import get_settings

            settings = settings or get_settings()
            return S3Driver(storage.name, storage.url, login_of(settings, storage.name), settings)
        case _:
            assert_never(storage.kind)
