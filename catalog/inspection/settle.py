"""Acting on findings: rows are marked, dark bytes are quarantined, and removed in the end.

*Quarantined* are dark bytes that stay where they are for a while, so that whoever misses them has
time to say so. Those of an input storage are removed only where that is asked for: they may be raw
data that nobody has registered yet.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import deletion, pilots, storages, usage
from catalog.checksums import algorithm_of
from catalog.db import Catalog
from catalog.drivers import StorageDriver, driver_for
from catalog.errors import Conflict, ErrorCode, StorageError
from catalog.failpoints import reach
from catalog.inspection import findings
from catalog.inspection.findings import FindingInfo
from catalog.models import File, Replica
from catalog.refs import FindingKind, StorageRole
from catalog.states import FindingState, ReplicaState
from catalog.transitions import move

log = logging.getLogger(__name__)

PAGE = 500
QUARANTINE_S = 7 * 86400.0


@dataclass(frozen=True)
class Settled:
    """What became of findings, by number."""

    marked: int = 0
    quarantined: int = 0
    removed: int = 0
    cleared: int = 0

    def __add__(self, other: "Settled") -> "Settled":
        """Both together."""
        return Settled(
            self.marked + other.marked,
            self.quarantined + other.quarantined,
            self.removed + other.removed,
            self.cleared + other.cleared,
        )


def settle(
    catalog: Catalog,
    storage_id: int,
    *,
    quarantine_s: float = QUARANTINE_S,
    remove_dark: bool = False,
    progress: Callable[[Settled], None] = lambda _so_far: None,
) -> Settled:
    """Act on all open findings of a storage. May be killed at any point and run again.

    Missing and corrupt replicas are marked so, and those that are whole again are AVAILABLE. Dark
    bytes are quarantined, and removed after `quarantine_s`, or now with `remove_dark`. Deletions of
    replicas that nobody has ended are ended. Raises
    `StorageError` where the storage is away, `Conflict` for `remove_dark` while pilots store files.
    """
    with catalog.read() as session:
        place = storages.get(session, storage_id)
        at_work = pilots.beating(session) if remove_dark else 0
    if at_work and place.role is not StorageRole.INPUT:
        raise Conflict(
            f"{at_work} pilots are at work, and what they have just stored has no rows yet; remove "
            f"dark bytes of storage {place.name!r} once they have ended: `spdf pilot list --live`."
        )
    driver = driver_for(place)
    for fault in deletion.finish(catalog, storage_id).faults:
        log.warning("bytes could not be removed", extra={"why": fault})
    may_remove = remove_dark or place.role is not StorageRole.INPUT
    total = Settled()
    for page in _open(catalog, storage_id):
        for kind in (FindingKind.MISSING, FindingKind.CORRUPT):
            mine = [item for item in page if item.kind is kind]
            total += _mark(catalog, [i for i in mine if i.state is FindingState.FOUND], kind)
            total += _heal(catalog, driver, [i for i in mine if i.state is FindingState.MARKED])
        dark = [item for item in page if item.kind is FindingKind.DARK]
        total += _quarantine(catalog, [i for i in dark if i.state is FindingState.FOUND])
        if may_remove:
            old = datetime.now(UTC) - timedelta(seconds=quarantine_s)
            due = [i for i in dark if remove_dark or _since(i) <= old]
            total += _remove(catalog, driver, storage_id, due)
        progress(total)
    return total


def _since(item: FindingInfo) -> datetime:
    return item.settled_at or datetime.now(UTC)


def _open(catalog: Catalog, storage_id: int) -> Iterator[list[FindingInfo]]:
    after = 0
    while True:
        with catalog.read() as session:
            page = findings.findings(session, storage_id=storage_id, after=after, limit=PAGE)
        if not page:
            return
        yield page
        after = page[-1].id


def _mark(catalog: Catalog, items: Sequence[FindingInfo], kind: FindingKind) -> Settled:
    """Replicas are MISSING or BAD; of those that are neither any more the finding is cleared."""
    if not items:
        return Settled()
    target = ReplicaState.MISSING if kind is FindingKind.MISSING else ReplicaState.BAD
    by_replica = {item.replica_id: item for item in items if item.replica_id is not None}
    with catalog.write() as session:
        moved = move(session, Replica, sorted(by_replica), target, message="found by an inspection")
        if kind is FindingKind.MISSING:
            usage.away(session, moved)
        there = session.scalars(
            sa.select(col(Replica.id)).where(
                col(Replica.id).in_(sorted(by_replica)), col(Replica.state) == target
            )
        )
        marked = [by_replica[replica].id for replica in there]
        others = [item.id for item in items if item.id not in set(marked)]
        findings.settle(session, marked, FindingState.MARKED, f"its replica is {target}")
        findings.settle(session, others, FindingState.CLEARED, "its replica is gone or another")
    return Settled(marked=len(marked), cleared=len(others))


def _heal(catalog: Catalog, driver: StorageDriver, items: Sequence[FindingInfo]) -> Settled:
    """Replicas whose bytes are whole again are AVAILABLE."""
    if not items:
        return Settled()
    ids = [item.replica_id for item in items if item.replica_id is not None]
    with catalog.read() as session:
        rows = session.execute(
            sa.select(col(Replica.id), col(Replica.path), col(File.size_bytes), col(File.checksum))
            .join(File, col(File.id) == col(Replica.file_id))
            .where(
                col(Replica.id).in_(ids),
                col(Replica.state).in_((ReplicaState.BAD, ReplicaState.MISSING)),
            )
        ).all()
    wrong = {row.id for row in rows}
    whole = [r.id for r in rows if is_whole(driver, r.path, r.size_bytes, r.checksum)]
    over = [i.id for i in items if i.replica_id in set(whole) or i.replica_id not in wrong]
    if not over:
        return Settled()
    with catalog.write() as session:
        usage.back(session, whole)
        move(session, Replica, whole, ReplicaState.AVAILABLE, message="found whole again")
        findings.settle(session, over, FindingState.CLEARED, "it is as it should be")
    return Settled(cleared=len(over))


def is_whole(driver: StorageDriver, path: str, size_bytes: int, checksum: str) -> bool:
    """Whether the bytes under a path are those, all read."""
    try:
        return (
            driver.stat(path).size_bytes == size_bytes
            and driver.checksum(path, algorithm_of(checksum)) == checksum
        )
    except StorageError as error:
        if error.code is not ErrorCode.INPUT_MISSING:
            raise
        return False


def _quarantine(catalog: Catalog, items: Sequence[FindingInfo]) -> Settled:
    if not items:
        return Settled()
    with catalog.write() as session:
        ids = [item.id for item in items]
        done = findings.settle(session, ids, FindingState.QUARANTINED, "to be removed later")
    return Settled(quarantined=len(done))


def _remove(
    catalog: Catalog, driver: StorageDriver, storage_id: int, items: Sequence[FindingInfo]
) -> Settled:
    """Remove dark bytes; first it is written down, in the transaction that finds no row of them."""
    if not items:
        return Settled()
    paths = {item.path: item for item in items}
    with catalog.write() as session:
        named = _named(session, storage_id, list(paths))
        cleared = [paths[path].id for path in named]
        findings.settle(session, cleared, FindingState.CLEARED, "a row names it now")
        doomed = [item for path, item in paths.items() if path not in named]
        findings.note_removal(session, [item.id for item in doomed])
    reach("inspection.noted")
    for item in doomed:
        driver.delete(item.path)
    reach("inspection.removed")
    with catalog.write() as session:
        findings.settle(
            session, [item.id for item in doomed], FindingState.REMOVED, "its bytes are removed"
        )
    return Settled(removed=len(doomed), cleared=len(cleared))


def _named(session: Session, storage_id: int, paths: Sequence[str]) -> set[str]:
    query = sa.select(col(Replica.path)).where(
        col(Replica.storage_id) == storage_id,
        col(Replica.path).in_(paths),
        col(Replica.state) != ReplicaState.DELETED,
    )
    return set(session.scalars(query))
