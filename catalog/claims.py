"""Claims in a storage's marker: whether this catalog may remove what lies there.

Any number of catalogs may read a storage, and one may remove. On an input storage nobody removes by
itself, so there a claim to read is enough for what a person or a rule orders, while nobody else has
a claim. A claim is made where there is none of this catalog yet, and has its beat by inspections;
all else of it is changed by a person's word (`take`). The beat only grows, and the catalog's own is
never below one that it wrote: where it is, the catalog became what it had been earlier.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import leave, restores, storages
from catalog.db import Catalog
from catalog.drivers import StorageDriver, marker
from catalog.drivers.marker import Claim, Marker, May
from catalog.errors import Conflict, ErrorCode, StorageError
from catalog.models import CatalogInfo
from catalog.names import MARKER
from catalog.refs import StorageInfo, StorageRole

log = logging.getLogger(__name__)

_TRIES = 20
"""Others write claims there, too, one at a time."""


@dataclass(frozen=True)
class Ours:
    """Who this catalog is to others."""

    catalog: str
    instance: str
    beat: int

    @property
    def key(self) -> tuple[str, str]:
        """As `marker.whose` has it."""
        return self.catalog, self.instance


def ours(session: Session) -> Ours:
    """Who this catalog is to others."""
    query = sa.select(col(CatalogInfo.catalog), col(CatalogInfo.instance), col(CatalogInfo.beat))
    return Ours(*session.execute(query).one())


def require(catalog: Catalog, storage_id: int, driver: StorageDriver) -> None:
    """Raise `StorageError` `STORAGE_DENIED` where this catalog may not remove anything.

    A storage without a marker passes, and so does one with a damaged one: `driver.check` tells.
    """
    # Before the row: who writes both writes the row first.
    found = _read(driver)
    if found is None:
        return
    with catalog.read() as session:
        info, mine = storages.get(session, storage_id), ours(session)
    _note_rollback(catalog, found, mine, info.name)
    why = why_not(found, info, mine)
    if why is not None:
        raise StorageError(
            ErrorCode.STORAGE_DENIED,
            f"storage {info.name!r}: nothing is removed there: {why}.",
        )


def require_leave(catalog: Catalog, storage_id: int) -> None:
    """Raise `StorageError` `STORAGE_DENIED` where nothing may go without a person's word."""
    with catalog.read() as session:
        why = leave.why_not(session)
        name = storages.get(session, storage_id).name
    if why is not None:
        raise StorageError(
            ErrorCode.STORAGE_DENIED, f"storage {name!r}: nothing is removed there: {why}."
        )


def why_not(found: Marker, info: StorageInfo, mine: Ours) -> str | None:
    """Why a catalog may not remove anything from a storage with that marker; None where it may."""
    if found.format != marker.FORMAT:
        return f"its marker {MARKER} is of format {found.format}; use a program that knows it"
    own = _own(found, mine)
    others = [claim for claim in found.claims if marker.whose(claim) != mine.key]
    before = [claim for claim in others if claim.get("catalog") == mine.catalog]
    rivals = [claim for claim in others if claim.get("may") != May.READS]
    word = f"`spdf storage claim {info.name}`"
    if any(marker.beat_of(claim) > mine.beat for claim in own):
        return (
            f"by its marker {MARKER} this catalog has been further than it is now; {word} says "
            "that it goes on from here"
        )
    if before:
        return (
            f"by its marker {MARKER} another copy of this catalog has a claim, as before a "
            f"restore; where that one is no more, {word} gives it to this one"
        )
    if rivals:
        other = rivals[0].get("catalog")
        return (
            f"by its marker {MARKER} catalog {other} may, and only one may; where that one is no "
            f"more, `spdf storage claim {info.name} --from {other}` lets this one"
        )
    if any(claim.get("may") == May.REMOVES for claim in own):
        return None
    if info.role is StorageRole.INPUT and not others:
        return None
    if not own:
        return f"its marker {MARKER} has no claim of this catalog; {word} makes it"
    return (
        f"by its marker {MARKER} this catalog only reads; where nobody else needs what lies there, "
        f"`spdf storage claim {info.name} --may removes` lets it remove"
    )


def is_trouble(found: Marker, info: StorageInfo, mine: Ours) -> bool:
    """Whether somebody should hear of it: many may read an input storage, and that is well."""
    if info.role is not StorageRole.INPUT:
        return True
    known = _own(found, mine)
    readers = all(claim.get("may") == May.READS for claim in found.claims)
    return not (known and readers and all(marker.beat_of(c) <= mine.beat for c in known))


def join(catalog: Catalog, driver: StorageDriver, info: StorageInfo) -> None:
    """Have our claim in the marker, beside those of others, as far as we may write it.

    Who comes second only reads. Where another copy of this catalog has a claim nothing is changed:
    that takes a person's word.
    """
    with catalog.read() as session:
        mine = ours(session)

    def joined(found: Marker) -> Marker | None:
        if any(claim.get("catalog") == mine.catalog for claim in found.claims):
            return None
        return found.with_claim(first(mine, info))

    try:
        _change(driver, joined)
    except StorageError as error:
        log.warning("storage not claimed", extra={"storage": info.name, "why": str(error)})


def first(mine: Ours, info: StorageInfo) -> Claim:
    """A catalog's first claim: input storages are the detector's, which we read."""
    may = May.READS if info.role is StorageRole.INPUT else May.REMOVES
    return Claim(mine.catalog, mine.instance, may, mine.beat)


