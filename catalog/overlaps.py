"""Storages that share a place: one lies inside another, or both are the same.

Links, bind mounts and other spellings of a server's address are seen through, as far as this
machine can tell. What a directory that doesn't answer is, only its path and the mounts tell.
"""

import os
import re
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from catalog import answering
from catalog.errors import BadInput
from catalog.places import Place, place_of
from catalog.refs import StorageInfo, StorageKind

_PORTS = {"http": 80, "https": 443}
_MOUNTS = Path("/proc/self/mountinfo")
_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Overlap:
    """What lies on `inner` lies in the folder `inside` of `outer`; where it is "" they are one."""

    outer: StorageInfo
    inner: StorageInfo
    inside: str

    @property
    def words(self) -> str:
        """The two, in words."""
        if not self.inside:
            return (
                f"storages {self.outer.name} ({self.outer.url}) and {self.inner.name} "
                f"({self.inner.url}) are the same place"
            )
        return (
            f"storage {self.inner.name} ({self.inner.url}) lies inside storage {self.outer.name} "
            f"({self.outer.url}), in {self.inside}/"
        )

    def of_inner(self, path: str) -> str | None:
        """Where a path of `outer` is on `inner`; None where it isn't."""
        if not self.inside:
            return path
        return path[len(self.inside) + 1 :] if path.startswith(f"{self.inside}/") else None

    def of_outer(self, path: str) -> str:
        """Where a path of `inner` is on `outer`."""
        return f"{self.inside}/{path}" if self.inside else path


def overlaps(storages: Sequence[StorageInfo], *, resolve: bool = False) -> list[Overlap]:
    """All pairs that share a place; with `resolve` the names of servers are looked up, too."""
    spots = list(zip(storages, _spots(storages), strict=True))
    return [
        found
        for i, (one, here) in enumerate(spots)
        for other, there in spots[i + 1 :]
        if (found := _compare(one, here, other, there, resolve)) is not None
    ]


def shared(known: Sequence[StorageInfo]) -> dict[int, list[Overlap]]:
    """The overlaps of each storage that has any, by its id."""
    found: dict[int, list[Overlap]] = {}
    for item in overlaps(known):
        for storage in (item.outer, item.inner):
            found.setdefault(storage.id, []).append(item)
    return found


def overlap(one: StorageInfo, other: StorageInfo, *, resolve: bool = False) -> Overlap | None:
    """How two storages share a place; None where they don't."""
    here, there = _spots([one, other])
    return _compare(one, here, other, there, resolve)


def above(storage: StorageInfo) -> list[str]:
    """The places that a storage lies in: folders above it, or shorter prefixes of its bucket."""
    if storage.kind is StorageKind.LOCAL:
        return [str(folder) for folder in PurePosixPath(os.path.realpath(storage.url)).parents]
    place = place_of(storage.url)
    parts = place.prefix.rstrip("/").split("/") if place.prefix else []
    root = f"{urlsplit(storage.url).scheme}://{place.host}/{place.bucket}"
    return ["/".join([root, *parts[:count]]) for count in range(len(parts))]


@dataclass(frozen=True)
class _Folder:
    """A directory: its real path, and where that is on its file system, whatever is mounted how."""

    path: PurePosixPath
    device: str
    on_device: PurePosixPath
    answers: bool


_Spot = _Folder | Place


def _spots(storages: Sequence[StorageInfo]) -> list[_Spot | None]:
    local = [storage.url for storage in storages if storage.kind is StorageKind.LOCAL]
    hanging = answering.hanging(local)
    return [_spot(storage, storage.url not in hanging) for storage in storages]


def _spot(storage: StorageInfo, answers: bool) -> _Spot | None:
    if storage.kind is StorageKind.LOCAL:
        return _folder(os.path.realpath(storage.url) if answers else storage.url, answers)
    try:
        return place_of(storage.url)
    except BadInput:
        return None


def _compare(
    one: StorageInfo, here: _Spot | None, other: StorageInfo, there: _Spot | None, resolve: bool
) -> Overlap | None:
    if isinstance(here, _Folder) and isinstance(there, _Folder):
        if (inside := _folder_inside(here, there)) is not None:
            return Overlap(one, other, inside)
        if (inside := _folder_inside(there, here)) is not None:
            return Overlap(other, one, inside)
    if isinstance(here, Place) and isinstance(there, Place) and _same_bucket(here, there, resolve):
        if there.prefix.startswith(here.prefix):
            return Overlap(one, other, there.prefix[len(here.prefix) :].rstrip("/"))
        if here.prefix.startswith(there.prefix):
            return Overlap(other, one, here.prefix[len(there.prefix) :].rstrip("/"))
    return None


def _folder_inside(outer: _Folder, inner: _Folder) -> str | None:
    """The path of `inner` from `outer`, "" for the same; None where it isn't inside."""
    if inner.path.is_relative_to(outer.path):
        return _relative(inner.path, outer.path)
    if inner.device == outer.device and inner.on_device.is_relative_to(outer.on_device):
        return _relative(inner.on_device, outer.on_device)
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


def _folder(path: str, answers: bool) -> _Folder:
    """Where a directory lies; the last of the mounts that hold it is the one that is seen."""
    real = PurePosixPath(path)
    found = ("", PurePosixPath("/"), PurePosixPath("/"))
    for device, root, point in _mounts():
        if real.is_relative_to(point) and len(point.parts) >= len(found[2].parts):
            found = (device, root, point)
    device, root, point = found
    return _Folder(real, device, root / real.relative_to(point), answers)


def _mounts() -> Iterator[tuple[str, PurePosixPath, PurePosixPath]]:
    """Device, the folder of it that is mounted, and where: see proc_pid_mountinfo(5)."""
    try:
        lines = _MOUNTS.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        _, _, device, root, point, *_ = line.split(" ")
        yield device, PurePosixPath(_plain(root)), PurePosixPath(_plain(point))


def _plain(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), text)


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
