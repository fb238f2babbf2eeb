"""How much lies on each storage: counted where replicas come and go, never by reading them all.

A transaction that adds or removes replicas leaves a `storage_delta`, which nobody else waits for;
`fold` adds them to the totals. Counted is what takes up space: replicas that are neither MISSING
nor DELETED.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import cattime
from catalog.bulk import insert_ignore
from catalog.clock import now
from catalog.columns import MOST, kept, total
from catalog.models import File, Replica, Storage, StorageDelta, StorageSample, StorageTotal
from catalog.rowsets import among
from catalog.states import ReplicaState
from catalog.transitions import record_change

PRESSED, RELIEVED = "PRESSED", "RELIEVED"
"""What the events of storages say that passed their high-water mark, or came below the low one."""

_KEPT_S = 30 * 86400.0


@dataclass(frozen=True)
class Usage:
    """A storage with what is on it, and its quota (None: none)."""

    storage_id: int
    storage: str
    role: str
    files: int
    size_bytes: int
    quota_bytes: int | None
    high_percent: int
    low_percent: int
    pressed_at: datetime | None

    @property
    def share(self) -> float | None:
        """Of the quota."""
        return None if self.quota_bytes is None else self.size_bytes / max(1, self.quota_bytes)


def note(session: Session, storage_id: int, files: int, size_bytes: int) -> None:
    """So many files and bytes have come (or, below 0, gone) in this transaction."""
    if files or size_bytes:
        row = {"storage_id": storage_id, "files": files, "size_bytes": kept(size_bytes)}
        session.execute(sa.insert(StorageDelta), [row])


def note_all(session: Session, files: Iterable[tuple[int, int]], *, sign: int = 1) -> None:
    """Files have come (or with `sign` -1 gone): the storage's id and the bytes of each."""
    sums: dict[int, tuple[int, int]] = {}
    for storage_id, size_bytes in files:
        count, so_far = sums.get(storage_id, (0, 0))
        sums[storage_id] = count + 1, so_far + size_bytes
    for storage_id, (count, size_bytes) in sorted(sums.items()):
        note(session, storage_id, sign * count, sign * size_bytes)


def back(session: Session, replica_ids: Sequence[int]) -> None:
    """Of these replicas those that are MISSING are there again."""
    _note_where(session, replica_ids, ReplicaState.MISSING, 1)


def away(session: Session, replica_ids: Sequence[int]) -> None:
    """These replicas, which are MISSING now, were there before."""
    _note_where(session, replica_ids, ReplicaState.MISSING, -1)


def _note_where(
    session: Session, replica_ids: Sequence[int], state: ReplicaState, sign: int
) -> None:
    if not replica_ids:
        return
    rows = session.execute(
        sa.select(col(Replica.storage_id), col(File.size_bytes))
        .join(File, col(File.id) == col(Replica.file_id))
        .where(among(session, col(Replica.id), replica_ids), col(Replica.state) == state)
    )
    note_all(session, [(row.storage_id, row.size_bytes) for row in rows], sign=sign)


def fold(session: Session) -> int:
    """Add what has come and gone to the totals; gives how many deltas there were."""
    gone = session.execute(
        sa.delete(StorageDelta).returning(
            col(StorageDelta.storage_id), col(StorageDelta.files), col(StorageDelta.size_bytes)
        )
    ).all()
    sums: dict[int, tuple[int, int]] = {}
    for storage_id, files, size_bytes in gone:
        count, so_far = sums.get(storage_id, (0, 0))
        sums[storage_id] = count + files, so_far + size_bytes
    for storage_id, (files, size_bytes) in sorted(sums.items()):
        empty = {"storage_id": storage_id, "files": 0, "size_bytes": 0}
        insert_ignore(session, StorageTotal, [empty])
        so_far = session.execute(
            sa.select(col(StorageTotal.size_bytes))
            .where(col(StorageTotal.storage_id) == storage_id)
            .with_for_update()
        ).scalar_one()
        session.execute(
            sa.update(StorageTotal)
            .where(col(StorageTotal.storage_id) == storage_id)
            .values(files=col(StorageTotal.files) + files, size_bytes=kept(so_far + size_bytes)),
            execution_options={"synchronize_session": False},
        )
    return len(gone)


def of_storages(session: Session) -> list[Usage]:
    """Every storage with what is on it, by name."""
    rows = session.execute(_of_each().order_by(col(Storage.name)))
    return [Usage(**row._mapping) for row in rows]


