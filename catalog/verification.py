"""Verifying: all copies of a file, or of a dataset's files, read and compared with the catalog."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from sqlmodel import Session

from catalog import files, manifests, stamping, standing, tries, usage
from catalog.checksums import algorithm_of
from catalog.db import Catalog
from catalog.drivers import StorageDriver, driver_for
from catalog.errors import ErrorCode, StorageError
from catalog.files import FileInfo, ReplicaInfo
from catalog.models import Replica
from catalog.states import ReplicaState
from catalog.transitions import move
from catalog.tries import Places

PAGE = 500
THREADS = 4
_ROUNDS = 5
"""So often a page's copies are come back to, on a storage that is away again and again."""
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
    away: bool = False
    """Whether it could not be read for its storage, which was away."""

    @property
    def is_whole(self) -> bool:
        """Whether its bytes are the catalog's."""
        return self.read and self.state is ReplicaState.AVAILABLE


def verify(catalog: Catalog, info: FileInfo) -> list[Verified]:
    """Read every copy of a file, and have its row say what was found.

    Raises `StorageError` where a storage is away.
    """
    return _Verification(catalog).look(info)


@dataclass
class _Verification:
    """Copies of files, read and noted; each storage is looked up once."""

    catalog: Catalog
    away: dict[int, StorageError] = field(default_factory=dict)
    """Storages that were waited for in vain, until one of them is asked again."""
    _drivers: dict[int, StorageDriver] = field(default_factory=dict)

    def driver(self, storage_id: int) -> StorageDriver:
        """The way to a storage; one that nobody has a login for is in nobody else's.

        Under no lock: to adopt a storage is to ask it, and who waits for its next try needs a place
        afterwards, which those have who would wait for the lock.
        """
        if storage_id not in self._drivers:
            made = driver_for(standing.adopt(self.catalog, storage_id))
            self._drivers.setdefault(storage_id, made)
        return self._drivers[storage_id]

    def copies(self, info: FileInfo) -> list[ReplicaInfo]:
        """Those that are to be read."""
        with self.catalog.read() as session:
            found = files.all_replicas(session, info.id)
        return [replica for replica in found if replica.state in _LOOKED_AT]

    def look(self, info: FileInfo) -> list[Verified]:
        """All copies of a file; raises `StorageError` where a storage is away."""
        copies = self.copies(info)
        for storage_id in sorted({replica.storage_id for replica in copies}):
            self.driver(storage_id)
        return [self.one(info, replica) for replica in copies]

    def one(self, info: FileInfo, replica: ReplicaInfo) -> Verified:
        """One copy; raises `StorageError` where its storage is away."""
        seen = _look(self.driver(replica.storage_id), info, replica)
        is_stamped = seen.mtime_us in (None, replica.mtime_us)
        if seen.state is not replica.state or not is_stamped:
            with self.catalog.write() as session:
                _change(session, replica.id, replica.state, seen)
        return seen

    def page(self, infos: Sequence[FileInfo], pool: Places) -> list[Verified]:
        """All copies of these files; those on a storage that stays away are named as not read."""
        copies = pool.map(self.copies, infos)
        left = [(info, r) for info, found in zip(infos, copies, strict=True) for r in found]
        done: dict[int, Verified] = {}
        order = [replica.id for _, replica in left]
        for number in range(_ROUNDS):
            found = list(pool.map(lambda one: self._try(*one), left))
            out = [i for i, seen in enumerate(found) if isinstance(seen, StorageError)]
            done |= {
                replica.id: seen
                for (_, replica), seen in zip(left, found, strict=True)
                if isinstance(seen, Verified)
            }
            left = [left[i] for i in out]
            back = self._wait({replica.storage_id for _, replica in left})
            for (info, replica), i in zip(left, out, strict=True):
                if replica.storage_id not in back or number == _ROUNDS - 1:
                    why = self.away.get(replica.storage_id) or found[i]
                    done[replica.id] = _unread(info, replica, why)
            left = [one for one in left if one[1].id not in done]
            if not left:
                break
        return [done[replica_id] for replica_id in order]

    def _try(self, info: FileInfo, replica: ReplicaInfo) -> Verified | StorageError:
        if (fault := self.away.get(replica.storage_id)) is not None:
            return fault
        try:
            return self.one(info, replica)
        except StorageError as error:
            return error

    def _wait(self, storages: Collection[int]) -> set[int]:
        """Those of the storages that are back; each is waited for once, then asked at each page."""
        back = set()
        for storage_id in storages:
            pace = tries.ONCE if storage_id in self.away else tries.OUTAGE
            try:
                tries.again(self._checked(storage_id), tries.may_be_back, pace)
                self.away.pop(storage_id, None)
                back.add(storage_id)
            except StorageError as error:
                self.away[storage_id] = error
        return back

    def _checked(self, storage_id: int) -> Callable[[], None]:
        return lambda: self.driver(storage_id).check()


def _unread(info: FileInfo, replica: ReplicaInfo, why: object) -> Verified:
    return Verified(
        info.ref, replica.storage, replica.path, replica.state, str(why), read=False, away=True
    )


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
    catalog: Catalog,
    dataset_id: int,
    *,
    progress: Callable[[int], None] = lambda _files: None,
    places: int = THREADS,
) -> list[Verified]:
    """Read every copy of every file of a dataset; gives those that aren't whole.

    What can't be read keeps nothing else from it, not even a storage that is away.
    """
    wrong: list[Verified] = []
    after: manifests.Cursor | None = None
    verification = _Verification(catalog)
    with Places(places, "verify") as pool:
        while True:
            with catalog.read() as session:
                page = manifests.members(
                    session, dataset_id, after=after, limit=PAGE, with_replicas=False
                )
                infos = files.by_ids(session, [member.id for member in page])
            if not page:
                return wrong
            found = verification.page([infos[member.id] for member in page], pool)
            wrong += [item for item in found if not item.is_whole]
            progress(len(page))
            after = page[-1].cursor
