"""What every storage can do, whatever holds its bytes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, Protocol

from catalog.errors import StorageError
from catalog.stamps import Reading, Stamp, micros

Unread = Callable[[str, StorageError], None]
"""Hears of a folder or a file that a listing can't look at, and why."""

Passed = Callable[[str, str], None]
"""Hears of a thing that is no file, and what it is: a symbolic link, a socket."""


@dataclass(frozen=True)
class Stored:
    """What a `put` stored; `checksum` is `algorithm:hex`, None where it wasn't asked for.

    With it comes a stamp, where the storage tells it without being asked once more.
    """

    size_bytes: int
    checksum: str | None
    stamp: Stamp | None = None


@dataclass(frozen=True)
class ObjectInfo:
    """A thing on a storage, as the storage itself tells it; `path` is relative to the storage.

    `mtime` is between the years 1 and 9999, whatever the storage says. `inode` is 0 where the
    storage has none; it tells two looks of one moment apart, and is kept nowhere.
    """

    path: str
    size_bytes: int
    mtime: datetime
    inode: int = 0

    @property
    def stamp(self) -> Stamp:
        """What is kept of it."""
        return Stamp(self.size_bytes, micros(self.mtime))


NOTHING_SEEN: Mapping[str, ObjectInfo] = MappingProxyType({})


class StorageDriver(Protocol):
    """A storage's bytes. Paths are relative, with `/`, as `catalog.names.check_path` allows.

    Every method raises `StorageError`: `STORAGE_UNAVAILABLE` where the storage as a whole can't be
    reached or isn't the one that it was (by its marker), `INPUT_MISSING` where a path has no bytes,
    `STORAGE_FULL`, `OUTPUT_EXISTS`. Where no more is known than that a path could not be read or
    written, the code is an outage's, and the error is `of_path`.
    """

    shared: bool
    """Whether another storage is known to have a part of its place; set by who knows them all."""

    def check(self, *, marked: bool = False) -> None:
        """Raise `StorageError` where the storage is away: not to be reached, or not itself.

        One that has no marker yet passes, unless it must be `marked`: only then it is known that
        what isn't there is gone.
        """
        ...

    def read_marker(self, folder: str = "") -> bytes | None:
        """The marker at the storage's root, or in a folder of it; None where there is none."""
        ...

    def write_marker(self, text: bytes, *, before: bytes | None = None) -> None:
        """Write a marker where there is none, or in the place of the one that says `before`.

        Raises `StorageError`: `OUTPUT_EXISTS` where another is there by now, `STORAGE_DENIED` where
        we may not write.
        """
        ...

    def put(
        self,
        source: Path,
        path: str,
        *,
        checksum: str | None = None,
        move: bool = False,
        keep: bool = False,
        sync: bool = True,
    ) -> Stored:
        """Store the bytes of a local file under `path`, whole or not at all, never over others.

        `checksum` is the algorithm of a checksum to be computed in the same read. With `move` the
        source is gone afterwards (and no byte is copied where the storage can take it over); with
        `keep` too it stays, to be read and then removed, and nothing may write to it any more.
        Without `sync` a power cut may lose it until `sync` was called for its path.
        """
        ...

    def put_again(self, held: str, path: str) -> bool:
        """Have what was just put under `held` under `path` too, without a copy of the bytes.

        False where that can't be: `put` it. Either may be deleted alone. There is no sync.
        """
        ...

    def sync(self, paths: Sequence[str]) -> dict[str, StorageError]:
        """Have what was put under these paths where no power cut can lose it.

        Gives what is lost, by path: put it anew, under another one.
        """
        ...

    def get(
        self, path: str, target: Path, *, checksum: str | None = None, link: bool = False
    ) -> str | None:
        """Make `target`, which must not exist: a copy, or with `link` a link where possible.

        `checksum` is the algorithm of a checksum to be computed of the bytes as they come: gives
        `algorithm:hex`, None where it wasn't asked for.
        """
        ...

    def fetch(self, path: str, target: Path, algorithm: str) -> Reading:
        """As `get` of a copy with a checksum; gives the stamp of what was read, too."""
        ...

    def open(self, path: str) -> BinaryIO:
        """The bytes under `path`, to be read from the start."""
        ...

    def delete(self, path: str) -> bool:
        """Remove the bytes under `path`; False where there were none."""
        ...

    def delete_many(
        self, paths: Iterable[str], seen: Mapping[str, ObjectInfo] = NOTHING_SEEN
    ) -> dict[str, StorageError]:
        """Remove the bytes under `paths`, in few steps; gives why those stay that do, by path.

        Of those that were `seen` only what is that still goes: else it is `OtherBytes`.
        """
        ...

    def sweep(self, is_ours: Callable[[str], bool], age_s: float) -> int:
        """Remove empty folders whose path `is_ours` and that are so old; gives how many.

        None of the first level. On a remote storage there are no folders.
        """
        ...

    def list(
        self, prefix: str = "", *, unread: Unread | None = None, passed: Passed | None = None
    ) -> Iterator[ObjectInfo]:
        """All things whose path begins with `prefix`, in no order, one by one; no markers.

        What can't be looked at is told to `unread`, else to the log; what is no file to `passed`.
        The rest goes on.
        """
        ...

    def stat(self, path: str) -> ObjectInfo:
        """Size and time of what is under `path`."""
        ...

    def checksum(self, path: str, algorithm: str) -> str:
        """`algorithm:hex` of the bytes under `path`, read anew."""
        ...

    def read(self, path: str, algorithm: str) -> Reading:
        """As `checksum`, with the stamp of what was read."""
        ...

    def local_path(self, path: str) -> Path | None:
        """Where the bytes lie in this machine's file tree; None on a remote storage."""
        ...
