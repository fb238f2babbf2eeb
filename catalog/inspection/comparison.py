"""Copies compared with what their rows say: by an inspection, and once more before one is marked.

What an inspection has found may be long over: a mount was away, and came back.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog.checksums import algorithm_of
from catalog.db import Catalog
from catalog.drivers import StorageDriver
from catalog.errors import ErrorCode, StorageError
from catalog.inspection.findings import FindingInfo, NewFinding
from catalog.models import File, Replica
from catalog.refs import FindingKind
from catalog.rowsets import among
from catalog.states import ReplicaState
from catalog.tries import Places

log = logging.getLogger(__name__)

THREADS = 8
_LOOKED_AT = (ReplicaState.AVAILABLE, ReplicaState.BAD, ReplicaState.MISSING)


@dataclass(frozen=True)
class Row:
    """A copy that should be there, by its row."""

    id: int
    path: str
    state: ReplicaState
    size_bytes: int
    checksum: str


@dataclass
class Again:
    """What findings of copies come to at another look; those that it can't tell of are in none."""

    wrong: dict[FindingKind, list[FindingInfo]] = field(default_factory=dict)
    """By what is wrong now, which may be another thing than was found."""
    whole: list[FindingInfo] = field(default_factory=list)
    gone: list[FindingInfo] = field(default_factory=list)
    """Their copies are none any more."""
    marked: set[int] = field(default_factory=set)
    """Of those that are whole the ids of findings whose copies are called BAD or MISSING."""


def rows_after(session: Session, storage_id: int, after: int, limit: int) -> list[Row]:
    """The copies of a storage by id, behind `after`."""
    query = _rows().where(col(Replica.storage_id) == storage_id, col(Replica.id) > after)
    return [Row(*row) for row in session.execute(query.order_by(col(Replica.id)).limit(limit))]


def _rows() -> sa.Select[tuple[int, str, ReplicaState, int, str]]:
    return (
        sa.select(
            col(Replica.id),
            col(Replica.path),
            col(Replica.state),
            col(File.size_bytes),
            col(File.checksum),
        )
        .join(File, col(File.id) == col(Replica.file_id))
        .where(col(Replica.state).in_(_LOOKED_AT))
    )


def compare(driver: StorageDriver, row: Row, *, read: bool) -> NewFinding | None:
    """What is wrong with a copy's bytes; None where nothing is."""
    try:
        there = driver.stat(row.path).size_bytes
        if there != row.size_bytes:
            told = f"{there} bytes, not {row.size_bytes}"
            return NewFinding(FindingKind.CORRUPT, row.path, there, told, row.id)
        if read:
            checksum = driver.checksum(row.path, algorithm_of(row.checksum))
            if checksum != row.checksum:
                told = f"checksum {checksum}, not {row.checksum}"
                return NewFinding(FindingKind.CORRUPT, row.path, there, told, row.id)
    except StorageError as error:
        if error.code is not ErrorCode.INPUT_MISSING:
            raise
        return NewFinding(
            FindingKind.MISSING, row.path, row.size_bytes, "no bytes are there", row.id
        )
    return None


def is_proven(driver: StorageDriver, found: NewFinding) -> bool:
    """Nothing is said against a copy before it is plain that this is its storage.

    Raises `StorageError` where the storage is away.
    """
    if found.kind is FindingKind.MISSING:
        try:
            driver.check(marked=True)
        except StorageError:
            driver.check()
            return False
    else:
        driver.check()
    return True


def look_again(catalog: Catalog, driver: StorageDriver, items: Sequence[FindingInfo]) -> Again:
    """Compare the copies of findings once more; of a corrupt one all is read.

    Raises `StorageError` where the storage is away.
    """
    seen = Again()
    ids = {item.replica_id for item in items if item.replica_id is not None}
    if not items:
        return seen
    with catalog.read() as session:
        found = session.execute(_rows().where(among(session, col(Replica.id), ids)))
        rows = {row.id: row for row in (Row(*cells) for cells in found)}
    seen.gone = [item for item in items if item.replica_id not in rows]
    there = [(i, rows[i.replica_id]) for i in items if i.replica_id in rows and i.replica_id]

    def look(pair: tuple[FindingInfo, Row]) -> FindingKind | None:
        item, row = pair
        wrong = item.kind is FindingKind.CORRUPT or row.state is not ReplicaState.AVAILABLE
        new = compare(driver, row, read=wrong)
        if new is None:
            seen.whole.append(item)
            if row.state is not ReplicaState.AVAILABLE:
                seen.marked.add(item.id)
            return None
        return new.kind if is_proven(driver, new) else None

    def try_to(pair: tuple[FindingInfo, Row]) -> FindingKind | None:
        try:
            return look(pair)
        except StorageError as error:
            driver.check()
            log.warning("a copy can't be looked at", extra={"why": str(error)})
            return None

    with Places(THREADS, "again") as pool:
        for (item, _row), kind in zip(there, pool.map(try_to, there), strict=True):
            if kind is not None:
                seen.wrong.setdefault(kind, []).append(item)
    return seen
