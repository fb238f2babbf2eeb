"""The storages of the embedded profile: one for each role, below SPDF_HOME."""

from catalog import storages
from catalog.db import Catalog
from catalog.models import StorageKind, StorageRole
from catalog.settings import Settings
from catalog.storages import StorageInfo

DEFAULTS = {
    StorageRole.INPUT: ("buffer", "input"),
    StorageRole.INTERNAL: ("internal", "internal"),
    StorageRole.OUTPUT: ("output", "output"),
}
"""Name and folder by role."""


def add_default_storages(catalog: Catalog, settings: Settings) -> list[StorageInfo]:
    """Add the default storage of each role that has none; gives those that were added.

    Raises `Conflict` where the name of one is taken by a storage of another role.
    """
    with catalog.write() as session:
        served = {storage.role for storage in storages.list_all(session)}
        return [
            storages.add(
                session, name, StorageKind.LOCAL, role, str(settings.home / "storage" / folder)
            )
            for role, (name, folder) in DEFAULTS.items()
            if role not in served
        ]
