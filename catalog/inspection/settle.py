"""Acting on findings: rows are marked, dark bytes are quarantined, and removed in the end.

*Quarantined* are dark bytes that stay where they are for a while, so that whoever misses them has
time to say so. By themselves only those go that this program must have written, by their paths and
the datasets of this catalog, and none of an input storage; all others are somebody's, and go only
where that is asked for.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import (
    cattime,
    claims,
    clock,
    erasure,
    pilots,
    removal,
    stamping,
    standing,
    storages,
    usage,
)
from catalog.checksums import algorithm_of
from catalog.db import Catalog
from catalog.drivers import StorageDriver, driver_for
from catalog.errors import Conflict, ErrorCode, StorageError
from catalog.failpoints import reach
from catalog.inspection import comparison, dark, findings
from catalog.inspection.findings import FindingInfo
from catalog.models import Detached, File, Replica
from catalog.ownpaths import is_own_folder
from catalog.refs import FindingKind, StorageRole
from catalog.stamps import Reading
from catalog.states import FindingState, ReplicaState
from catalog.transitions import move

log = logging.getLogger(__name__)

QUARANTINE_S = 7 * 86400.0
FOLDER_AGE_S = 86400.0
"""Empty folders of our own that nobody touched for so long are removed."""


@dataclass(frozen=True)
class Settled:
    """What became of findings, by number."""

    marked: int = 0
    quarantined: int = 0
    removed: int = 0
    cleared: int = 0
    stayed: int = 0
    """Dark bytes that could not be removed, and why is in the log."""

    def __add__(self, other: "Settled") -> "Settled":
        """Both together."""
        return Settled(
            self.marked + other.marked,
            self.quarantined + other.quarantined,
            self.removed + other.removed,
            self.cleared + other.cleared,
            self.stayed + other.stayed,
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

    Missing and corrupt replicas are marked so where another look finds them so still, and those
    that are whole again are AVAILABLE. Dark bytes are quarantined; those of this program are
    removed after `quarantine_s` where two inspections a day apart have listed them, and all of them
    now with `remove_dark`. Removals and deletions of
    replicas that nobody has ended are ended. Raises `StorageError` where the storage is away, and
    for `remove_dark` where this catalog may not remove there; `Conflict` for that while pilots
    store files.
    """
    with catalog.read() as session:
        place = storages.get(session, storage_id)
        at_work = pilots.beating(session) if remove_dark else 0
    if at_work and place.role is not StorageRole.INPUT:
        raise Conflict(
            f"pilots are at work ({at_work}), and what they have just stored has no rows yet; "
            f"remove dark bytes of storage {place.name!r} once they have ended: "
            "`spdf pilot list --live`."
        )
    driver = driver_for(standing.adopt(catalog, storage_id))
    driver.check()
    refused = _refusal(catalog, storage_id, driver)
    if refused is not None and remove_dark:
        raise refused
    for fault in removal.finish(catalog, storage_id).faults:
        log.warning("bytes could not be removed", extra={"why": fault})
    goes = refused is None and place.role is not StorageRole.INPUT
    total = Settled()
    for page in findings.pages(catalog, storage_id):
        total += _copies(catalog, driver, page)
        unnamed = [item for item in page if item.kind is FindingKind.DARK]
        fresh = [item for item in unnamed if item.state is FindingState.FOUND]
        own = dark.own(catalog, driver, unnamed) if goes else set()
        total += _quarantine(catalog, fresh, own, refused)
        if refused is None:
            moment = _moment(catalog)
            due = [
                item
                for item in unnamed
                if item.state is FindingState.MARKED
                or remove_dark
                or (item.id in own and item.is_seen_again and _is_over(item, moment, quarantine_s))
            ]
            total += _remove(catalog, driver, storage_id, due)
        progress(total)
    if goes:
        driver.sweep(is_own_folder, FOLDER_AGE_S)
    return total


def _refusal(catalog: Catalog, storage_id: int, driver: StorageDriver) -> StorageError | None:
    """Why this catalog may remove nothing there, which is told to the log, too."""
    try:
        claims.require(catalog, storage_id, driver)
        claims.require_leave(catalog, storage_id)
    except StorageError as error:
        if error.code is not ErrorCode.STORAGE_DENIED:
            raise
        log.warning("nothing is removed", extra={"why": str(error)})
        return error
    return None


def _is_over(item: FindingInfo, moment: datetime | None, quarantine_s: float) -> bool:
    """Whether dark bytes were quarantined for long enough; never while there is no `moment`."""
    return moment is not None and (item.settled_at or moment) <= moment - timedelta(
        seconds=quarantine_s
    )


def _moment(catalog: Catalog) -> datetime | None:
    """Catalog time; None while it isn't sure what time it is."""
    with catalog.read() as session:
        return clock.moment_in() if cattime.may_remove(session) else None


def _copies(catalog: Catalog, driver: StorageDriver, page: Sequence[FindingInfo]) -> Settled:
    """Act on a page's findings of copies."""
    copies = [item for item in page if item.kind is not FindingKind.DARK]
    # What was found may be over: nobody has acted on what an inspection asked about.
    found = [item for item in copies if item.state is FindingState.FOUND]
    seen = comparison.look_again(catalog, driver, found)
    done = Settled()
    for kind, items in seen.wrong.items():
        done += _mark(catalog, items, kind)
    marked = [item for item in copies if item.state is FindingState.MARKED]
    return done + _clear(catalog, seen.gone) + _heal(catalog, driver, [*seen.whole, *marked])


