"""Bytes from storages to files of the user: copied, verified, and never over other bytes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from catalog.errors import Conflict, ErrorCode, SpdfError, StorageError

if TYPE_CHECKING:
    from catalog.db import Catalog
    from catalog.manifests import MemberInfo
    from catalog.refs import ReplicaRef

_PLACES, _PAGE = 4, 64
_MACHINE = (ErrorCode.NODE_DISK_FULL, ErrorCode.NODE_DISK_FAILED, ErrorCode.NODE_EXHAUSTED)


@dataclass(frozen=True)
class Wanted:
    """A file to be had: its name for messages, where its bytes are, and what they must be."""

    name: str
    size_bytes: int
    checksum: str
    replicas: Sequence["ReplicaRef"]


class Reader:
    """Reads the bytes of the catalog's files."""

    def __init__(self, catalog: "Catalog") -> None:
        from catalog import storages
        from catalog.drivers import Drivers

        self._catalog = catalog
        with catalog.read() as session:
            self._drivers = Drivers(storages.list_all(session))

    def fetch(self, wanted: Wanted, target: Path) -> bool:
        """Copy a file's verified bytes to `target`; False where they are there already.

        Raises `Conflict` where other bytes are there, `StorageError` where none can be had.
        """
        if target.exists():
            if _fault(wanted, target) is None:
                return False
            raise _taken(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        fault: StorageError | None = None
        for replica in wanted.replicas:
            try:
                return self._copy(wanted, replica, target)
            except StorageError as error:
                fault = error
        raise fault or _nowhere(wanted)

    def _copy(self, wanted: Wanted, replica: "ReplicaRef", target: Path) -> bool:
        """As `fetch`, of one replica; others may do the same at the same time."""
        from catalog.checksums import algorithm_of
        from catalog.drivers.posix import partial_name, publish

        partial = target.with_name(partial_name())
        try:
            driver = self._drivers[replica.storage_id]
            checksum = driver.get(replica.path, partial, checksum=algorithm_of(wanted.checksum))
            wrong = _size_fault(wanted, partial) or _checksum_fault(wanted, checksum)
            if wrong is not None:
                where = driver.local_path(replica.path) or replica.path
                raise StorageError(
                    ErrorCode.INPUT_CORRUPT, f"file {wanted.name} is corrupt at {where}: {wrong}."
                )
            publish(partial, target)
            return True
        except FileExistsError as error:
            if target.exists() and _fault(wanted, target) is None:
                return False
            raise _taken(target) from error
        finally:
            partial.unlink(missing_ok=True)

    def open(self, wanted: Wanted) -> BinaryIO:
        """The bytes of a file's first replica that can be read; raises `StorageError`."""
        fault: StorageError | None = None
        for replica in wanted.replicas:
            try:
                return self._drivers[replica.storage_id].open(replica.path)
            except StorageError as error:
                fault = error
        raise fault or _nowhere(wanted)


def _taken(target: Path) -> Conflict:
    return Conflict(f"{target} is there with other bytes; move it away.")


def _nowhere(wanted: Wanted) -> StorageError:
    return StorageError(
        ErrorCode.INPUT_MISSING,
        f"file {wanted.name} is AVAILABLE on no storage; `spdf file show` tells where it was.",
    )


def _fault(wanted: Wanted, path: Path) -> str | None:
    """What is wrong with the bytes at `path`; None if nothing is."""
    from catalog.checksums import algorithm_of, file_checksum

    return _size_fault(wanted, path) or _checksum_fault(
        wanted, file_checksum(path, algorithm_of(wanted.checksum))
    )


def _size_fault(wanted: Wanted, path: Path) -> str | None:
    found = path.stat().st_size
    return None if found == wanted.size_bytes else f"it has {found} bytes, not {wanted.size_bytes}"


def _checksum_fault(wanted: Wanted, found: str | None) -> str | None:
    return None if found == wanted.checksum else f"its checksum is {found}, not {wanted.checksum}"


def members(
    catalog: "Catalog", dataset_id: int, *, with_replicas: bool = True
) -> Iterator["MemberInfo"]:
    """Every file of a dataset in its order, each page read in a short transaction of its own."""
    from catalog import manifests

    after = None
    while True:
        with catalog.read() as session:
            page = manifests.members(
                session,
                dataset_id,
                after=after,
                limit=manifests.PAGE,
                with_replicas=with_replicas,
            )
        if not page:
            return
        yield from page
        after = page[-1].cursor


@dataclass(frozen=True)
class Fetched:
    """A file of a dataset, at its path; `fault` says why it isn't there, `new` if it was not."""

    member: "MemberInfo"
    path: Path
    new: bool = False
    fault: SpdfError | None = None


def fetch_dataset(catalog: "Catalog", dataset_id: int, folder: Path) -> Iterator[Fetched]:
    """Copy every file of a dataset to its name below `folder`; one that can't be stops no other.

    Raises `StorageError` where this machine can't take any, or no storage gives one.
    """
    from catalog import tries
    from catalog.tries import Places

    reader = Reader(catalog)

    def fetch(member: "MemberInfo") -> Fetched:
        wanted = Wanted(member.name, member.size_bytes, member.checksum, member.replicas)
        target = folder / member.name
        try:
            new = tries.again(lambda: reader.fetch(wanted, target), tries.may_be_back, tries.OUTAGE)
            return Fetched(member, target, new)
        except SpdfError as error:
            if isinstance(error, StorageError) and error.code in _MACHINE:
                raise
            return Fetched(member, target, fault=error)

    found = members(catalog, dataset_id)
    with Places(_PLACES, "get") as pool:
        while page := list(islice(found, _PAGE)):
            done = list(pool.map(fetch, page))
            yield from done
            faults = [one.fault for one in done if one.fault is not None]
            if len(faults) == len(page) and all(map(tries.may_be_back, faults)):
                raise faults[0]
