"""Drivers: how the bytes of each kind of storage are reached."""

from pathlib import Path
from typing import assert_never

from catalog.drivers.local import LocalDriver
from catalog.drivers.protocol import ObjectInfo, StorageDriver, Stored
from catalog.errors import BadInput
from catalog.models import StorageKind
from catalog.storages import StorageInfo

__all__ = ["ObjectInfo", "StorageDriver", "Stored", "driver_for"]


def driver_for(storage: StorageInfo) -> StorageDriver:
    """The driver that speaks to a storage; raises `BadInput` for a kind without one."""
    match storage.kind:
        case StorageKind.LOCAL:
            return LocalDriver(storage.name, Path(storage.url))
        case StorageKind.S3:
            raise BadInput(
                f"storage {storage.name!r} is of kind s3, which this version can't reach; "
                "use a local one."
            )
        case _:
            assert_never(storage.kind)