def _mark(catalog: Catalog, items: Sequence[FindingInfo], kind: FindingKind) -> Settled:
    """Replicas are MISSING or BAD; of those that are neither any more the finding is cleared."""
    if not items:
        return Settled()
    target = ReplicaState.MISSING if kind is FindingKind.MISSING else ReplicaState.BAD
    by_replica = {item.replica_id: item for item in items if item.replica_id is not None}
    with catalog.write() as session:
        if kind is FindingKind.CORRUPT:
            usage.back(session, sorted(by_replica))
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


def _clear(catalog: Catalog, items: Sequence[FindingInfo]) -> Settled:
    if not items:
        return Settled()
    with catalog.write() as session:
        ids = [item.id for item in items]
        findings.settle(session, ids, FindingState.CLEARED, "its copy is none any more")
    return Settled(cleared=len(items))


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
    found = {r.id: _read_whole(driver, r.path, r.size_bytes, r.checksum) for r in rows}
    whole = [replica_id for replica_id, reading in found.items() if reading is not None]
    times_us = {i: r.stamp.mtime_us for i, r in found.items() if r is not None and r.stamp}
    over = [i.id for i in items if i.replica_id in set(whole) or i.replica_id not in wrong]
    if not over:
        return Settled()
    with catalog.write() as session:
        usage.back(session, whole)
        stamping.stamp(session, times_us)
        move(session, Replica, whole, ReplicaState.AVAILABLE, message="found whole again")
        findings.settle(session, over, FindingState.CLEARED, "it is as it should be")
    return Settled(cleared=len(over))


def _read_whole(driver: StorageDriver, path: str, size_bytes: int, checksum: str) -> Reading | None:
    """The bytes under a path, all read; None where they are others, or none.

    A file that can't be read holds up no other.
    """
    try:
        if driver.stat(path).size_bytes != size_bytes:
            return None
        found = driver.read(path, algorithm_of(checksum))
        return found if found.checksum == checksum else None
    except StorageError as error:
        if error.code is not ErrorCode.INPUT_MISSING:
            driver.check()
            log.warning("a copy can't be read", extra={"why": str(error)})
        return None


def _quarantine(
    catalog: Catalog,
    items: Sequence[FindingInfo],
    goes: Collection[int],
    refused: StorageError | None,
) -> Settled:
    """Quarantine dark bytes; those of the findings in `goes` are to be removed."""
    if not items:
        return Settled()
    own = [item.id for item in items if item.id in goes]
    others = [item.id for item in items if item.id not in goes]
    stays = "it stays until `spdf inspect settle --remove-dark`: it may be somebody's"
    if refused is not None:
        stays = f"it stays: {refused}"
    with catalog.write() as session:
        done = findings.settle(session, own, FindingState.QUARANTINED, "to be removed later")
        done += findings.settle(session, others, FindingState.QUARANTINED, stays)
    return Settled(quarantined=len(done))


def _remove(
    catalog: Catalog, driver: StorageDriver, storage_id: int, items: Sequence[FindingInfo]
) -> Settled:
    """Remove dark bytes; first it is written down, in the transaction that finds no row of them.

    From then on nobody can register them: those who are about to are waited for.
    """
    if not items:
        return Settled()
    paths = {item.path: item for item in items}
    over, seen = dark.no_longer(catalog, driver, storage_id, items)
    with catalog.write() as session:
        storages.hold(session, storage_id)
        over |= dict.fromkeys(_named(session, storage_id, list(paths)), "a row names it now")
        for why in sorted(set(over.values())):
            ids = [paths[path].id for path, told in over.items() if told == why]
            findings.settle(session, ids, FindingState.CLEARED, why)
        begun = findings.begin_removal(session, [i.id for p, i in paths.items() if p not in over])
    doomed = [path for path, item in paths.items() if item.id in begun]
    reach("inspection.noted")
    faults = erasure.erase(catalog, storage_id, driver, doomed, seen)
    for fault in faults.values():
        log.warning("dark bytes stay", extra={"why": str(fault)})
    reach("inspection.removed")
    gone = [paths[path].id for path in doomed if path not in faults]
    with catalog.write() as session:
        findings.settle(session, gone, FindingState.REMOVED, "its bytes are removed")
        for path, fault in faults.items():
            findings.end_removal(session, [paths[path].id], str(fault))
    return Settled(removed=len(gone), cleared=len(over), stayed=len(faults))


def _named(session: Session, storage_id: int, paths: Sequence[str]) -> set[str]:
    """Those of the paths that a row names, or that were detached: these aren't dark."""
    query = sa.select(col(Replica.path)).where(
        col(Replica.storage_id) == storage_id,
        col(Replica.path).in_(paths),
        col(Replica.state) != ReplicaState.DELETED,
    )
    left = sa.select(col(Detached.path)).where(
        col(Detached.storage_id) == storage_id, col(Detached.path).in_(paths)
    )
    return {*session.scalars(query), *session.scalars(left)}
