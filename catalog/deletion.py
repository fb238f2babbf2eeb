"""Deletion in two phases: a dataset is marked, then bytes go, then what is gone is noted.

Bytes go only where no other dataset that isn't being deleted holds their file, and no workflow that
isn't final reads it. A crash between the phases leaves DELETING rows, which the next run ends.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import datasets, storages, uploads, usage
from catalog.bulk import chunks
from catalog.clock import now
from catalog.datasets import DatasetInfo
from catalog.db import Catalog
from catalog.drivers import StorageDriver, driver_for
from catalog.errors import Conflict, StateConflict, StorageError
from catalog.failpoints import reach
from catalog.models import Dataset, DatasetFile, File, Replica, Task, Workflow
from catalog.states import FINAL, DatasetState, ReplicaState, WorkflowState
from catalog.transitions import move

BATCH = 500
THREADS = 8
MOST_FAULTS = 100
_GOING = (DatasetState.DELETING, DatasetState.DELETED)


@dataclass(frozen=True)
class Removed:
    """What a run took away; `kept` are files that others hold, `faults` the first that can't go."""

    files: int = 0
    size_bytes: int = 0
    kept: int = 0
    faults: tuple[str, ...] = ()

    def __add__(self, other: "Removed") -> "Removed":
        """Both together."""
        return Removed(
            self.files + other.files,
            self.size_bytes + other.size_bytes,
            self.kept + other.kept,
            (self.faults + other.faults)[:MOST_FAULTS],
        )


def mark(session: Session, dataset_id: int, reason: str, *, consumed: bool = False) -> bool:
    """Phase one: a dataset is DELETING; False where it is already, or is DELETED.

    Raises `Conflict` where it is pinned, or a workflow that isn't final makes it or reads it. With
    `consumed` a dataset that a workflow makes may go once the tasks that read it are FINISHED.
    """
    info = datasets.get(session, dataset_id)
    if info.state in _GOING:
        return False
    if not move(session, Dataset, [dataset_id], DatasetState.DELETING, message=reason):
        raise StateConflict("dataset", info.name, info.state, DatasetState.DELETING)
    # The row is ours and says DELETING: no workflow takes it up from here on.
    if info.pin is not None:
        raise Conflict(
            f"dataset {info.name!r} is pinned ({info.pin}); `spdf dataset unpin {info.name}` first."
        )
    if uploads.is_going(session, dataset_id):
        raise Conflict(
            f"dataset {info.name!r} is being uploaded; wait for its end, or cancel the upload."
        )
    _refuse_read(session, info)
    if info.task_id is not None:
        _refuse_made(session, info, consumed)
    return True


def _refuse_read(session: Session, info: DatasetInfo) -> None:
    """Raise `Conflict` where a workflow that isn't final has the dataset for its input."""
    query = sa.select(col(Workflow.id)).where(
        col(Workflow.dataset_id) == info.id, col(Workflow.state).not_in(FINAL[WorkflowState])
    )
    reading = sorted(session.scalars(query))
    if reading:
        raise Conflict(
            f"dataset {info.name!r} is the input of workflow {reading[0]}, which isn't final; "
            f"wait for its end, or `spdf workflow cancel {reading[0]}` first."
        )


def _refuse_made(session: Session, info: DatasetInfo, consumed: bool) -> None:
    """Raise `Conflict` where the workflow that makes the dataset still works with it."""
    maker = session.execute(
        sa.select(col(Task.workflow_id), col(Workflow.state))
        .join(Workflow, col(Workflow.id) == col(Task.workflow_id))
        .where(col(Task.id) == info.task_id)
    ).one()
    if maker.state in FINAL[WorkflowState] or (consumed and info.state is DatasetState.CLOSED):
        return
    raise Conflict(
        f"dataset {info.name!r} is made by workflow {maker.workflow_id}, which isn't final; wait "
        f"for its end, or `spdf workflow cancel {maker.workflow_id}` first."
    )


def expire(session: Session) -> list[str]:
    """Mark the CLOSED datasets whose lifetime is over; gives their names.

    Those that can't go yet (they are pinned, or being read) are left for the next time.
    """
    rows = session.execute(
        sa.select(col(Dataset.id), col(Dataset.name))
        .where(
            col(Dataset.state) == DatasetState.CLOSED,
            col(Dataset.expires_at) <= now(),
            col(Dataset.pin).is_(None),
        )
        .order_by(col(Dataset.id))
        .limit(BATCH)
    ).all()
    gone = []
    for row in rows:
        try:
            with session.begin_nested():
                mark(session, row.id, "its lifetime is over")
        except Conflict:
            continue
        gone.append(row.name)
    return gone


def remove(
    catalog: Catalog,
    dataset_id: int,
    *,
    until: Callable[[], bool] = lambda: False,
    progress: Callable[[Removed], None] = lambda _so_far: None,
) -> Removed:
    """Phase two: the bytes of a DELETING dataset go, then it is DELETED.

    May be killed at any point and run again. Files that can't go now (their storage is away) keep
    the dataset DELETING; `until` ends the run early.
    """
    total = Removed()
    drivers = _drivers(catalog)
    with ThreadPoolExecutor(THREADS, thread_name_prefix="delete") as pool:
        for file_ids in _pages(catalog, dataset_id):
            total += _remove_files(catalog, dataset_id, file_ids, drivers, pool)
            progress(total)
            if until():
                return total
    if not total.faults:
        reach("deletion.ends")
        with catalog.write() as session:
            words = f"{total.files} files removed, {total.kept} held by others"
            move(session, Dataset, [dataset_id], DatasetState.DELETED, message=words)
    return total


def _drivers(catalog: Catalog) -> dict[int, StorageDriver]:
    with catalog.read() as session:
        return {info.id: driver_for(info) for info in storages.list_all(session)}


