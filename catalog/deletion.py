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

from catalog import datasets, storages, uploads, usage, workflows
from catalog.bulk import chunks
from catalog.clock import now
from catalog.datasets import DatasetInfo
from catalog.db import Catalog
from catalog.drivers import StorageDriver, driver_for
from catalog.errors import Conflict, StateConflict, StorageError
from catalog.failpoints import reach
from catalog.models import Dataset, DatasetFile, File, Replica, Task, Workflow
from catalog.rowsets import among
from catalog.states import FINAL, DatasetState, ReplicaState, WorkflowState
from catalog.transitions import change, move

PAGE = 5000
"""Files whose bytes go between two transactions."""
MOST_EXPIRED = 500
"""Datasets that are marked in one transaction."""
THREADS = 8
MOST_FAULTS = 100
_GOING = (DatasetState.DELETING, DatasetState.DELETED)


@dataclass(frozen=True)
class Removed:
    """Copies that a run took away; `kept` are files that others hold, `faults` what can't go."""

    copies: int = 0
    size_bytes: int = 0
    kept: int = 0
    faults: tuple[str, ...] = ()

    def __add__(self, other: "Removed") -> "Removed":
        """Both together."""
        return Removed(
            self.copies + other.copies,
            self.size_bytes + other.size_bytes,
            self.kept + other.kept,
            (self.faults + other.faults)[:MOST_FAULTS],
        )


@dataclass(frozen=True)
class Doomed:
    """A replica that is DELETING."""

    id: int
    storage_id: int
    path: str
    size_bytes: int


@dataclass(frozen=True)
class _DoomedPage:
    """What goes of a page of files, and how many of these others hold."""

    rows: Sequence[Doomed]
    kept: int


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
        .limit(MOST_EXPIRED)
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
        for page in _ahead(_doomed_pages(catalog, dataset_id)):
            total += remove_replicas(catalog, page.rows, drivers, pool) + Removed(kept=page.kept)
            progress(total)
            if until():
                return total
    if not total.faults:
        reach("deletion.ends")
        with catalog.write() as session:
            words = f"the last run removed {total.copies} copies; others hold {total.kept} files"
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
                    .limit(PAGE)
                )
            )
        if not page:
            return
        yield page
        after = page[-1]


def _ahead(pages: Iterator[_DoomedPage]) -> Iterator[_DoomedPage]:
    """The pages, of which the next is made ready while the caller works on one."""
    with ThreadPoolExecutor(1, thread_name_prefix="doom") as pool:
        coming = pool.submit(next, pages, None)
        while (page := coming.result()) is not None:
            coming = pool.submit(next, pages, None)
            yield page


def _doomed_pages(catalog: Catalog, dataset_id: int) -> Iterator[_DoomedPage]:
    """Of each page of the dataset's files the replicas that can go are DELETING from here on."""
    for file_ids in _pages(catalog, dataset_id):
        with catalog.write() as session:
            name = datasets.get(session, dataset_id).name
            # Locked first: who attaches one of them meanwhile waits, and finds its replicas going.
            found = _lock(session, among(session, col(Replica.file_id), file_ids))
            held = _held(session, file_ids, besides=dataset_id)
            # What an earlier run has marked goes in any case: nobody may use it again.
            free = [r for r in found if r.file_id not in held or r.state == ReplicaState.DELETING]
            rows = _doom(session, free, f"dataset {name} is deleted")
        reach("deletion.marked")
        yield _DoomedPage(rows, len(held))


def _held(session: Session, file_ids: Sequence[int], *, besides: int) -> set[int]:
    """Those of the files whose bytes are needed still.

    Held are files of any dataset that isn't going (`besides` is one that doesn't count), and fixed
    inputs of workflows that aren't final.
    """
    query = (
        sa.select(col(DatasetFile.file_id))
        .join(Dataset, col(Dataset.id) == col(DatasetFile.dataset_id))
        .where(
            among(session, col(DatasetFile.file_id), file_ids),
            col(Dataset.state).not_in(_GOING),
            col(Dataset.id) != besides,
        )
    )
    return set(session.scalars(query)) | _fixed_inputs(session).intersection(file_ids)


def _fixed_inputs(session: Session) -> set[int]:
    """Files that are fixed inputs of workflows that aren't final."""
    rows = session.scalars(
        sa.select(col(Workflow.inputs)).where(col(Workflow.state).not_in(FINAL[WorkflowState]))
    )
    return {file_id for inputs in rows for file_id in workflows.file_ids(inputs)}


