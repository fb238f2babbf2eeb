"""Verifying: all copies of a file, or of a dataset's files, read and compared with the catalog."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlmodel import Session

from catalog import files, manifests, stamping, standing, usage
from catalog.checksums import algorithm_of
from catalog.db import Catalog
from catalog.drivers import StorageDriver, driver_for
from catalog.errors import ErrorCode, StorageError
from catalog.files import FileInfo, ReplicaInfo
from catalog.models import Replica
from catalog.states import ReplicaState
from catalog.transitions import move

_LOOKED_AT = (ReplicaState.AVAILABLE, ReplicaState.BAD, ReplicaState.MISSING)


@dataclass(frozen=True)
class Verified:
    """A copy as it was found, and the state that it has now."""

    file: str
    storage: str
    path: str
    state: ReplicaState
    found: str
    read: bool = True
    """Whether it could be read, or seen to be missing; its state says nothing new where not."""
    mtime_us: int | None = None
    """The stamp of one that is whole."""

    @property
    def is_whole(self) -> bool:
        """Whether its bytes are the catalog's."""
        return self.read and self.state is ReplicaState.AVAILABLE


def verify(catalog: Catalog, info: FileInfo) -> list[Verified]:
    """Read every copy of a file, and have its row say what was found.

    Raises `StorageError` where a storage is away.
    """
    with catalog.read() as session:
        replicas = [r for r in files.all_replicas(session, info.id) if r.state in _LOOKED_AT]
    # One that nobody has a login for is in the way only where it has a copy.
    drivers = {
        place: driver_for(standing.adopt(catalog, place))
        for place in sorted({replica.storage_id for replica in replicas})
    }
    found = []
    for replica in replicas:
        seen = _look(drivers[replica.storage_id], info, replica)
        is_stamped = seen.mtime_us in (None, replica.mtime_us)
        if seen.state is not replica.state or not is_stamped:
            with catalog.write() as session:
                _change(session, replica.id, replica.state, seen)
        found.append(seen)
    return found


def _look(driver: StorageDriver, info: FileInfo, replica: ReplicaInfo) -> Verified:
    """A copy, and what it should be called."""
    state, told, read, mtime_us = ReplicaState.AVAILABLE, "whole", True, None
    try:
        size_bytes = driver.stat(replica.path).size_bytes
        found = driver.read(replica.path, algorithm_of(info.checksum))
        if (size_bytes, found.checksum) != (info.size_bytes, info.checksum):
            driver.check()
            state, told = ReplicaState.BAD, f"{size_bytes} bytes, {found.checksum}"
        elif found.stamp is not None:
            mtime_us = found.stamp.mtime_us
    except StorageError as error:
        is_missing = error.code is ErrorCode.INPUT_MISSING
        driver.check(marked=is_missing)
        if is_missing:
            state, told = ReplicaState.MISSING, "no bytes are there"
        else:
            # The storage is well: it is this copy's trouble, and no other's.
            state, told, read = replica.state, str(error), False
    return Verified(info.ref, replica.storage, replica.path, state, told, read, mtime_us)


def _change(session: Session, replica_id: int, before: ReplicaState, seen: Verified) -> None:
    if seen.mtime_us is not None:
        stamping.stamp(session, {replica_id: seen.mtime_us})
    if seen.state is before:
        return
    if before is ReplicaState.MISSING:
        usage.back(session, [replica_id])
    moved = move(session, Replica, [replica_id], seen.state, message="found by a verification")
    if seen.state is ReplicaState.MISSING:
        usage.away(session, moved)


def verify_dataset(
    catalog: Catalog, dataset_id: int, *, progress: Callable[[int], None] = lambda _files: None
) -> list[Verified]:
    """Read every copy of every file of a dataset; gives those that aren't whole."""
    wrong: list[Verified] = []
    after: manifests.Cursor | None = None
    while True:
        with catalog.read() as session:
            page = manifests.members(session, dataset_id, after=after, with_replicas=False)
            infos = files.by_ids(session, [member.id for member in page])
        if not page:
            return wrong
        for member in page:
            wrong += [item for item in verify(catalog, infos[member.id]) if not item.is_whole]
        progress(len(page))
        after = page[-1].cursor
