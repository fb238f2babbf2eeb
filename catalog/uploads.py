"""Uploads: CLOSED datasets on their way to other storages, as rows; `transfers` moves the bytes."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import datasets, manifests, troubles
from catalog.bulk import insert_new
from catalog.clock import now
from catalog.errors import NotFound, StateConflict
from catalog.models import Dataset, Storage, Trouble, Upload
from catalog.states import DatasetState, UploadState
from catalog.transitions import move_one, record
from catalog.troubles import Of

GOING = (UploadState.QUEUED, UploadState.RUNNING)
SOURCE = "upload"
"""Who notes what is in the way of uploads that go on for all that; see `troubles`."""


@dataclass(frozen=True)
class UploadInfo:
    """An upload as its row stood; `waits_for` is what its last run met, where it is tried again."""

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
    waits_for: str | None


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
    sa.select(col(Trouble.error))
    .where(
        col(Trouble.source) == SOURCE,
        col(Trouble.entity) == Of.UPLOAD.value,
        col(Trouble.entity_id) == col(Upload.id),
    )
    .scalar_subquery()
    .label("waits_for"),
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
    _hold_closed(session, dataset_id)
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
        _retry(session, last)
    elif cancel:
        name = datasets.get(session, dataset_id).name
        raise NotFound("upload of dataset", name, "`spdf dataset show` names those there are")
    else:
        return get(session, ask(session, dataset_id, storage_id))
    return get(session, last.id)


def _hold_closed(session: Session, dataset_id: int) -> None:
    """Keep a dataset from being deleted until the transaction ends; raises `StateConflict`."""
    held = session.execute(
        sa.select(col(Dataset.id))
        .where(col(Dataset.id) == dataset_id, col(Dataset.state) == DatasetState.CLOSED)
        .with_for_update(read=True)
    ).scalar()
    if held is None:
        info = datasets.get(session, dataset_id)
        why = "only a CLOSED dataset can be; its files don't change any more"
        raise StateConflict("dataset", info.name, info.state, "uploaded", why)


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
    end_trouble(session, upload_id)


def _retry(session: Session, upload: UploadInfo) -> None:
    """Queue a FAILED upload again; it goes on where it ended.

    Raises `StateConflict`, also for a dataset that is CLOSED no longer.
    """
    _hold_closed(session, upload.dataset_id)
    move_one(
        session, Upload, upload.id, UploadState.QUEUED,
        message="retry", reason=None, ended_at=None,
    )  # fmt: skip


def set_flow_run(session: Session, upload_id: int, flow_run_id: str) -> None:
    """Note the flow run that does it."""
    session.execute(
        sa.update(Upload).where(col(Upload.id) == upload_id).values(flow_run_id=flow_run_id),
        execution_options={"synchronize_session": False},
    )


def end_trouble(session: Session, upload_id: int) -> None:
    """Whatever it waited for, it does no longer: it got further, or has ended."""
    troubles.end(session, SOURCE, Of.UPLOAD, upload_id)
