"""Arrivals: what the catalog has of the paths that a look found."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import aliased
from sqlmodel import Session, col

from catalog.models import Dataset, DatasetFile, File, Replica
from catalog.rowsets import among
from catalog.states import DatasetState, ReplicaState


@dataclass(frozen=True)
class Place:
    """A dataset that files arrive for."""

    id: int
    state: DatasetState


@dataclass(frozen=True)
class Registered:
    """A file of a dataset, as it was registered; `mtime_us` is its stamp's time, if it has one."""

    size_bytes: int
    mtime_us: int | None


def places(session: Session, names: Collection[str]) -> dict[str, Place]:
    """The datasets of these names, whatever their state but DELETED: such a name is free."""
    if not names:
        return {}
    rows = session.execute(
        sa.select(col(Dataset.name), col(Dataset.id), col(Dataset.state)).where(
            among(session, col(Dataset.name), names),
            col(Dataset.state) != DatasetState.DELETED,
        )
    )
    return {row.name: Place(row.id, row.state) for row in rows}


def known_names(session: Session, names: Collection[str]) -> set[str]:
    """Those of the names that a dataset has or had, in whatever state."""
    query = sa.select(col(Dataset.name)).where(among(session, col(Dataset.name), names))
    return set(session.scalars(query))


def members(session: Session, storage_id: int, wanted: Mapping[str, int]) -> dict[str, Registered]:
    """Of paths on a storage, given with the dataset that each belongs to, those that are in it.

    That it is in another dataset says nothing.
    """
    if not wanted:
        return {}
    # Not through the ORM: of a look that finds thousands its rows were half the work.
    rows = session.connection().execute(
        sa.select(
            col(Replica.path),
            col(DatasetFile.dataset_id),
            col(File.size_bytes),
            col(Replica.mtime_us),
        )
        .join(DatasetFile, col(DatasetFile.file_id) == col(Replica.file_id))
        .join(File, col(File.id) == col(Replica.file_id))
        .where(
            col(Replica.storage_id) == storage_id,
            among(session, col(Replica.path), wanted),
            among(session, col(DatasetFile.dataset_id), set(wanted.values())),
            col(Replica.state) != ReplicaState.DELETED,
        )
    )
    return {
        path: Registered(size_bytes, mtime_us)
        for path, dataset_id, size_bytes, mtime_us in rows
        if dataset_id == wanted[path]
    }


def counts(session: Session, dataset_ids: Collection[int]) -> dict[int, int]:
    """How many files datasets have now, by id; those without any are left out."""
    if not dataset_ids:
        return {}
    rows = session.execute(
        sa.select(col(DatasetFile.dataset_id), sa.func.count().label("files"))
        .where(among(session, col(DatasetFile.dataset_id), dataset_ids))
        .group_by(col(DatasetFile.dataset_id))
    )
    return {row.dataset_id: row.files for row in rows}


def counts_on(session: Session, storage_id: int, dataset_ids: Collection[int]) -> dict[int, int]:
    """How many files of datasets are on a storage, by the rows."""
    rows = session.execute(
        sa.select(col(DatasetFile.dataset_id), sa.func.count().label("files"))
        .join(Replica, col(Replica.file_id) == col(DatasetFile.file_id))
        .where(
            among(session, col(DatasetFile.dataset_id), dataset_ids),
            col(Replica.storage_id) == storage_id,
            col(Replica.state) != ReplicaState.DELETED,
        )
        .group_by(col(DatasetFile.dataset_id))
    )
    return {row.dataset_id: row.files for row in rows}


def only_there(session: Session, storage_id: int, dataset_id: int) -> Iterator[tuple[str, int]]:
    """Path and bytes of a dataset's files that have no good copy but on that storage."""
    elsewhere = aliased(Replica)
    rows = session.execute(
        sa.select(col(Replica.path), col(File.size_bytes))
        .join(DatasetFile, col(DatasetFile.file_id) == col(Replica.file_id))
        .join(File, col(File.id) == col(Replica.file_id))
        .where(
            col(DatasetFile.dataset_id) == dataset_id,
            col(Replica.storage_id) == storage_id,
            col(Replica.state) != ReplicaState.DELETED,
            ~sa.exists().where(
                col(elsewhere.file_id) == col(Replica.file_id),
                col(elsewhere.storage_id) != storage_id,
                col(elsewhere.state) == ReplicaState.AVAILABLE,
            ),
        ),
        execution_options={"yield_per": 2000},
    )
    for row in rows:
        yield row.path, row.size_bytes
