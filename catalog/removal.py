"""Removal of copies: they are DELETING, then their bytes go, then it is noted that they are gone.

Originals (see `originals`) are looked at first, and so are copies whose bytes weren't seen under
their path when they became DELETING: what lies there may be other bytes, which nobody asked to
remove. Originals that don't go are detached. Who dies in between leaves DELETING rows, which the
next run ends.
"""

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import detached, erasure, leftovers, standing, storages, usage
from catalog.bulk import chunks
from catalog.db import Catalog
from catalog.deletionfaults import Stayed
from catalog.detached import Left
from catalog.drivers import ObjectInfo, StorageDriver, driver_for
from catalog.errors import OtherBytes, StorageError
from catalog.failpoints import reach
from catalog.lookback import ABSENT, AS_REGISTERED, Sight, look
from catalog.models import Dataset, DatasetFile, Event, File, Replica
from catalog.originals import Order, is_original
from catalog.rowsets import among
from catalog.states import DatasetState, ReplicaState
from catalog.transitions import change, entity, record_change
from catalog.tries import Places

PAGE = 5000
"""Files whose bytes go between two transactions."""
THREADS = 8
MOST_FAULTS = 100
LEFT = "LEFT"
"""What the event of a copy says under whose path other bytes lie."""

Drivers = Mapping[int, StorageDriver | StorageError]
"""By the storage's id; an error where it can't be reached at all, with the reason."""


@dataclass(frozen=True)
class Removed:
    """Copies that a run took away; `kept` are files that others hold, `faults` what can't go.

    `detached` are originals whose bytes stay, `left` those under whose paths other bytes lie.
    """

    copies: int = 0
    size_bytes: int = 0
    kept: int = 0
    faults: tuple[str, ...] = ()
    detached: int = 0
    left: int = 0
    stayed: tuple[Stayed, ...] = ()

    def __add__(self, other: "Removed") -> "Removed":
        """Both together."""
        return Removed(
            self.copies + other.copies,
            self.size_bytes + other.size_bytes,
            self.kept + other.kept,
            (self.faults + other.faults)[:MOST_FAULTS],
            self.detached + other.detached,
            self.left + other.left,
            _by_storage(self.stayed + other.stayed),
        )


@dataclass(frozen=True)
class Doomed:
    """A replica that is DELETING; its bytes go, or stay where it is an original that doesn't.

    `unseen` is one that was COPYING or MISSING: its path alone makes nothing there the product's,
    also where an inspection has found other bytes there since.
    """

    id: int
    storage_id: int
    path: str
    size_bytes: int
    checksum: str
    created_at: datetime
    mtime_us: int | None
    original: bool
    unseen: bool
    goes: bool


def drivers(catalog: Catalog) -> dict[int, StorageDriver | StorageError]:
    """All storages; one that nobody has a login for holds up no other."""
    found: dict[int, StorageDriver | StorageError] = {}
    with catalog.read() as session:
        places = storages.list_all(session)
    for info in places:
        try:
            found[info.id] = driver_for(standing.adopt(catalog, info.id))
        except StorageError as error:
            found[info.id] = error
    return found


def lock(session: Session, which: sa.ColumnElement[bool]) -> Sequence[sa.Row[Any]]:
    """Replicas that aren't DELETED, locked until the transaction ends."""
    query = _columns().where(which, col(Replica.state) != ReplicaState.DELETED)
    return session.execute(query.order_by(col(Replica.id)).with_for_update(of=Replica)).all()


def _columns() -> sa.Select[Any]:
    return sa.select(
        col(Replica.id),
        col(Replica.file_id),
        col(Replica.storage_id),
        col(Replica.path),
        col(Replica.state),
        col(Replica.created_at),
        col(Replica.mtime_us),
        is_original().label("original"),
        _is_unseen().label("unseen"),
        col(File.size_bytes),
        col(File.checksum),
    ).join(File, col(File.id) == col(Replica.file_id))


def _is_unseen() -> sa.ColumnElement[bool]:
    """Whether a `Replica` is COPYING or MISSING, or was before it was BAD or DELETING."""
    unseen = (ReplicaState.COPYING, ReplicaState.MISSING)
    since = (ReplicaState.BAD, ReplicaState.DELETING)
    was = (
        sa.select(sa.literal(1))
        .select_from(Event)
        .where(
            col(Event.entity) == entity(Replica),
            col(Event.entity_id) == col(Replica.id),
            col(Event.after).in_(since),
            col(Event.before).in_(unseen),
        )
        .correlate(Replica)
    )
    later = sa.and_(col(Replica.state).in_(since), sa.exists(was))
    return sa.or_(col(Replica.state).in_(unseen), later)


