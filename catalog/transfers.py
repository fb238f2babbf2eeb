"""Transfers: the bytes of an upload copied, file by file, and verified where they are then.

A file's place is reserved by a COPYING replica before its bytes go there, so that a crash leaves
nothing that isn't known. A run that died is gone on with where its last batch ended. A reservation
makes nothing ours: where other bytes lie by then they stay, and the file gets another place.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import erasure, files, standing, storages, troubles, uploads, usage
from catalog.bulk import insert_new
from catalog.clock import now
from catalog.db import Catalog
from catalog.drivers import Drivers, StorageDriver
from catalog.errors import ERRORS, ErrorClass, ErrorCode, SpdfError, StorageError
from catalog.failpoints import reach
from catalog.models import DatasetFile, File, Replica, Upload
from catalog.names import beside
from catalog.outage import sentence
from catalog.states import ReplicaState, UploadState
from catalog.transitions import move, move_one
from catalog.troubles import Of
from catalog.uploadcopies import Cannot, UploadCopy, bring
from catalog.uploads import UploadInfo

BATCH = 64
THREADS = 4
_MOST_PLACES = 5
"""Places that are tried for a file in one run."""


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
    what goes from one S3 server to another. Raises `StorageError` where a storage is away, and
    `OSError` where this machine can't: run it again later, as its trouble says until it gets
    further. Whatever else is in its way ends it as FAILED.
    """
    with catalog.write() as session:
        info = uploads.get(session, upload_id)
        if info.state is UploadState.QUEUED:
            move_one(session, Upload, upload_id, UploadState.RUNNING, started_at=now())
        elif info.state is not UploadState.RUNNING:
            return info
    standing.adopt(catalog, info.storage_id, first=True)
    with catalog.read() as session:
        drivers = Drivers(storages.list_all(session))
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
            except (SpdfError, OSError) as error:
                if not _is_outage(error):
                    return _fail(catalog, upload_id, str(error))
                name = f"{info.dataset} to {info.storage}"
                with catalog.write() as session:
                    troubles.write(
                        session, uploads.SOURCE, Of.UPLOAD, upload_id, name, sentence(error)
                    )
                raise


def _is_outage(error: SpdfError | OSError) -> bool:
    if isinstance(error, OSError):
        return True
    if isinstance(error, StorageError):
        return ERRORS[error.code].error_class is ErrorClass.OUTAGE
    return error.is_outage


def _finish(catalog: Catalog, upload_id: int) -> UploadInfo:
    reach("upload.ends")
    with catalog.write() as session:
        move(session, Upload, [upload_id], UploadState.DONE, ended_at=now())
        uploads.end_trouble(session, upload_id)
        return uploads.get(session, upload_id)


def _fail(catalog: Catalog, upload_id: int, reason: str) -> UploadInfo:
    with catalog.write() as session:
        move(
            session, Upload, [upload_id], UploadState.FAILED,
            message=reason, reason=reason, ended_at=now(),
        )  # fmt: skip
        uploads.end_trouble(session, upload_id)
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

    copies = _copy_all(catalog, info, items, drivers, pool, scratch)
    reach("upload.copied")
    with catalog.write() as session:
        session.execute(
            sa.update(Replica)
            .where(
                col(Replica.id).in_([item.replica_id for item in copies]),
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
        uploads.end_trouble(session, info.id)
    reach("upload.noted")


def _copy_all(
    catalog: Catalog,
    info: UploadInfo,
    items: Sequence[UploadCopy],
    drivers: Mapping[int, StorageDriver],
    pool: ThreadPoolExecutor,
    scratch: Path,
) -> list[UploadCopy]:
    """Copy the files, each to its place, or to another one where other bytes lie there by now."""
    target = drivers[info.storage_id]

    def take_away(path: str) -> None:
        if fault := erasure.erase(catalog, info.storage_id, target, [path]).get(path):
            raise fault

    def copy(item: UploadCopy) -> bool:
        return bring(item, target, drivers, scratch, take_away)

    copied: list[UploadCopy] = []
    for _ in range(_MOST_PLACES):
        done = list(pool.map(copy, items))
        copied += [item for item, is_there in zip(items, done, strict=True) if is_there]
        strange = [item for item, is_there in zip(items, done, strict=True) if not is_there]
        if not strange:
            return copied
        with catalog.write() as session:
            items = _elsewhere(session, info, strange)
    raise Cannot(
        f"file {strange[0].name!r} can't be copied: other bytes came to each of {_MOST_PLACES} "
        f"places reserved for it, the last time to {strange[0].path!r}, and stay there; find out "
        "who writes there."
    )


def _elsewhere(session: Session, info: UploadInfo, items: Sequence[UploadCopy]) -> list[UploadCopy]:
    """These files with new places; what lies under the old ones isn't ours, and stays."""
    old = {item.replica_id: item for item in items}
    told = "other bytes lie under its path, where an upload would have put it; they stay"
    given_up = move(
        session, Replica, list(old), ReplicaState.DELETING,
        only_from=(ReplicaState.COPYING,), message=told,
    )  # fmt: skip
    move(session, Replica, given_up, ReplicaState.DELETED, message=told)
    mine = [old[replica_id] for replica_id in given_up]
    usage.note_all(session, [(info.storage_id, item.size_bytes) for item in mine], sign=-1)
    members = [_Member(i.file_id, i.name, i.size_bytes, i.checksum) for i in mine]
    new = _new_replicas(session, info, members, {item.file_id for item in mine})
    return [
        replace(item, replica_id=new[item.file_id].id, path=new[item.file_id].path) for item in mine
    ]


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


def _free_path(info: UploadInfo, member: _Member, tries: int, taken: bool) -> str:
    path = _path(info, member)
    return beside(path, f"~{info.id}.{tries}") if tries or taken else path


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
) -> list[UploadCopy]:
    """A COPYING replica for each file that has none on the storage yet; those to be copied.

    Bytes at the place of a `strange` file are another's: it gets a place of this upload's own.
    """
    ids = [member.file_id for member in page]
    there = _there(session, info, page)
    missing = [member for member in page if member.file_id not in there]
    there |= _new_replicas(session, info, missing, strange)
    sources = files.replicas(session, ids)
    return [
        UploadCopy(
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
                "path": _free_path(info, member, tries, member.file_id in strange),
                "state": ReplicaState.COPYING,
                "in_place": False,
            }
            for member in left
        ]
        columns = (col(Replica.file_id), col(Replica.id), col(Replica.path), col(Replica.state))
        for row in insert_new(session, Replica, rows, *columns):
            made[row.file_id] = row
        left, tries = [member for member in left if member.file_id not in made], tries + 1
    usage.note_all(session, [(info.storage_id, member.size_bytes) for member in members])
    return made
