"""Uploads: a CLOSED dataset copied to another storage, file by file, verified there.

A file's place is reserved by a COPYING replica before its bytes go there, so that a crash leaves
nothing that isn't known. A run that died is gone on with where its last batch ended.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import datasets, files, manifests, storages, usage
from catalog.bulk import insert_new
from catalog.checksums import algorithm_of
from catalog.clock import now
from catalog.db import Catalog
from catalog.drivers import StorageDriver, driver_for
from catalog.errors import Conflict, ErrorCode, NotFound, StateConflict, StorageError
from catalog.failpoints import reach
from catalog.models import Dataset, DatasetFile, File, Replica, Storage, Upload
from catalog.refs import ReplicaRef
from catalog.states import DatasetState, ReplicaState, UploadState
from catalog.transitions import move, move_one, record

BATCH = 64
THREADS = 4
GOING = (UploadState.QUEUED, UploadState.RUNNING)


@dataclass(frozen=True)
class UploadInfo:
    """An upload as its row stood."""

    id: int
    dataset_id: int
    dataset: str
    storage_id: int
    storage: str
    state: UploadState
    reason: str | None
    files: int
    size_bytes: int
    files_done: int
    bytes_done: int
    after_id: int
    flow_run_id: str | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


_INFO: tuple[Any, ...] = (
    col(Upload.id),
    col(Upload.dataset_id),
    col(Dataset.name).label("dataset"),
    col(Upload.storage_id),
    col(Storage.name).label("storage"),
    col(Upload.state),
    col(Upload.reason),
    col(Upload.files),
    col(Upload.size_bytes),
    col(Upload.files_done),
    col(Upload.bytes_done),
    col(Upload.after_id),
    col(Upload.flow_run_id),
    col(Upload.created_at),
    col(Upload.started_at),
    col(Upload.ended_at),
)


def _select() -> sa.Select[Any]:
    return (
        sa.select(*_INFO)
        .join(Dataset, col(Dataset.id) == col(Upload.dataset_id))
        .join(Storage, col(Storage.id) == col(Upload.storage_id))
    )


def ask(session: Session, dataset_id: int, storage_id: int) -> int:
    """Queue an upload, or find the one that goes on already; gives its id.

    Raises `StateConflict` for a dataset that isn't CLOSED.
    """
    if not _hold_closed(session, dataset_id):
        info = datasets.get(session, dataset_id)
        why = "only a CLOSED dataset can be; its files don't change any more"
        raise StateConflict("dataset", info.name, info.state, "uploaded", why)
    totals = manifests.totals(session, [dataset_id])[dataset_id]
    row = {
        "dataset_id": dataset_id,
        "storage_id": storage_id,
        "state": UploadState.QUEUED,
        "files": totals.files,
        "size_bytes": totals.size_bytes,
        "files_done": 0,
        "bytes_done": 0,
        "after_id": 0,
    }
    new = insert_new(session, Upload, [row], col(Upload.id))
    for (upload_id,) in new:
        record(session, Upload, [(upload_id, None)], UploadState.QUEUED)
        return int(upload_id)
    return int(
        session.execute(
            sa.select(col(Upload.id)).where(
                col(Upload.dataset_id) == dataset_id,
                col(Upload.storage_id) == storage_id,
                col(Upload.state).in_(GOING),
            )
        ).scalar_one()
    )


def order(
    session: Session, dataset_id: int, storage_id: int, *, cancel: bool = False
) -> UploadInfo:
    """What an operator asks for: an upload is queued, a FAILED one goes on, or one is cancelled.

    Raises `StateConflict`, and `NotFound` where there is none to be cancelled.
    """
    last = next((u for u in of_dataset(session, dataset_id) if u.storage_id == storage_id), None)
    if last is not None and cancel:
        _cancel(session, last.id, "cancelled by an operator")
    elif last is not None and last.state is UploadState.FAILED:
        _retry(session, last.id)
    elif cancel:
        name = datasets.get(session, dataset_id).name
        raise NotFound("upload", name, "`spdf dataset show` names a dataset's uploads")
    else:
        return get(session, ask(session, dataset_id, storage_id))
    return get(session, last.id)


def _hold_closed(session: Session, dataset_id: int) -> bool:
    """Whether a dataset is CLOSED; it isn't deleted until the transaction ends."""
    return (
        session.execute(
            sa.select(col(Dataset.id))
            .where(col(Dataset.id) == dataset_id, col(Dataset.state) == DatasetState.CLOSED)
            .with_for_update(read=True)
        ).scalar()
        is not None
    )


def get(session: Session, upload_id: int) -> UploadInfo:
    """The upload with that id; raises `NotFound`."""
    row = session.execute(_select().where(col(Upload.id) == upload_id)).one_or_none()
    if row is None:
        raise NotFound("upload", upload_id, "`spdf dataset show` names a dataset's uploads")
    return UploadInfo(**row._mapping)