def doom(
    session: Session, rows: Sequence[sa.Row[Any]], reason: str, order: Order | None = None
) -> list[Doomed]:
    """All these replicas are DELETING, and so are those an earlier run has left.

    Originals go by the `order` only, and the event of each says by what.
    """
    made = [_doomed(row, order) for row in rows]
    words = f"{reason}, and this original with it {order.words}" if order else reason
    told = {
        (False, True): reason,
        (True, True): words,
        (True, False): f"{reason}; its bytes were registered in place, and stay",
    }
    for (original, goes), message in told.items():
        found = {
            row.id: row.state
            for row, item in zip(rows, made, strict=True)
            if row.state != ReplicaState.DELETING and (item.original, item.goes) == (original, goes)
        }
        change(session, Replica, found, ReplicaState.DELETING, message=message)
    # What is MISSING wasn't counted, and what is DELETING is, until it is DELETED.
    missing = [row for row in rows if row.state == ReplicaState.MISSING]
    usage.note_all(session, [(row.storage_id, row.size_bytes) for row in missing])
    return made


def _doomed(row: sa.Row[Any], order: Order | None) -> Doomed:
    goes = not row.original or (order is not None and order.takes(row.storage_id, row.path))
    return Doomed(
        row.id, row.storage_id, row.path, row.size_bytes, row.checksum, row.created_at,
        row.mtime_us, bool(row.original), bool(row.unseen), goes,
    )  # fmt: skip


def retire(session: Session, replica_ids: Collection[int], reason: str) -> list[Doomed]:
    """Those of these replicas that are BAD or MISSING are DELETING; originals stay as they are."""
    found = lock(session, among(session, col(Replica.id), replica_ids))
    wrong = (ReplicaState.BAD, ReplicaState.MISSING)
    return doom(session, [r for r in found if r.state in wrong and not r.original], reason)


def finish(catalog: Catalog, storage_id: int) -> Removed:
    """End what was begun: remove the bytes of a storage's replicas that are DELETING.

    For those that no dataset's deletion comes by again, such as one that was made anew elsewhere.
    Originals that no dataset's order takes any more are detached.
    """
    total, after = Removed(), 0
    mine: Drivers = {storage_id: driver_for(standing.adopt(catalog, storage_id))}
    with Places(THREADS, "delete") as pool:
        while True:
            with catalog.read() as session:
                rows = _begun(session, storage_id, after)
            if not rows:
                return total
            total += remove_replicas(catalog, rows, mine, pool)
            after = rows[-1].id


def _begun(session: Session, storage_id: int, after: int) -> list[Doomed]:
    going = (
        sa.select(sa.literal(1))
        .select_from(DatasetFile)
        .join(Dataset, col(Dataset.id) == col(DatasetFile.dataset_id))
        .where(
            col(DatasetFile.file_id) == col(Replica.file_id),
            col(Dataset.state) == DatasetState.DELETING,
        )
        .correlate(Replica)
    )
    query = (
        _columns()
        .where(
            col(Replica.storage_id) == storage_id,
            col(Replica.state) == ReplicaState.DELETING,
            col(Replica.id) > after,
            sa.or_(sa.not_(is_original()), sa.not_(sa.exists(going))),
        )
        .order_by(col(Replica.id))
        .limit(PAGE)
    )
    return [_doomed(row, None) for row in session.execute(query)]


def remove_replicas(
    catalog: Catalog,
    rows: Sequence[Doomed],
    places: Drivers,
    pool: ThreadPoolExecutor,
    *,
    asked: bool = False,
) -> Removed:
    """Remove the bytes of replicas that are DELETING, then note that they are DELETED.

    `asked`: a person's word lets them go, also where nothing may go by itself. Another process may
    be at the same ones: each is noted and counted once.
    """
    places = {**places, **_away(places, {row.storage_id for row in rows})}
    sights = _look(places, [row for row in rows if row.original or row.unseen], pool)
    going = [r for r in rows if r.goes and (r.id not in sights or _is_registered(sights[r.id]))]
    # What has changed since it was looked at is as if it had been seen only now.
    sights |= _remove_bytes(catalog, places, going, sights, pool, asked)
    faults = {i: str(s) for i, s in sights.items() if _is_fault(s)}
    reach("deletion.removed")
    with catalog.write() as session:
        done = _note(session, [row for row in rows if row.id not in faults])
        left = _note_left(session, done, sights)
    stay = [row for row in done if row.original and not row.goes and row.id not in left]
    gone = [row for row in done if row.id not in left and (row.goes or not row.original)]
    return Removed(
        len(gone),
        sum(row.size_bytes for row in gone),
        faults=tuple(faults[row.id] for row in rows if row.id in faults)[:MOST_FAULTS],
        detached=len(stay),
        left=len(left),
        stayed=_by_storage(
            tuple(Stayed(r.storage_id, 1, r.path, faults[r.id]) for r in rows if r.id in faults)
        ),
    )


def _away(places: Drivers, wanted: Collection[int]) -> dict[int, StorageError]:
    """Those of the storages that are away, before anybody waits for a file there."""
    found: dict[int, StorageError] = {}
    for storage_id in sorted(wanted):
        driver = places[storage_id]
        if isinstance(driver, StorageError):
            continue
        try:
            driver.check()
        except StorageError as error:
            found[storage_id] = error
    return found