def _pages(catalog: Catalog, dataset_id: int) -> Iterator[list[int]]:
    """File ids of the dataset, page by page."""
    after = 0
    while True:
        with catalog.read() as session:
            page = list(
                session.scalars(
                    sa.select(col(DatasetFile.file_id))
                    .where(
                        col(DatasetFile.dataset_id) == dataset_id, col(DatasetFile.file_id) > after
                    )
                    .order_by(col(DatasetFile.file_id))
                    .limit(BATCH)
                )
            )
        if not page:
            return
        yield page
        after = page[-1]


def _remove_files(
    catalog: Catalog,
    dataset_id: int,
    file_ids: Sequence[int],
    drivers: Mapping[int, StorageDriver],
    pool: ThreadPoolExecutor,
) -> Removed:
    with catalog.write() as session:
        name = datasets.get(session, dataset_id).name
        free = unheld(session, file_ids, besides=dataset_id)
        rows = _take(session, free, f"dataset {name} is deleted")
    reach("deletion.marked")
    return remove_replicas(catalog, rows, drivers, pool) + Removed(kept=len(file_ids) - len(free))


def unheld(session: Session, file_ids: Sequence[int], *, besides: int | None = None) -> list[int]:
    """Those of the files whose bytes nobody needs; they are locked until the transaction ends.

    Held are files of any dataset that isn't going, and fixed inputs of workflows that aren't
    final. `besides` is a dataset that doesn't count.
    """
    # Locked first: who attaches one of them meanwhile waits, and finds its replicas going.
    for batch in chunks(sorted(file_ids)):
        session.execute(
            sa.select(col(Replica.id))
            .where(col(Replica.file_id).in_(batch))
            .order_by(col(Replica.id))
            .with_for_update()
        )
    held = _fixed_inputs(session)
    for batch in chunks(list(file_ids)):
        query = (
            sa.select(col(DatasetFile.file_id))
            .join(Dataset, col(Dataset.id) == col(DatasetFile.dataset_id))
            .where(col(DatasetFile.file_id).in_(batch), col(Dataset.state).not_in(_GOING))
        )
        if besides is not None:
            query = query.where(col(Dataset.id) != besides)
        held.update(session.scalars(query))
    return [file_id for file_id in file_ids if file_id not in held]


def _fixed_inputs(session: Session) -> set[int]:
    """Files that are fixed inputs of workflows that aren't final."""
    rows = session.scalars(
        sa.select(col(Workflow.inputs)).where(col(Workflow.state).not_in(FINAL[WorkflowState]))
    )
    return {file_id for inputs in rows for file_id in _file_ids(inputs)}


def _file_ids(value: Any) -> Iterator[int]:
    if isinstance(value, dict):
        if "file_id" in value:
            yield value["file_id"]
        for item in value.values():
            yield from _file_ids(item)
    elif isinstance(value, list):
        for item in value:
            yield from _file_ids(item)


@dataclass(frozen=True)
class Doomed:
    """A replica that is DELETING."""

    id: int
    storage_id: int
    path: str
    size_bytes: int
    counts: bool


def _take(session: Session, file_ids: Collection[int], reason: str) -> list[Doomed]:
    """All replicas of these files are DELETING, and so are those an earlier run has left."""
    found: list[Doomed] = []
    for batch in chunks(sorted(file_ids)):
        left = col(Replica.state) != ReplicaState.DELETED
        found += _doom(session, sa.and_(col(Replica.file_id).in_(batch), left), reason)
    return found


def retire(session: Session, replica_ids: Collection[int], reason: str) -> list[Doomed]:
    """Those of these replicas that are BAD or MISSING are DELETING."""
    wrong = col(Replica.state).in_((ReplicaState.BAD, ReplicaState.MISSING))
    return _doom(session, sa.and_(col(Replica.id).in_(replica_ids), wrong), reason)


def _doom(session: Session, which: sa.ColumnElement[bool], reason: str) -> list[Doomed]:
    rows = session.execute(
        sa.select(
            col(Replica.id),
            col(Replica.storage_id),
            col(Replica.path),
            col(File.size_bytes),
            (col(Replica.state) != ReplicaState.MISSING).label("counts"),
        )
        .join(File, col(File.id) == col(Replica.file_id))
        .where(which)
    ).all()
    move(session, Replica, [r.id for r in rows], ReplicaState.DELETING, message=reason)
    return [Doomed(*row) for row in rows]


def remove_replicas(
    catalog: Catalog,
    rows: Sequence[Doomed],
    drivers: Mapping[int, StorageDriver],
    pool: ThreadPoolExecutor,
) -> Removed:
    """Remove the bytes of replicas that are DELETING, then note that they are DELETED."""
    outcomes = list(pool.map(lambda row: _remove_bytes(drivers[row.storage_id], row), rows))
    reach("deletion.removed")
    gone = [row for row, fault in zip(rows, outcomes, strict=True) if fault is None]
    with catalog.write() as session:
        for batch in chunks(gone):
            session.execute(
                sa.update(Replica)
                .where(
                    col(Replica.id).in_([row.id for row in batch]),
                    col(Replica.state) == ReplicaState.DELETING,
                )
                .values(state=ReplicaState.DELETED),
                execution_options={"synchronize_session": False},
            )
        usage.note_all(session, [(r.storage_id, r.size_bytes) for r in gone if r.counts], sign=-1)
    return Removed(
        len(gone),
        sum(row.size_bytes for row in gone),
        faults=tuple(fault for fault in outcomes if fault is not None),
    )


def _remove_bytes(driver: StorageDriver, row: Doomed) -> str | None:
    """None where the bytes are gone, else why they aren't."""
    try:
        driver.delete(row.path)
    except StorageError as error:
        return str(error)
    return None
