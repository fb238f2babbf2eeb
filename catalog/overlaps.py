"""Storages that share a place: one lies inside another, or both are the same.

Links, bind mounts (of the storages themselves, and of folders below them) and other spellings of a
server's address are seen through, as far as this machine can tell. What a directory that doesn't
answer is, only its path and the mounts tell.
"""

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from catalog import answering
from catalog.errors import BadInput
from catalog.mounts import Mounts
from catalog.places import Place, place_of
from catalog.refs import StorageInfo, StorageKind

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Overlap:
    """What is in the folder `within` of `inner` is what is in the folder `inside` of `outer`.

    A folder "" is all of a storage. Where `within` isn't "", `outer` has its folder by a mount.
    """

    outer: StorageInfo
    inner: StorageInfo
    inside: str
    within: str = ""

    @property
    def words(self) -> str:
        """The two, in words."""
        outer = f"storage {self.outer.name} ({self.outer.url})"
        inner = f"{self.inner.name} ({self.inner.url})"
        if self.outer.name == self.inner.name:
            what = f"its folder {self.within}/" if self.within else "all of itself"
            return f"{outer} has {what} a second time, by a mount: as {self.inside}/"
        if self.within:
            return (
                f"{outer} has a folder of storage {inner}, by a mount: {self.inside}/ is "
                f"{self.within}/ there"
            )
        if not self.inside:
            return f"storages {self.outer.name} ({self.outer.url}) and {inner} are the same place"
        return f"storage {inner} lies inside {outer}, in {self.inside}/"

    def of_inner(self, path: str) -> str | None:
        """Where a path of `outer` is on `inner`; None where it isn't."""
        return _moved(path, self.inside, self.within)

    def of_outer(self, path: str) -> str | None:
        """Where a path of `inner` is on `outer`; None where it isn't."""
        return _moved(path, self.within, self.inside)


def _moved(path: str, before: str, after: str) -> str | None:
    """A path in one folder as it is in another; None where it isn't in it."""
    if before and path != before and not path.startswith(f"{before}/"):
        return None
    return "/".join(part for part in (after, path[len(before) :].lstrip("/")) if part)


def overlaps(storages: Sequence[StorageInfo], *, resolve: bool = False) -> list[Overlap]:
    """All pairs that share a place, and storages that have a folder of theirs twice.

    With `resolve` the names of servers are looked up, too.
    """
    spots = list(zip(storages, _spots(storages), strict=True))
    found = []
    for i, (one, here) in enumerate(spots):
        found += _twice(one, here)
        for other, there in spots[i + 1 :]:
            found += _compare(one, here, other, there, resolve)
    return found


def shared(known: Sequence[StorageInfo]) -> dict[int, list[Overlap]]:
    """The overlaps of each storage that has any, by its id."""
    found: dict[int, list[Overlap]] = {}
    for item in overlaps(known):
        for storage_id in {item.outer.id, item.inner.id}:
            found.setdefault(storage_id, []).append(item)
    return found


def overlap(one: StorageInfo, other: StorageInfo, *, resolve: bool = False) -> Overlap | None:
    """How two storages share a place; None where they don't."""
    here, there = _spots([one, other])
    return next(iter(_compare(one, here, other, there, resolve)), None)


def above(storage: StorageInfo) -> list[str]:
    """The places that a storage lies in: folders above it, or shorter prefixes of its bucket."""
    if storage.kind is StorageKind.LOCAL:
        return [str(folder) for folder in PurePosixPath(os.path.realpath(storage.url)).parents]
    place = place_of(storage.url)
    parts = place.prefix.rstrip("/").split("/") if place.prefix else []
    root = f"{urlsplit(storage.url).scheme}://{place.host}/{place.bucket}"
    return ["/".join([root, *parts[:count]]) for count in range(len(parts))]


def mounted(storage: StorageInfo) -> list[str]:
    """The folders of a storage under which something is mounted."""
    if storage.kind is not StorageKind.LOCAL:
        return []
    root = PurePosixPath(os.path.realpath(storage.url))
    return [_relative(mount.point, root) for mount in Mounts().below(root)]


@dataclass(frozen=True)
class _Part:
    """A folder `at` of a storage that is on one file system, and where it is there."""

    at: str
    device: str
    on_device: PurePosixPath


@dataclass(frozen=True)
class _Folder:
    """A directory: its real path, the file system it is on, and those mounted below it."""

    path: PurePosixPath
    own: _Part
    mounted: Sequence[_Part]
    answers: bool


_Spot = _Folder | Place


def _spots(storages: Sequence[StorageInfo]) -> list[_Spot | None]:
    local = [storage.url for storage in storages if storage.kind is StorageKind.LOCAL]
    hanging = answering.hanging(local)
    mounts = Mounts()
    return [_spot(storage, mounts, storage.url not in hanging) for storage in storages]


def _spot(storage: StorageInfo, mounts: Mounts, answers: bool) -> _Spot | None:
    if storage.kind is StorageKind.LOCAL:
        real = PurePosixPath(os.path.realpath(storage.url) if answers else storage.url)
        below = [
            _Part(_relative(mount.point, real), mount.device, mount.root)
            for mount in mounts.below(real)
        ]
        return _Folder(real, _Part("", *mounts.of(real)), below, answers)
    try:
        return place_of(storage.url)
    except BadInput:
        return None


