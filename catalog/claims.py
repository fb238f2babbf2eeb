"""Claims in a storage's marker: whether this catalog may remove what lies there.

Any number of catalogs may read a storage, and one may remove. On an input storage nobody removes by
itself, so there a claim to read is enough for what a person or a rule orders, while nobody else has
a claim.
"""

import sqlalchemy as sa
from sqlmodel import col

from catalog import storages
from catalog.db import Catalog
from catalog.drivers import StorageDriver, marker
from catalog.drivers.marker import Marker, May
from catalog.errors import ErrorCode, StorageError
from catalog.models import CatalogInfo
from catalog.names import MARKER
from catalog.refs import StorageInfo, StorageRole


def require(catalog: Catalog, storage_id: int, driver: StorageDriver) -> None:
    """Raise `StorageError` `STORAGE_DENIED` where this catalog may not remove anything.

    A storage without a marker passes, and so does one with a damaged one: `driver.check` tells.
    """
    text = driver.read_marker()
    try:
        found = None if text is None else marker.read(text)
    except ValueError:
        return
    if found is None:
        return
    with catalog.read() as session:
        info = storages.get(session, storage_id)
        ours = session.execute(sa.select(col(CatalogInfo.catalog), col(CatalogInfo.instance))).one()
    why = _why_not(found, info, (ours.catalog, ours.instance))
    if why is not None:
        raise StorageError(
            ErrorCode.STORAGE_DENIED,
            f"storage {info.name!r}: nothing is removed there: {why}.",
        )


def _why_not(found: Marker, info: StorageInfo, ours: tuple[str, str]) -> str | None:
    mine = [claim for claim in found.claims if marker.whose(claim) == ours]
    others = [claim for claim in found.claims if marker.whose(claim) != ours]
    rivals = [claim for claim in others if claim.get("may") != May.READS]
    if found.format != marker.FORMAT:
        return f"its marker {MARKER} is of format {found.format}; use a program that knows it"
    if rivals:
        return (
            f"by its marker {MARKER} catalog {rivals[0].get('catalog')} may, and only one may; "
            f"where that one is no more, take its claim out and let that of {ours[0]} say `removes`"
        )
    if any(claim.get("may") == May.REMOVES for claim in mine):
        return None
    if info.role is StorageRole.INPUT and not others:
        return None
    if not mine:
        return (
            f"its marker {MARKER} has no claim of this catalog; `spdf storage mark {info.name}` "
            "makes it"
        )
    return (
        f"by its marker {MARKER} this catalog only reads; where nobody else needs what lies there, "
        f"let the claim of {ours[0]} say `removes`"
    )
