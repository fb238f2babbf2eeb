"""Transfers: the bytes of an upload copied, file by file, and verified where they are then.

A file's place is reserved by a COPYING replica before its bytes go there, so that a crash leaves
nothing that isn't known. A run that died is gone on with where its last batch ended.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import files, storages, uploads, usage
from catalog.bulk import insert_new
from catalog.checksums import algorithm_of
from catalog.clock import now
from catalog.db import Catalog
from catalog.drivers import StorageDriver, driver_for
from catalog.errors import Conflict, ErrorCode, StorageError
from catalog.failpoints import reach
from catalog.models import DatasetFile, File, Replica, Upload
from catalog.refs import ReplicaRef
from catalog.states import ReplicaState, UploadState
from catalog.transitions import move, move_one
from catalog.uploads import UploadInfo

BATCH = 64
THREADS = 4


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
        info = uploads.get(session, upload_id)
        if info.state is UploadState.QUEUED:
            move_one(session, Upload, upload_id, UploadState.RUNNING, started_at=now())
        elif info.state is not UploadState.RUNNING:
            return info
        drivers = {s.id: driver_for(s) for s in storages.list_all(session)}
    with ThreadPoolExecutor(threads, thread_name_prefix="upload") as pool:
        while True:
            with catalog.read() as session:
                info = uploads.get(session, upload_id)
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
        return uploads.get(session, upload_id)


def _fail(catalog: Catalog, upload_id: int, reason: str) -> UploadInfo:
    with catalog.write() as session:
        move(
            session, Upload, [upload_id], UploadState.FAILED,
            message=reason, reason=reason, ended_at=now(),
        )  # fmt: skip
        return uploads.get(session, upload_id)


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
    target = drivers[info.storage_id]
    strange = _strange(catalog, info, page, target, pool)
    with catalog.write() as session:
        items = _reserve(session, info, page, strange)
    reach("upload.reserved")
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


def _strange(
    catalog: Catalog,
    info: UploadInfo,
    page: Sequence[_Member],
    target: StorageDriver,
    pool: ThreadPoolExecutor,
) -> set[int]:
    """Files at whose place on the storage there are bytes already, of whomever."""
    with catalog.read() as session:
        there = _there(session, info, page)
    missing = [member for member in page if member.file_id not in there]

    def is_taken(member: _Member) -> bool:
        try:
            target.stat(_path(info, member))
        except StorageError as error:
            if error.code is ErrorCode.INPUT_MISSING:
                return False
            raise
        return True

    taken = pool.map(is_taken, missing)
    return {member.file_id for member, yes in zip(missing, taken, strict=True) if yes}


def _path(info: UploadInfo, member: _Member) -> str:
    return f"{info.dataset}/{member.name}"


def _there(session: Session, info: UploadInfo, page: Sequence[_Member]) -> dict[int, sa.Row[Any]]:
    """By file id, a replica on the storage: AVAILABLE, or else reserved by an earlier run."""
    there: dict[int, sa.Row[Any]] = {}
    for row in session.execute(
        sa.select(
            col(Replica.id), col(Replica.file_id), col(Replica.path), col(Replica.state)
        ).where(
            col(Replica.file_id).in_([member.file_id for member in page]),
            col(Replica.storage_id) == info.storage_id,
            col(Replica.state).in_((ReplicaState.AVAILABLE, ReplicaState.COPYING)),
        )
    ):
        if row.file_id not in there or row.state is ReplicaState.AVAILABLE:
            there[row.file_id] = row
    return there


def _reserve(
    session: Session, info: UploadInfo, page: Sequence[_Member], strange: Collection[int]
) -> list[_Item]:
    """A COPYING replica for each file that has none on the storage yet; those to be copied.

    Bytes at the place of a `strange` file are another's: it gets a place of this upload's own.
    """
    ids = [member.file_id for member in page]
    there = _there(session, info, page)
    missing = [member for member in page if member.file_id not in there]
    there |= _new_replicas(session, info, missing, strange)
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
    session: Session, info: UploadInfo, members: Sequence[_Member], strange: Collection[int]
) -> dict[int, sa.Row[Any]]:
    """A COPYING replica for each, by file id; a path that was used before isn't used again."""
    made: dict[int, sa.Row[Any]] = {}
    left, tries = list(members), 0
    while left:
        rows = [
            {
                "file_id": member.file_id,
                "storage_id": info.storage_id,
                "path": _path(info, member)
                + (f"~{info.id}.{tries}" if tries or member.file_id in strange else ""),
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