def _lock(session: Session, which: sa.ColumnElement[bool]) -> Sequence[sa.Row[Any]]:
    """Replicas that aren't DELETED, locked until the transaction ends."""
    query = (
        sa.select(
            col(Replica.id),
            col(Replica.file_id),
            col(Replica.storage_id),
            col(Replica.path),
            col(Replica.state),
            col(File.size_bytes),
        )
        .join(File, col(File.id) == col(Replica.file_id))
        .where(which, col(Replica.state) != ReplicaState.DELETED)
        .order_by(col(Replica.id))
    )
    return session.execute(query.with_for_update(of=Replica)).all()


def retire(session: Session, replica_ids: Collection[int], reason: str) -> list[Doomed]:
    """Those of these replicas that are BAD or MISSING are DELETING."""
    found = _lock(session, among(session, col(Replica.id), replica_ids))
    wrong = (ReplicaState.BAD, ReplicaState.MISSING)
    return _doom(session, [row for row in found if row.state in wrong], reason)


def _doom(session: Session, rows: Sequence[sa.Row[Any]], reason: str) -> list[Doomed]:
    """All these replicas are DELETING, and so are those an earlier run has left."""
    found = {row.id: row.state for row in rows if row.state != ReplicaState.DELETING}
    change(session, Replica, found, ReplicaState.DELETING, message=reason)
    # What is MISSING wasn't counted, and what is DELETING is, until it is DELETED.
    missing = [row for row in rows if row.state == ReplicaState.MISSING]
    usage.note_all(session, [(row.storage_id, row.size_bytes) for row in missing])
    return [Doomed(row.id, row.storage_id, row.path, row.size_bytes) for row in rows]


def finish(catalog: Catalog, storage_id: int) -> Removed:
    """End what was begun: remove the bytes of a storage's replicas that are DELETING.

    For those that no dataset's deletion comes by again, such as one that was made anew elsewhere.
    """
    total, after = Removed(), 0
    with catalog.read() as session:
        drivers = {storage_id: driver_for(storages.get(session, storage_id))}
    with ThreadPoolExecutor(THREADS, thread_name_prefix="delete") as pool:
        while True:
            with catalog.read() as session:
                rows = _begun(session, storage_id, after)
            if not rows:
                return total
            total += remove_replicas(catalog, rows, drivers, pool)
            after = rows[-1].id


def _begun(session: Session, storage_id: int, after: int) -> list[Doomed]:
    query = (
        sa.select(col(Replica.id), col(Replica.storage_id), col(Replica.path), col(File.size_bytes))
        .join(File, col(File.id) == col(Replica.file_id))
        .where(
            col(Replica.storage_id) == storage_id,
            col(Replica.state) == ReplicaState.DELETING,
            col(Replica.id) > after,
        )
        .order_by(col(Replica.id))
        .limit(PAGE)
    )
    return [Doomed(*row) for row in session.execute(query)]


def remove_replicas(
    catalog: Catalog,
    rows: Sequence[Doomed],
    drivers: Mapping[int, StorageDriver],
    pool: ThreadPoolExecutor,
) -> Removed:
    """Remove the bytes of replicas that are DELETING, then note that they are DELETED.

    Another process may be at the same ones: each is noted and counted once.
    """
    faults = _remove_bytes(drivers, rows, pool)
    reach("deletion.removed")
    with catalog.write() as session:
        ids = [row.id for row in rows if row.id not in faults]
        due = sa.select(col(Replica.id)).where(
            among(session, col(Replica.id), ids), col(Replica.state) == ReplicaState.DELETING
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
    return Removed(
        len(gone),
        sum(row.size_bytes for row in gone),
        faults=tuple(faults[row.id] for row in rows if row.id in faults),
    )


def _remove_bytes(
    drivers: Mapping[int, StorageDriver], rows: Sequence[Doomed], pool: ThreadPoolExecutor
) -> dict[int, str]:
    """Why bytes aren't gone, by the replica's id; each thread has paths that lie together."""
    parts: list[Sequence[Doomed]] = []
    for storage_id in sorted({row.storage_id for row in rows}):
        mine = [row for row in rows if row.storage_id == storage_id]
        mine.sort(key=lambda row: row.path)
        parts += chunks(mine, -(-len(mine) // THREADS))

    def remove_part(part: Sequence[Doomed]) -> dict[str, StorageError]:
        return drivers[part[0].storage_id].delete_many([row.path for row in part])

    faults: dict[int, str] = {}
    for part, stayed in zip(parts, pool.map(remove_part, parts), strict=True):
        faults |= {row.id: str(stayed[row.path]) for row in part if row.path in stayed}
    return faults