def beat(catalog: Catalog, storage_id: int, driver: StorageDriver) -> None:
    """Have our claim on a storage say that this catalog has come as far as it is now.

    Where the claim says that it has been further already, the catalog is known for rolled back from
    here on. What can't be written is told to the log: reading goes on.
    """
    found = _read(driver)
    with catalog.read() as session:
        info, mine = storages.get(session, storage_id), ours(session)
    if found is None or not _own(found, mine):
        return
    if _note_rollback(catalog, found, mine, info.name):
        return
    with catalog.write() as session:
        number = _next_beat(session, mine)
    if number is None:
        return

    def beaten(there: Marker) -> Marker | None:
        own = _own(there, mine)
        if not own or any(marker.beat_of(claim) >= number for claim in own):
            return None
        return there.with_beat(mine.key, number)

    try:
        _change(driver, beaten)
    except StorageError as error:
        log.warning("claim not renewed", extra={"storage": info.name, "why": str(error)})


def take(
    catalog: Catalog,
    storage_id: int,
    driver: StorageDriver,
    *,
    may: May | None = None,
    over: str | None = None,
) -> str:
    """A person's word: the claim on a storage is this copy of the catalog's, to read or to remove.

    It takes the place of those that earlier copies of it have; by default it may what these might,
    or what a first claim may. Another catalog's right to remove goes `over` to it only where that
    one is named: that one reads from then on. Gives the marker as it has to be placed where we may
    not write it, else nothing. Raises `Conflict` where there is no marker, or another one removes.
    """
    found = _read(driver)
    with catalog.read() as session:
        info, mine = storages.get(session, storage_id), ours(session)
    if found is None or found.format != marker.FORMAT:
        raise Conflict(
            f"storage {info.name!r} has no marker {MARKER} that this program can write a claim "
            f"into; see `spdf storage mark {info.name}`."
        )
    # What it is to be claimed over mustn't be overlooked.
    _note_rollback(catalog, found, mine, info.name)
    reached = [
        marker.beat_of(claim) for claim in found.claims if claim.get("catalog") == mine.catalog
    ]
    with catalog.write() as session:
        mine = ours(session)
        number = _next_beat(session, mine, max(reached, default=0))
    assert number is not None

    def taken(there: Marker) -> Marker | None:
        return _taken(there, info, mine, number, may, over)

    try:
        _change(driver, taken)
    except StorageError as error:
        if error.code is not ErrorCode.STORAGE_DENIED:
            raise
        return (taken(_read(driver) or found) or found).to_bytes().decode()
    return ""


def _taken(
    there: Marker, info: StorageInfo, mine: Ours, number: int, may: May | None, over: str | None
) -> Marker:
    """The marker with a claim that a person gives to this copy of the catalog."""
    same = [claim for claim in there.claims if claim.get("catalog") == mine.catalog]
    others = [claim for claim in there.claims if claim.get("catalog") != mine.catalog]
    removed = any(claim.get("may") != May.READS for claim in same)
    wanted = may or (May.REMOVES if removed or over is not None else None)
    wanted = wanted or (May.READS if same else first(mine, info).may)
    if wanted is May.REMOVES:
        rivals = [claim for claim in others if claim.get("may") != May.READS]
        named = [claim for claim in rivals if claim.get("catalog") == over]
        if len(rivals) > len(named):
            other = next(claim.get("catalog") for claim in rivals if claim not in named)
            raise Conflict(
                f"storage {info.name!r}: catalog {other} may remove there, and only one may; where "
                f"that one is no more, say `--from {other}`; else have it give that up: there "
                "`spdf storage claim NAME --may reads`, or claim it to read, with `--may reads`."
            )
        others = [{**c, "may": May.READS.value} if c in named else c for c in others]
    new = Claim(mine.catalog, mine.instance, wanted, number)
    return there.with_claims((*others, marker.as_written(new)))


def _change(driver: StorageDriver, change: Callable[[Marker], Marker | None]) -> None:
    """Write a marker as it is changed to, over that which was changed; None leaves it as it is.

    Whoever writes it meanwhile is found by that, and it is changed anew.
    """
    for tries in range(1, _TRIES + 1):
        text = driver.read_marker()
        found = None if text is None else _parsed(text)
        new = None if found is None or found.format != marker.FORMAT else change(found)
        if new is None:
            return
        try:
            driver.write_marker(new.to_bytes(), before=text)
            return
        except StorageError as error:
            if error.code is not ErrorCode.OUTPUT_EXISTS or tries == _TRIES:
                raise


def _read(driver: StorageDriver) -> Marker | None:
    text = driver.read_marker()
    return None if text is None else _parsed(text)


def _parsed(text: bytes) -> Marker | None:
    try:
        return marker.read(text)
    except ValueError:
        return None


def _own(found: Marker, mine: Ours) -> list[Mapping[str, Any]]:
    return [claim for claim in found.claims if marker.whose(claim) == mine.key]


def _note_rollback(catalog: Catalog, found: Marker, mine: Ours, storage: str) -> bool:
    """Whether a catalog is behind its own claim, which is written down."""
    if all(marker.beat_of(claim) <= mine.beat for claim in _own(found, mine)):
        return False
    log.warning("this catalog was rolled back", extra={"storage": storage, "beat": mine.beat})
    with catalog.write() as session:
        restores.note_rollback(session)
    return True


def _next_beat(session: Session, mine: Ours, reached: int = 0) -> int | None:
    """A beat that no claim of this copy of the catalog has had; None where it is another by now."""
    beat_ = col(CatalogInfo.beat)
    return session.scalar(
        sa.update(CatalogInfo)
        .where(col(CatalogInfo.instance) == mine.instance)
        .values(beat=sa.case((beat_ < reached, reached), else_=beat_) + 1)
        .returning(beat_),
        execution_options={"synchronize_session": False},
    )