def of_dataset(session: Session, dataset_id: int) -> list[UploadInfo]:
    """The uploads of a dataset, the newest first."""
    rows = session.execute(
        _select().where(col(Upload.dataset_id) == dataset_id).order_by(col(Upload.id).desc())
    )
    return [UploadInfo(**row._mapping) for row in rows]


def going(session: Session) -> list[UploadInfo]:
    """The uploads that are queued or running, oldest first."""
    rows = session.execute(_select().where(col(Upload.state).in_(GOING)).order_by(col(Upload.id)))
    return [UploadInfo(**row._mapping) for row in rows]


def is_going(session: Session, dataset_id: int) -> bool:
    """Whether a dataset is on its way anywhere."""
    query = sa.select(sa.exists().where(
        col(Upload.dataset_id) == dataset_id, col(Upload.state).in_(GOING)
    ))  # fmt: skip
    return bool(session.execute(query).scalar())


def is_done(session: Session, dataset_id: int) -> bool:
    """Whether a dataset was uploaded whole, anywhere."""
    query = sa.select(sa.exists().where(
        col(Upload.dataset_id) == dataset_id, col(Upload.state) == UploadState.DONE
    ))  # fmt: skip
    return bool(session.execute(query).scalar())


def _cancel(session: Session, upload_id: int, reason: str) -> None:
    """Stop an upload; what is there stays. Raises `StateConflict` for one that has ended."""
    move_one(
        session, Upload, upload_id, UploadState.CANCELLED,
        message=reason, reason=reason, ended_at=now(),
    )  # fmt: skip


def _retry(session: Session, upload_id: int) -> None:
    """Queue a FAILED upload again; it goes on where it ended. Raises `StateConflict`."""
    move_one(
        session, Upload, upload_id, UploadState.QUEUED,
        message="retry", reason=None, ended_at=None,
    )  # fmt: skip


def set_flow_run(session: Session, upload_id: int, flow_run_id: str) -> None:
    """Note the flow run that does it."""
    session.execute(
        sa.update(Upload).where(col(Upload.id) == upload_id).values(flow_run_id=flow_run_id),
        execution_options={"synchronize_session": False},
    )


@dataclass(frozen=True)
class _Item:
    """A file to be copied, with the replica that is made."""

    file_id: int
    name: str
    size_bytes: int
    checksum: str
    sources: tuple[ReplicaRef, ...]
    replica_id: int
    path: str


class Cannot(Conflict):
    """An upload can't go on: the sentence says why."""


def transfer(
    catalog: Catalog,
    upload_id: int,
    scratch: Path,
    *,
    progress: Callable[[UploadInfo], None] = lambda _info: None,
    threads: int = THREADS,
    until: Callable[[], bool] = lambda: False,
) -> UploadInfo:
    """Copy what isn't there yet, and verify it there; gives the upload as it has ended.

    May be killed at any point and run again; `until` ends a run early. `scratch` is a directory for
    what goes from one S3 server to another. Raises `StorageError` where a storage is away: run it
    again later.
    """
    with catalog.write() as session:
        info = get(session, upload_id)
        if info.state is UploadState.QUEUED:
            move_one(session, Upload, upload_id, UploadState.RUNNING, started_at=now())
        elif info.state is not UploadState.RUNNING:
            return info
        drivers = {s.id: driver_for(s) for s in storages.list_all(session)}
    with ThreadPoolExecutor(threads, thread_name_prefix="upload") as pool:
        while True:
            with catalog.read() as session:
                info = get(session, upload_id)
            if info.state is not UploadState.RUNNING or until():
                return info
            progress(info)
            page = _page(catalog, info)
            if not page:
                return _finish(catalog, upload_id)
            try:
                _batch(catalog, info, page, drivers, pool, scratch)
            except Cannot as error:
                return _fail(catalog, upload_id, str(error))


def _finish(catalog: Catalog, upload_id: int) -> UploadInfo:
    reach("upload.ends")
    with catalog.write() as session:
        move(session, Upload, [upload_id], UploadState.DONE, ended_at=now())
        return get(session, upload_id)


def _fail(catalog: Catalog, upload_id: int, reason: str) -> UploadInfo:
    with catalog.write() as session:
        move(
            session, Upload, [upload_id], UploadState.FAILED,
            message=reason, reason=reason, ended_at=now(),
        )  # fmt: skip
        return get(session, upload_id)


@dataclass(frozen=True)
class _Member:
    file_id: int
    name: str
    size_bytes: int
    checksum: str


def _page(catalog: Catalog, info: UploadInfo) -> list[_Member]:
    """The next files of the dataset, by id."""
    with catalog.read() as session:
        rows = session.execute(
            sa.select(
                col(DatasetFile.file_id),
                col(DatasetFile.name),
                col(File.size_bytes),
                col(File.checksum),
            )
            .join(File, col(File.id) == col(DatasetFile.file_id))
            .where(
                col(DatasetFile.dataset_id) == info.dataset_id,
                col(DatasetFile.file_id) > info.after_id,
            )
            .order_by(col(DatasetFile.file_id))
            .limit(BATCH)
        )
        return [_Member(*row) for row in rows]


