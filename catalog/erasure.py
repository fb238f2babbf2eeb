"""Erasing bytes: all that is ever removed from a storage goes through here.

Nothing is removed from a storage that isn't itself, or where this catalog has no claim to remove,
nothing without a person's word while nothing may go by itself, nothing that lies on another storage
as well, and nothing that a row of another storage names.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePath

import sqlalchemy as sa
from sqlmodel import col

from catalog import answering, claims, storages
from catalog.db import Catalog
from catalog.drivers import NOTHING_SEEN, ObjectInfo, StorageDriver
from catalog.errors import ErrorCode, OtherBytes, StorageError
from catalog.models import Replica
from catalog.overlaps import shared
from catalog.refs import StorageInfo, StorageKind
from catalog.rowsets import among
from catalog.states import ReplicaState

_MOST_FOLDERS = 10_000
"""Folders that are remembered at once."""


def erase(
    catalog: Catalog,
    storage_id: int,
    driver: StorageDriver,
    paths: Iterable[str],
    seen: Mapping[str, ObjectInfo] = NOTHING_SEEN,
    *,
    asked: bool = False,
) -> dict[str, StorageError]:
    """Remove what is under `paths` of a storage; gives why those stay that do, by path.

    Rows of the storage itself that name them are the caller's to look at, and so is what lies
    there: of what the caller has `seen` nothing goes that has changed since, which is `OtherBytes`,
    as are a link, a folder, and what a link leads to outside of the storage.
    What isn't there counts as gone: the storage is itself. Where nothing may go by itself (see
    `leave`) only that goes which a person has `asked` for.
    """
    wanted = list(dict.fromkeys(paths))
    if not wanted:
        return {}
    try:
        driver.check(marked=True)
        claims.require(catalog, storage_id, driver)
        if not asked:
            claims.require_leave(catalog, storage_id)
    except StorageError as error:
        return dict.fromkeys(wanted, error)
    kept = others(catalog, storage_id, wanted)
    free = [path for path in wanted if path not in kept]
    return kept | driver.delete_many(free, seen)


def others(catalog: Catalog, storage_id: int, paths: Sequence[str]) -> dict[str, StorageError]:
    """Why paths of a storage must stay for another storage's sake, or another row's."""
    if not paths:
        return {}
    with catalog.read() as session:
        known = storages.list_all(session)
    (mine,) = (info for info in known if info.id == storage_id)
    kept, real = _through_links(catalog, known, mine, paths)
    for found in shared(known).get(storage_id, ()):
        if found.outer.id == found.inner.id:
            for again in (found.of_inner, found.of_outer):
                kept |= _at_a_file(catalog, mine, {p: again(place) for p, place in real.items()})
        elif found.outer.id == storage_id:
            kept |= {
                path: _stays(path, mine, f"it lies on storage {found.inner.name}, too")
                for path, place in real.items()
                if found.of_inner(place) is not None
            }
        elif not found.inside:
            kept |= {
                path: _stays(path, mine, f"it lies on storage {found.outer.name}, too")
                for path in paths
            }
        else:
            there = {path: found.of_outer(place) for path, place in real.items()}
            named = _named(catalog, found.outer.id, there)
            kept |= {
                path: _stays(path, mine, f"storage {found.outer.name} has a file there")
                for path, place in there.items()
                if place in named
            }
    return kept


def _through_links(
    catalog: Catalog, known: Sequence[StorageInfo], mine: StorageInfo, paths: Sequence[str]
) -> tuple[dict[str, StorageError], dict[str, str]]:
    """Paths in folders that are links: out of the storage, or to where a row names a file.

    And of each path that isn't out of it the one that it is, whatever links lead there.
    """
    real = {path: path for path in paths}
    if mine.kind is not StorageKind.LOCAL:
        return {}, real
    root = PurePath(os.path.realpath(mine.url))
    others = [i for i in known if i.kind is StorageKind.LOCAL and i.id != mine.id]
    hanging = answering.hanging(info.url for info in others)
    roots = [(i, PurePath(os.path.realpath(i.url))) for i in others if i.url not in hanging]
    unknown = [info for info in others if info.url in hanging]
    kept: dict[str, StorageError] = {}
    plain = {folder: root / folder for folder in {path.rpartition("/")[0] for path in paths}}
    unsure = {f: info for f in plain if (info := _may_lead_to(unknown, mine, f)) is not None}
    linked = {f: PurePath(os.path.realpath(p)) for f, p in plain.items() if f not in unsure}
    for path in paths:
        folder, _, name = path.rpartition("/")
        if folder in unsure:
            kept[path] = _stays(path, mine, f"storage {unsure[folder].name} may have it, and hangs")
            continue
        if linked[folder] == plain[folder]:
            continue
        place = linked[folder] / name
        for info, other in roots:
            if place.is_relative_to(other):
                kept[path] = _stays(path, mine, f"it lies on storage {info.name}, too")
        if place.is_relative_to(root):
            real[path] = place.relative_to(root).as_posix()
        elif path not in kept:
            what = f"its folder is a link now, to {place.parent} outside of the storage"
            kept[path] = OtherBytes(mine.name, path, what)
    led = {path: place for path, place in real.items() if place != path}
    return _at_a_file(catalog, mine, led) | kept, real


def _may_lead_to(
    hanging: Sequence[StorageInfo], mine: StorageInfo, folder: str
) -> StorageInfo | None:
    """One of the storages that hang on which a folder may lie: by its path, or behind a link."""
    if not hanging:
        return None
    places = {Path(info.url): info for info in hanging}
    place = Path(mine.url)
    for part in PurePath(folder).parts:
        place /= part
        # Who looks at the place of one that hangs does so, too.
        if place in places:
            return places[place]
        if place.is_symlink():
            return hanging[0]
    return None


def elsewhere(driver: StorageDriver) -> Callable[[str], str | None]:
    """Tells of a path the folder above it that is another storage's root, by its marker.

    Such a storage may be one of another catalog, which this one knows nothing of.
    """
    known: dict[str, str | None] = {"": None}

    def root_of(folder: str) -> str | None:
        if folder not in known:
            above = root_of(folder.rpartition("/")[0])
            if len(known) > _MOST_FOLDERS:
                known.clear()
                known[""] = None
            known[folder] = above or (folder if has_marker(folder) else None)
        return known[folder]

    def has_marker(folder: str) -> bool:
        try:
            return driver.read_marker(folder) is not None
        except StorageError:
            # A folder that nobody may look into may be anybody's.
            driver.check()
            return True

    return lambda path: root_of(path.rpartition("/")[0])


def _at_a_file(
    catalog: Catalog, mine: StorageInfo, places: Mapping[str, str | None]
) -> dict[str, StorageError]:
    """Paths of a storage that are another place of it as well, which a row of it names."""
    named = _named(catalog, mine.id, places)
    return {
        path: _stays(path, mine, f"it is {place}, too, which is a file's place")
        for path, place in places.items()
        if place in named
    }


def _named(catalog: Catalog, storage_id: int, places: Mapping[str, str | None]) -> set[str]:
    """Those places on a storage, by the paths that they are asked for, that rows name."""
    wanted = sorted({place for place in places.values() if place is not None})
    if not wanted:
        return set()
    with catalog.read() as session:
        query = sa.select(col(Replica.path)).where(
            col(Replica.storage_id) == storage_id,
            among(session, col(Replica.path), wanted),
            col(Replica.state) != ReplicaState.DELETED,
        )
        return set(session.scalars(query))


def _stays(path: str, storage: StorageInfo, why: str) -> StorageError:
    return StorageError(
        ErrorCode.STORAGE_DENIED,
        f"storage {storage.name!r}: {path!r} is not removed: {why}; see `spdf storage list`.",
    )