def _of_each() -> sa.Select[Any]:
    """A query for the columns of `Usage`."""
    yet = (
        sa.select(
            col(StorageDelta.storage_id),
            sa.func.sum(col(StorageDelta.files)).label("files"),
            total(col(StorageDelta.size_bytes)).label("size_bytes"),
        )
        .group_by(col(StorageDelta.storage_id))
        .subquery()
    )
    files = sa.func.coalesce(col(StorageTotal.files), 0) + sa.func.coalesce(yet.c.files, 0)
    so_far, more = (
        sa.cast(sa.func.coalesce(bytes_of, 0), sa.Numeric)
        for bytes_of in (col(StorageTotal.size_bytes), yet.c.size_bytes)
    )
    size = sa.case((so_far + more > MOST, MOST), else_=so_far + more)
    return (
        sa.select(
            col(Storage.id).label("storage_id"),
            col(Storage.name).label("storage"),
            col(Storage.role),
            sa.cast(files, sa.BigInteger).label("files"),
            sa.cast(size, sa.BigInteger).label("size_bytes"),
            col(Storage.quota_bytes),
            col(Storage.high_percent),
            col(Storage.low_percent),
            col(Storage.pressed_at),
        )
        .outerjoin(StorageTotal, col(StorageTotal.storage_id) == col(Storage.id))
        .outerjoin(yet, yet.c.storage_id == col(Storage.id))
    )


def recount(session: Session, storage_id: int) -> tuple[int, int]:
    """Count a storage anew, by reading all its replicas; gives by how much it was off.

    For what programs of older versions have added without a note.
    """
    # One statement sees one moment: what others commit meanwhile is in all of its sums or in none.
    counted = (
        sa.select(
            sa.func.count().label("files"),
            sa.func.coalesce(total(col(File.size_bytes)), 0).label("size_bytes"),
        )
        .select_from(Replica)
        .join(File, col(File.id) == col(Replica.file_id))
        .where(
            col(Replica.storage_id) == storage_id,
            col(Replica.state).not_in((ReplicaState.MISSING, ReplicaState.DELETED)),
        )
        .subquery("counted")
    )
    noted = _of_each().where(col(Storage.id) == storage_id).subquery("noted")
    files, size_bytes = session.execute(
        sa.select(
            sa.cast(counted.c.files - noted.c.files, sa.BigInteger),
            sa.cast(counted.c.size_bytes - noted.c.size_bytes, sa.BigInteger),
        ).select_from(counted.join(noted, sa.true()))
    ).one()
    note(session, storage_id, files, size_bytes)
    return files, size_bytes


def set_quota(
    session: Session, storage_id: int, quota_bytes: int | None, high: int, low: int
) -> None:
    """A storage's quota (None: none), with its marks in percent of it."""
    session.execute(
        sa.update(Storage)
        .where(col(Storage.id) == storage_id)
        .values(quota_bytes=quota_bytes, high_percent=high, low_percent=low),
        execution_options={"synchronize_session": False},
    )


def press(session: Session) -> dict[str, str]:
    """Mark the storages that passed a mark of theirs; gives what changed, by name."""
    changed = {}
    for item in of_storages(session):
        full = item.share is not None and 100 * item.share >= item.high_percent
        empty = item.share is None or 100 * item.share < item.low_percent
        if (item.pressed_at is None and not full) or (item.pressed_at is not None and not empty):
            continue
        word, moment = (PRESSED, now()) if full else (RELIEVED, None)
        session.execute(
            sa.update(Storage).where(col(Storage.id) == item.storage_id).values(pressed_at=moment),
            execution_options={"synchronize_session": False},
        )
        told = f"{item.size_bytes} of {item.quota_bytes} bytes"
        record_change(session, Storage, item.storage_id, word, told)
        changed[item.storage] = word
    return changed


def pressed(session: Session) -> set[int]:
    """Ids of the storages above their high-water mark."""
    return set(
        session.scalars(sa.select(col(Storage.id)).where(col(Storage.pressed_at).is_not(None)))
    )


def sample(session: Session) -> None:
    """Note what is on each storage now, and forget what was a month ago."""
    if cattime.may_remove(session):
        session.execute(
            sa.delete(StorageSample).where(col(StorageSample.at) < now(-_KEPT_S)),
            execution_options={"synchronize_session": False},
        )
    for item in of_storages(session):
        session.execute(
            sa.insert(StorageSample).values(
                storage_id=item.storage_id,
                at=now(),
                files=item.files,
                size_bytes=item.size_bytes,
            )
        )


def samples(session: Session, storage_id: int, since_s: float) -> list[tuple[datetime, int]]:
    """Time and bytes of the samples of the last `since_s` seconds, oldest first."""
    rows = session.execute(
        sa.select(col(StorageSample.at), col(StorageSample.size_bytes))
        .where(col(StorageSample.storage_id) == storage_id, col(StorageSample.at) >= now(-since_s))
        .order_by(col(StorageSample.at))
    )
    return [(row.at, row.size_bytes) for row in rows]


def growth_bytes_per_s(points: Sequence[tuple[datetime, int]]) -> float | None:
    """The slope of a line through samples; None of fewer than two."""
    if len(points) < 2:
        return None
    zero = points[0][0]
    x = [(at - zero).total_seconds() for at, _ in points]
    y = [float(size) for _, size in points]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    spread = sum((a - mean_x) ** 2 for a in x)
    if spread == 0:
        return None
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread
