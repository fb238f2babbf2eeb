"""The default storages, one for each role: directories below SPDF_HOME, or buckets of a site."""

from catalog import standing, storages
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

    All storages get their markers, as far as it is plain that they are what they were.

    Raises `Conflict` where the name of one is taken by a storage of another role, `Unavailable`
    where a bucket can't be made.
    """
    with catalog.read() as session:
        served = {storage.role for storage in storages.list_all(session)}
    missing = [
        (name, kind, role, url)
        for role, (name, folder) in DEFAULTS.items()
        if role not in served
        for kind, url in [_place(settings, name, folder)]
    ]
    with catalog.write() as session:
        added = [storages.add(session, *wanted) for wanted in missing]
    for info in added:
        standing.adopt(catalog, info.id, first=True)
    standing.adopt_all(catalog)
    return added


def _place(settings: Settings, name: str, folder: str) -> tuple[StorageKind, str]:
    if not settings.s3_url:
        return StorageKind.LOCAL, str(settings.home / "storage" / folder)
    from flows.site.buckets import ensure_bucket

    return StorageKind.S3, ensure_bucket(settings, name)
