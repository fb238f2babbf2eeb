"""Where a new storage may lie: nowhere that one of the catalog's is, or has a part of."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from catalog import answering, storages
from catalog.db import Catalog
from catalog.drivers import driver_for, marker
from catalog.errors import Conflict, ErrorCode, StorageError
from catalog.names import MARKER
from catalog.overlaps import above, mounted
from catalog.places import place_of
from catalog.refs import StorageInfo, StorageKind


def refuse_taken(catalog: Catalog, new: StorageInfo) -> None:
    """Raise `Conflict` where the place of a new storage is one that the catalog has, or overlaps.

    Raises `StorageError` where it, or one of those that it may overlap, doesn't answer.

    Other names of a server, or of a directory of one, are known by the markers that lie there.
    """
    with catalog.read() as session:
        known = [info for info in storages.list_all(session) if info.name != new.name]
    for one in [new, *known]:
        if new.kind is one.kind is StorageKind.LOCAL:
            answering.require(one.name, one.url)
    storages.refuse_overlap(new, known, resolve=True)
    ours = {info.identity: info for info in known if info.identity is not None}
    for place, info in _markers_around(new, known):
        if info in ours:
            raise Conflict(
                f"{place} is storage {ours[info].name!r} already, by the marker {MARKER} that lies "
                f"there; bytes of the one would be the other's, too. Give {new.name!r} a place of "
                "its own."
            )


def _markers_around(new: StorageInfo, known: Sequence[StorageInfo]) -> Iterator[tuple[str, str]]:
    """Markers at a place, above it, at mounts and where known storages of its bucket lie in it."""
    for url in [new.url, *above(new)]:
        if (identity := _identity_at(replace(new, url=url), "")) is not None:
            yield url, identity
    below = {f"{new.url}/{folder}": folder for folder in mounted(new)}
    hanging = answering.hanging(below)
    for url, folder in below.items():
        if url not in hanging and (identity := _identity_at(new, folder)) is not None:
            yield url, identity
    for other in known:
        if new.kind is other.kind is StorageKind.S3:
            here, there = place_of(new.url), place_of(other.url)
            inside = there.prefix.removeprefix(here.prefix).strip("/")
            if here.bucket != there.bucket or not there.prefix.startswith(here.prefix):
                continue
            if inside and (identity := _identity_at(new, inside)) is not None:
                yield f"{new.url}/{inside}", identity


def _identity_at(info: StorageInfo, folder: str) -> str | None:
    """The id of the marker in a folder; None where there is none to be had."""
    try:
        text = driver_for(replace(info, identity=None)).read_marker(folder)
        return None if text is None else marker.read(text).storage
    except (StorageError, ValueError):
        return None


def move(catalog: Catalog, name: str, url: str) -> StorageInfo:
    """A storage lies at another place from now on, where its owner has brought all of it.

    Its marker there proves it. Raises `StorageError` where it isn't there, `Conflict` where the
    place is another storage's or has a part of one, `BadInput` for what can't be its place.
    """
    with catalog.read() as session:
        before = storages.by_name(session, name)
    url = storages.place_for(before.kind, name, url)
    new = replace(before, url=url)
    refuse_taken(catalog, new)
    _require_itself(new)
    with catalog.write() as session:
        storages.relocate(session, before.id, before.url, url)
        return storages.get(session, before.id)


def _require_itself(new: StorageInfo) -> None:
    """Raise `StorageError` where a storage that was brought to a place isn't all there."""
    if driver_for(replace(new, identity=None)).read_marker("") is None:
        raise StorageError(
            ErrorCode.STORAGE_UNAVAILABLE,
            f"storage {new.name!r} can't be moved to {new.url}: its marker {MARKER} isn't there; "
            "bring all of it there first, with that file, which begins with a dot.",
        )
    driver_for(new).check(marked=True)