def _batch(
    catalog: Catalog,
    info: UploadInfo,
    page: Sequence[_Member],
    drivers: Mapping[int, StorageDriver],
    pool: ThreadPoolExecutor,
    scratch: Path,
) -> None:
    with catalog.write() as session:
        items = _reserve(session, info, page)
    reach("upload.reserved")
    target = drivers[info.storage_id]
    list(pool.map(lambda item: _copy(item, target, drivers, scratch), items))
    reach("upload.copied")
    with catalog.write() as session:
        session.execute(
            sa.update(Replica)
            .where(
                col(Replica.id).in_([item.replica_id for item in items]),
                col(Replica.state) == ReplicaState.COPYING,
            )
            .values(state=ReplicaState.AVAILABLE),
            execution_options={"synchronize_session": False},
        )
        session.execute(
            sa.update(Upload)
            .where(col(Upload.id) == info.id)
            .values(
                after_id=page[-1].file_id,
                files_done=col(Upload.files_done) + len(page),
                bytes_done=col(Upload.bytes_done) + sum(item.size_bytes for item in page),
            ),
            execution_options={"synchronize_session": False},
        )
    reach("upload.noted")


def _reserve(session: Session, info: UploadInfo, page: Sequence[_Member]) -> list[_Item]:
    """A COPYING replica for each file that has none on the storage yet; those to be copied."""
    ids = [member.file_id for member in page]
    there: dict[int, Any] = {}
    for row in session.execute(
        sa.select(
            col(Replica.id), col(Replica.file_id), col(Replica.path), col(Replica.state)
        ).where(
            col(Replica.file_id).in_(ids),
            col(Replica.storage_id) == info.storage_id,
            col(Replica.state).in_((ReplicaState.AVAILABLE, ReplicaState.COPYING)),
        )
    ):
        if row.file_id not in there or row.state is ReplicaState.AVAILABLE:
            there[row.file_id] = row
    missing = [member for member in page if member.file_id not in there]
    there |= _new_replicas(session, info, missing)
    sources = files.replicas(session, ids)
    return [
        _Item(
            member.file_id,
            member.name,
            member.size_bytes,
            member.checksum,
            sources[member.file_id],
            there[member.file_id].id,
            there[member.file_id].path,
        )
        for member in page
        if there[member.file_id].state is ReplicaState.COPYING
    ]


def _new_replicas(
    session: Session, info: UploadInfo, members: Sequence[_Member]
) -> dict[int, sa.Row[Any]]:
    """A COPYING replica for each, by file id; a path that was used before isn't used again."""
    made: dict[int, sa.Row[Any]] = {}
    left, tries = list(members), 0
    while left:
        rows = [
            {
                "file_id": member.file_id,
                "storage_id": info.storage_id,
                "path": f"{info.dataset}/{member.name}" + (f"~{tries}" if tries else ""),
                "state": ReplicaState.COPYING,
            }
            for member in left
        ]
        columns = (col(Replica.file_id), col(Replica.id), col(Replica.path), col(Replica.state))
        for row in insert_new(session, Replica, rows, *columns):
            made[row.file_id] = row
        left, tries = [member for member in left if member.file_id not in made], tries + 1
    usage.note_all(session, [(info.storage_id, member.size_bytes) for member in members])
    return made


def _copy(
    item: _Item, target: StorageDriver, drivers: Mapping[int, StorageDriver], scratch: Path
) -> None:
    """Have the bytes at their place, and as the catalog knows them there."""
    algorithm = algorithm_of(item.checksum)
    try:
        whole = target.stat(item.path).size_bytes == item.size_bytes
        if whole and target.checksum(item.path, algorithm) == item.checksum:
            return
        # Our reservation, so what lies there is what a run that died has left.
        target.delete(item.path)
    except StorageError as error:
        if error.code is not ErrorCode.INPUT_MISSING:
            raise
    faults = []
    for source in item.sources:
        try:
            _put(item, source, target, drivers[source.storage_id], scratch)
        except StorageError as error:
            if error.code not in (ErrorCode.INPUT_MISSING, ErrorCode.INPUT_CORRUPT):
                raise
            faults.append(str(error))
            continue
        there = target.checksum(item.path, algorithm)
        if there == item.checksum:
            return
        target.delete(item.path)
        faults.append(f"its copy has the checksum {there}, not {item.checksum}")
    told = "; ".join(faults) or "no copy of it is AVAILABLE"
    raise Cannot(f"file {item.name!r} can't be copied: {told}; `spdf file recover` may make it.")


def _put(
    item: _Item,
    source: ReplicaRef,
    target: StorageDriver,
    origin: StorageDriver,
    scratch: Path,
) -> None:
    place = origin.local_path(source.path)
    if place is not None:
        target.put(place, item.path)
        return
    scratch.mkdir(parents=True, exist_ok=True)
    passing = scratch / f"upload-{uuid4().hex}"
    try:
        origin.get(source.path, passing)
        target.put(passing, item.path, move=True)
    finally:
        passing.unlink(missing_ok=True)
