"""Why bytes that are to go are there still: a row for each dataset and storage, till they go."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog.models import Dataset, DeletionFault, Storage


@dataclass(frozen=True)
class Stayed:
    """Files of one storage whose bytes could not go: how many, one of them, and why that one.

    Without a storage it is the whole dataset's deletion that could not be done.
    """

    storage_id: int | None
    files: int
    path: str | None
    reason: str

    def and_also(self, other: "Stayed") -> "Stayed":
        """Both together, of the same storage."""
        return Stayed(self.storage_id, self.files + other.files, self.path, self.reason)


@dataclass(frozen=True)
class FaultInfo:
    """As `Stayed`, as its row stood; `since` is when it was found first."""

    dataset: str
    storage: str | None
    files: int
    path: str | None
    reason: str
    since: datetime
    created_at: datetime


def replace(session: Session, dataset_id: int, stayed: Sequence[Stayed]) -> None:
    """Write down what a run found; what it didn't find any more is over."""
    gone = session.execute(
        sa.delete(DeletionFault)
        .where(col(DeletionFault.dataset_id) == dataset_id)
        .returning(col(DeletionFault.storage_id), col(DeletionFault.since)),
        execution_options={"synchronize_session": False},
    ).all()
    since = {row.storage_id: row.since for row in gone}
    for item in stayed:
        found = {} if item.storage_id not in since else {"since": since[item.storage_id]}
        session.execute(
            sa.insert(DeletionFault).values(
                dataset_id=dataset_id,
                storage_id=item.storage_id,
                files=item.files,
                path=item.path,
                reason=item.reason,
                **found,
            )
        )


def of_dataset(session: Session, dataset_id: int) -> list[FaultInfo]:
    """Why a dataset's bytes are there still, by storage; [] where its last run met nothing."""
    query = _select().where(col(DeletionFault.dataset_id) == dataset_id)
    rows = session.execute(query.order_by(col(Storage.name)))
    return [FaultInfo(**row._mapping) for row in rows]


def oldest(session: Session, limit: int) -> list[FaultInfo]:
    """Why bytes of datasets are there still, of all datasets; the oldest first."""
    rows = session.execute(_select().order_by(col(DeletionFault.id)).limit(limit))
    return [FaultInfo(**row._mapping) for row in rows]


def count(session: Session) -> int:
    """How many of them there are."""
    return int(session.execute(sa.select(sa.func.count()).select_from(DeletionFault)).scalar_one())


def _select() -> sa.Select[Any]:
    return (
        sa.select(
            col(Dataset.name).label("dataset"),
            col(Storage.name).label("storage"),
            col(DeletionFault.files),
            col(DeletionFault.path),
            col(DeletionFault.reason),
            col(DeletionFault.since),
            col(DeletionFault.created_at),
        )
        .join(Dataset, col(Dataset.id) == col(DeletionFault.dataset_id))
        .outerjoin(Storage, col(Storage.id) == col(DeletionFault.storage_id))
    )
