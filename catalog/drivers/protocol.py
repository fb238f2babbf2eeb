"""What every storage can do, whatever holds its bytes."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol

from catalog.errors import StorageError


@dataclass(frozen=True)
class Stored:
    """What a `put` stored; `checksum` is `algorithm:hex`, None where it wasn't asked for."""

    size_bytes: int
    checksum: str | None


@dataclass(frozen=True)
class ObjectInfo:
    """A thing on a storage, as the storage itself tells it; `path` is relative to the storage."""

    path: str
    size_bytes: int
    mtime: datetime


class StorageDriver(Protocol):
    """A storage's bytes. Paths are relative, with `/`, as `catalog.names.check_path` allows.

    Every method raises `StorageError`: `STORAGE_UNAVAILABLE` where the storage as a whole can't be
    reached, `INPUT_MISSING` where a path has no bytes, `STORAGE_FULL`, `OUTPUT_EXISTS`.
    """

    def put(
        self,
        source: Path,
        path: str,
        *,
        checksum: str | None = None,
        move: bool = False,
        sync: bool = True,
    ) -> Stored:
        """Store the bytes of a local file under `path`, whole or not at all, never over others.

        `checksum` is the algorithm of a checksum to be computed in the same read. With `move` the
        source is gone afterwards (and no byte is copied where the storage can take it over).
        Without `sync` a power cut may lose it until `sync` was called for its path.
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

    def open(self, path: str) -> BinaryIO:
        """The bytes under `path`, to be read from the start."""
        ...

    def delete(self, path: str) -> bool:
        """Remove the bytes under `path`; False where there were none."""
        ...

    def delete_many(self, paths: Iterable[str]) -> dict[str, StorageError]:
        """Remove the bytes under `paths`, in few steps; gives why those stay that do, by path."""
        ...

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All things whose path begins with `prefix`, in no order, one by one."""
        ...

    def stat(self, path: str) -> ObjectInfo:
        """Size and time of what is under `path`."""
        ...

    def checksum(self, path: str, algorithm: str) -> str:
        """`algorithm:hex` of the bytes under `path`, read anew."""
        ...

    def local_path(self, path: str) -> Path | None:
        """Where the bytes lie in this machine's file tree; None on a remote storage."""
        ...
