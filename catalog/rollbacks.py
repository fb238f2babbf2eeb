"""Looking for a rollback: whether the claims on storages say that this catalog has been further."""

import logging
from functools import partial

from catalog import claims, standing, storages
from catalog.db import Catalog
from catalog.drivers import driver_for
from catalog.errors import ErrorCode, StorageError
from catalog.refs import StorageInfo

log = logging.getLogger(__name__)


def look(catalog: Catalog, *, limit_s: float = standing.LOOK_S) -> None:
    """Read the markers of all storages, at once; what they say of a rollback is written down.

    A storage that doesn't answer in time says nothing now.
    """
    with catalog.read() as session:
        known = storages.list_all(session)
    standing.in_time([partial(_look, catalog, info) for info in known if info.marked], limit_s)


def _look(catalog: Catalog, info: StorageInfo) -> None:
    try:
        driver = driver_for(info)
        driver.check(marked=True)
        claims.require(catalog, info.id, driver)
    except StorageError as error:
        if error.code is not ErrorCode.STORAGE_DENIED:
            log.info("no claim can be read", extra={"storage": info.name, "why": str(error)})