def _is_registered(sight: Sight | StorageError) -> bool:
    return isinstance(sight, Sight) and sight.kind is AS_REGISTERED


def _is_fault(sight: Sight | StorageError) -> bool:
    return isinstance(sight, StorageError) and not isinstance(sight, OtherBytes)


def _note(session: Session, rows: Sequence[Doomed]) -> list[Doomed]:
    """Those of the replicas that are DELETED by this, and nobody else's run."""
    due = sa.select(col(Replica.id)).where(
        among(session, col(Replica.id), [row.id for row in rows]),
        col(Replica.state) == ReplicaState.DELETING,
    )
    noted = session.connection().execute(
        sa.update(Replica)
        .where(col(Replica.id).in_(due.order_by(col(Replica.id)).with_for_update()))
        .values(state=ReplicaState.DELETED)
        .returning(col(Replica.id))
    )
    done = set(noted.scalars().all())
    gone = [row for row in rows if row.id in done]
    usage.note_all(session, [(row.storage_id, row.size_bytes) for row in gone], sign=-1)
    return gone


def _note_left(
    session: Session, done: Sequence[Doomed], sights: Mapping[int, Sight | StorageError]
) -> set[int]:
    """Write down which bytes stay; gives the replicas under whose paths other bytes lie."""
    stay, other = [], {}
    for row in done:
        sight = sights.get(row.id)
        if isinstance(sight, OtherBytes):
            other[row.id] = sight.what
        elif not isinstance(sight, Sight) or sight.kind is ABSENT:
            continue
        elif sight.kind is not AS_REGISTERED:
            other[row.id] = "other bytes lie under its path now"
        elif not row.goes:
            assert sight.there is not None
            mtime = sight.there.mtime
            stay.append(Left(row.id, row.storage_id, row.path, row.size_bytes, mtime))
    detached.note(session, stay)
    stays = {item.replica_id for item in stay}
    for storage_id in sorted({row.storage_id for row in done}):
        gone = [r.path for r in done if r.storage_id == storage_id and r.id not in stays]
        leftovers.forget(session, storage_id, gone)
    for replica_id, what in sorted(other.items()):
        told = f"{what}; what lies there stays, and may be registered"
        record_change(session, Replica, replica_id, LEFT, told)
    return set(other)


def _look(
    places: Drivers, rows: Sequence[Doomed], pool: ThreadPoolExecutor
) -> dict[int, Sight | StorageError]:
    """What lies under these paths, by the replica's id; an error where none can tell."""

    def one(row: Doomed) -> Sight | StorageError:
        driver = places[row.storage_id]
        if isinstance(driver, StorageError):
            return driver
        try:
            since = None if row.unseen else row.created_at
            return look(
                driver, row.path, row.size_bytes, row.checksum, since,
                mtime_us=row.mtime_us, goes=row.goes,
            )  # fmt: skip
        except StorageError as error:
            return error

    return {row.id: sight for row, sight in zip(rows, pool.map(one, rows), strict=True)}


def _remove_bytes(
    catalog: Catalog,
    places: Drivers,
    rows: Sequence[Doomed],
    sights: Mapping[int, Sight | StorageError],
    pool: ThreadPoolExecutor,
    asked: bool,
) -> dict[int, StorageError]:
    """Why bytes aren't gone, by the replica's id; each thread has paths that lie together."""
    parts: list[Sequence[Doomed]] = []
    for storage_id in sorted({row.storage_id for row in rows}):
        mine = [row for row in rows if row.storage_id == storage_id]
        mine.sort(key=lambda row: row.path)
        parts += chunks(mine, -(-len(mine) // THREADS))

    def remove_part(part: Sequence[Doomed]) -> dict[str, StorageError]:
        driver = places[part[0].storage_id]
        if isinstance(driver, StorageError):
            return dict.fromkeys((row.path for row in part), driver)
        seen = {row.path: there for row in part if (there := _seen(sights.get(row.id)))}
        paths = [row.path for row in part]
        return erasure.erase(catalog, part[0].storage_id, driver, paths, seen, asked=asked)

    faults: dict[int, StorageError] = {}
    for part, stayed in zip(parts, pool.map(remove_part, parts), strict=True):
        faults |= {row.id: stayed[row.path] for row in part if row.path in stayed}
    return faults


def _seen(sight: Sight | StorageError | None) -> ObjectInfo | None:
    return sight.there if isinstance(sight, Sight) else None


def _by_storage(stayed: Sequence[Stayed]) -> tuple[Stayed, ...]:
    found: dict[int | None, Stayed] = {}
    for item in stayed:
        known = found.get(item.storage_id)
        found[item.storage_id] = known.and_also(item) if known else item
    return tuple(found.values())
