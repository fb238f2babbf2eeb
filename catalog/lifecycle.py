"""What keeps a dataset, or ends it: pins, lifetimes, and what lies between stages."""

from contextlib import suppress

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import datasets, deletion, duties, uploads
from catalog.clock import now
from catalog.datasets import DatasetInfo
from catalog.errors import Conflict, StateConflict
from catalog.models import Dataset, Task, Workflow
from catalog.outage import isolated
from catalog.refs import Retention
from catalog.states import DatasetState, JobState, TaskState
from catalog.transitions import record_change

PINNED, UNPINNED, LIFETIME = "PINNED", "UNPINNED", "LIFETIME"
"""What the events of datasets say."""


def pin(session: Session, dataset_id: int, reason: str) -> DatasetInfo:
    """A dataset is not deleted, by whomever, until it is unpinned. Raises `StateConflict`."""
    _change(session, dataset_id, PINNED, reason, pin=reason)
    return datasets.get(session, dataset_id)


def unpin(session: Session, dataset_id: int) -> DatasetInfo:
    """A dataset may be deleted again; one that isn't pinned stays as it is."""
    if datasets.get(session, dataset_id).pin is not None:
        _change(session, dataset_id, UNPINNED, None, pin=None)
    return datasets.get(session, dataset_id)


def set_lifetime(session: Session, dataset_id: int, lifetime_s: float | None) -> DatasetInfo:
    """A dataset is deleted so long after its close, or never (None). Raises `StateConflict`.

    For one that is CLOSED already the time begins now.
    """
    told = "for ever" if lifetime_s is None else f"{lifetime_s:.0f} s"
    closed = sa.case((col(Dataset.closed_at).is_(None), None), else_=now(lifetime_s or 0.0))
    _change(
        session,
        dataset_id,
        LIFETIME,
        told,
        lifetime_s=lifetime_s,
        expires_at=None if lifetime_s is None else closed,
    )
    return datasets.get(session, dataset_id)


def _change(
    session: Session, dataset_id: int, word: str, message: str | None, **values: object
) -> None:
    kept = (DatasetState.OPEN, DatasetState.CLOSED)
    changed = session.execute(
        sa.update(Dataset)
        .where(col(Dataset.id) == dataset_id, col(Dataset.state).in_(kept))
        .values(**values)
        .returning(col(Dataset.id))
    ).scalar()
    if changed is None:
        info = datasets.get(session, dataset_id)
        raise StateConflict("dataset", info.name, info.state, "changed", "its files are going")
    record_change(session, Dataset, dataset_id, word, message)


def release(session: Session, after: int, limit: int = 200) -> tuple[list[str], int]:
    """Mark what lies between stages and isn't needed any more, beyond a dataset's id.

    Gives the names of what goes, and where to go on (0: from the start).
    """
    rows = session.execute(
        sa.select(
            col(Dataset.id),
            col(Dataset.name),
            col(Dataset.retention),
            col(Dataset.readers),
            col(Task.workflow_id),
        )
        .join(Task, col(Task.id) == col(Dataset.task_id))
        .where(
            sa.text("dataset.state = 'CLOSED' AND dataset.retention IS NOT NULL"),
            col(Dataset.id) > after,
            col(Dataset.pin).is_(None),
        )
        .order_by(col(Dataset.id))
        .limit(limit)
    ).all()
    gone = []
    for row in rows:
        if not _is_over(session, row.workflow_id, row.retention, row.readers or []):
            continue
        why = "its readers are FINISHED"
        if row.retention is Retention.UPLOADED:
            why = "what was made of it is uploaded"
        with isolated("dataset", row.name), suppress(Conflict):
            with session.begin_nested():
                deletion.mark_by_itself(session, row.id, why, consumed=True)
            gone.append(row.name)
    return gone, rows[-1].id if len(rows) == limit else 0


def _is_over(session: Session, workflow_id: int, retention: Retention, readers: list[str]) -> bool:
    if retention is Retention.UPLOADED:
        return _is_uploaded(session, workflow_id)
    stages = session.execute(
        sa.select(col(Task.state), col(Task.counts)).where(
            col(Task.workflow_id) == workflow_id, col(Task.stage).in_(readers)
        )
    ).all()
    # What a job read that failed is unprocessed, though its task is FINISHED within its goal.
    return bool(stages) and all(
        row.state is TaskState.FINISHED and not (row.counts or {}).get(JobState.FAILED)
        for row in stages
    )


def _is_uploaded(session: Session, workflow_id: int) -> bool:
    """Whether a workflow is FINISHED, whole, and all that it is for has been uploaded."""
    query = sa.select(col(Workflow.id)).where(col(Workflow.id) == workflow_id, duties.is_whole())
    if session.execute(query).first() is None:
        return False
    outputs = session.scalars(
        sa.select(col(Dataset.id))
        .join(Task, col(Task.id) == col(Dataset.task_id))
        .where(
            col(Task.workflow_id) == workflow_id,
            col(Dataset.retention).is_(None),
            col(Dataset.port) != "log",
        )
    ).all()
    return bool(outputs) and all(uploads.is_done(session, dataset) for dataset in outputs)
