"""Places on a storage for the files of an upload: each is a COPYING replica before bytes go there.

A reservation makes nothing ours: where other bytes lie by then they stay, and the file gets another
place.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import files, usage
from catalog.bulk import insert_new
from catalog.drivers import StorageDriver
from catalog.errors import ErrorCode, StorageError
from catalog.models import DatasetFile, File, Replica
from catalog.names import below, beside
from catalog.states import ReplicaState
from catalog.transitions import move
from catalog.uploadcopies import UploadCopy
from catalog.uploads import UploadInfo


@dataclass(frozen=True)
class Member:
    """A file of the dataset that is uploaded."""

    file_id: int
    name: str
    size_bytes: int
    checksum: str


def page(session: Session, info: UploadInfo, after: int, limit: int) -> list[Member]:
    """The next files of the dataset, by id."""
    rows = session.execute(
        sa.select(
            col(DatasetFile.file_id),
            col(DatasetFile.name),
            col(File.size_bytes),
            col(File.checksum),
        )
        .join(File, col(File.id) == col(DatasetFile.file_id))
        .where(col(DatasetFile.dataset_id) == info.dataset_id, col(DatasetFile.file_id) > after)
        .order_by(col(DatasetFile.file_id))
        .limit(limit)
    )
    return [Member(*row) for row in rows]


def done(session: Session, info: UploadInfo) -> tuple[int, int]:
    """How many files are there, and of how many bytes."""
    is_there = sa.exists().where(
        col(Replica.file_id) == col(DatasetFile.file_id),
        col(Replica.storage_id) == info.storage_id,
        col(Replica.state) == ReplicaState.AVAILABLE,
    )
    row = session.execute(
        sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(col(File.size_bytes)), 0))
        .select_from(DatasetFile)
        .join(File, col(File.id) == col(DatasetFile.file_id))
        .where(
            col(DatasetFile.dataset_id) == info.dataset_id,
            sa.or_(col(DatasetFile.file_id) <= info.after_id, is_there),
        )
    ).one()
    return int(row[0]), int(row[1])


def is_taken(target: StorageDriver, info: UploadInfo, member: Member) -> bool:
    """Whether there are bytes at a file's place already, of whomever."""
    try:
        target.stat(_path(info, member))
    except StorageError as error:
        if error.code is ErrorCode.INPUT_MISSING:
            return False
        raise
    return True


def reserve(
    session: Session, info: UploadInfo, page: Sequence[Member], strange: Collection[int]
) -> list[UploadCopy]:
    """A COPYING replica for each file that has none on the storage yet; those to be copied.

    Bytes at the place of a `strange` file are another's: it gets a place of this upload's own.
    """
    ids = [member.file_id for member in page]
    found = there(session, info, page)
    missing = [member for member in page if member.file_id not in found]
    found |= _new_replicas(session, info, missing, strange)
    sources = files.replicas(session, ids)
    return [
        UploadCopy(
            member.file_id,
            member.name,
            member.size_bytes,
            member.checksum,
            sources[member.file_id],
            found[member.file_id].id,
            found[member.file_id].path,
        )
        for member in page
        if found[member.file_id].state is ReplicaState.COPYING
    ]


def there(session: Session, info: UploadInfo, page: Sequence[Member]) -> dict[int, sa.Row[Any]]:
    """By file id, a replica on the storage: AVAILABLE, or else reserved by an earlier run."""
    found: dict[int, sa.Row[Any]] = {}
    for row in session.execute(
        sa.select(
            col(Replica.id), col(Replica.file_id), col(Replica.path), col(Replica.state)
        ).where(
            col(Replica.file_id).in_([member.file_id for member in page]),
            col(Replica.storage_id) == info.storage_id,
            col(Replica.state).in_((ReplicaState.AVAILABLE, ReplicaState.COPYING)),
        )
    ):
        if row.file_id not in found or row.state is ReplicaState.AVAILABLE:
            found[row.file_id] = row
    return found


def elsewhere(session: Session, info: UploadInfo, items: Sequence[UploadCopy]) -> list[UploadCopy]:
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
    members = [Member(i.file_id, i.name, i.size_bytes, i.checksum) for i in mine]
    new = _new_replicas(session, info, members, {item.file_id for item in mine})
    return [
        replace(item, replica_id=new[item.file_id].id, path=new[item.file_id].path) for item in mine
    ]


def _path(info: UploadInfo, member: Member) -> str:
    folder, _, name = f"{info.dataset}/{member.name}".rpartition("/")
    return below(folder, name)


def _free_path(info: UploadInfo, member: Member, tries: int, taken: bool) -> str:
    path = _path(info, member)
    return beside(path, f"~{info.id}.{tries}") if tries or taken else path


def _new_replicas(
    session: Session, info: UploadInfo, members: Sequence[Member], strange: Collection[int]
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