def _compare(
    one: StorageInfo, here: _Spot | None, other: StorageInfo, there: _Spot | None, resolve: bool
) -> list[Overlap]:
    if isinstance(here, _Folder) and isinstance(there, _Folder):
        whole = _whole(one, here, other, there)
        return [*whole, *_partly(one, here, other, there, whole)]
    if isinstance(here, Place) and isinstance(there, Place) and _same_bucket(here, there, resolve):
        if there.prefix.startswith(here.prefix):
            return [Overlap(one, other, there.prefix[len(here.prefix) :].rstrip("/"))]
        if here.prefix.startswith(there.prefix):
            return [Overlap(other, one, here.prefix[len(there.prefix) :].rstrip("/"))]
    return []


def _whole(one: StorageInfo, here: _Folder, other: StorageInfo, there: _Folder) -> list[Overlap]:
    """Whether all of one directory is in the other."""
    if (inside := _folder_inside(here, there)) is not None:
        return [Overlap(one, other, inside)]
    if (inside := _folder_inside(there, here)) is not None:
        return [Overlap(other, one, inside)]
    return []


def _partly(
    one: StorageInfo,
    here: _Folder,
    other: StorageInfo,
    there: _Folder,
    known: Sequence[Overlap],
) -> list[Overlap]:
    """What two directories share by what is mounted below them, but for what is `known`."""
    found: dict[tuple[int, str, str], Overlap] = {}
    for outer, mine, inner, theirs in ((one, here, other, there), (other, there, one, here)):
        for part in mine.mounted:
            for another in (theirs.own, *theirs.mounted):
                if (folders := _same_part(part, another)) is not None:
                    found[(outer.id, *folders)] = Overlap(outer, inner, *folders)
    return [item for item in found.values() if not any(_says(it, item) for it in known)]


def _twice(storage: StorageInfo, spot: _Spot | None) -> list[Overlap]:
    """Folders of a directory that it has in another place as well, by a mount."""
    if not isinstance(spot, _Folder):
        return []
    found: dict[frozenset[str], Overlap] = {}
    for i, part in enumerate(spot.mounted):
        for another in (spot.own, *spot.mounted[:i]):
            folders = _same_part(part, another)
            if folders is not None and folders[0] != folders[1]:
                found.setdefault(frozenset(folders), Overlap(storage, storage, *folders))
    return list(found.values())


def _same_part(one: _Part, other: _Part) -> tuple[str, str] | None:
    """The folders of the one and of the other that are the same; None where none are."""
    if one.device != other.device:
        return None
    if other.on_device.is_relative_to(one.on_device):
        return _joined(one.at, _relative(other.on_device, one.on_device)), other.at
    if one.on_device.is_relative_to(other.on_device):
        return one.at, _joined(other.at, _relative(one.on_device, other.on_device))
    return None


def _joined(folder: str, inside: str) -> str:
    return "/".join(part for part in (folder, inside) if part)


def _says(known: Overlap, item: Overlap) -> bool:
    """Whether an overlap of two storages says what another one of them does."""
    if known.outer is item.outer:
        return known.of_outer(item.within) == item.inside
    return known.of_outer(item.inside) == item.within


def _folder_inside(outer: _Folder, inner: _Folder) -> str | None:
    """The path of `inner` from `outer`, "" for the same; None where it isn't inside."""
    if inner.path.is_relative_to(outer.path):
        return _relative(inner.path, outer.path)
    mine, its = outer.own, inner.own
    if its.device == mine.device and its.on_device.is_relative_to(mine.on_device):
        return _relative(its.on_device, mine.on_device)
    return _by_inode(outer, inner) if outer.answers and inner.answers else None


def _by_inode(outer: _Folder, inner: _Folder) -> str | None:
    """As `_folder_inside`, where one of the folders above `inner` is `outer` by its inode."""
    try:
        wanted = Path(outer.path).stat()
    except OSError:
        return None
    for folder in (inner.path, *inner.path.parents):
        try:
            if os.path.samestat(Path(folder).stat(), wanted):
                return _relative(inner.path, folder)
        except OSError:
            continue
    return None


def _relative(inner: PurePosixPath, outer: PurePosixPath) -> str:
    inside = inner.relative_to(outer).as_posix()
    return "" if inside == "." else inside


def _same_bucket(one: Place, other: Place, resolve: bool) -> bool:
    if one.bucket != other.bucket:
        return False
    here, there = _address(one), _address(other)
    if here == there:
        return True
    return resolve and here[1] == there[1] and bool(_resolved(here) & _resolved(there))


def _address(place: Place) -> tuple[str, int]:
    scheme = "https" if place.secure else "http"
    parts = urlsplit(f"//{place.host}")
    return (parts.hostname or "").rstrip("."), parts.port or _PORTS[scheme]


def _resolved(address: tuple[str, int]) -> set[str]:
    """What a server's name stands for; nothing where nobody knows."""
    try:
        found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return set()
    return {str(where[4][0]) for where in found}
