"""Backpressure: while a storage is nearly full, who only adds to it waits for who empties it."""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import pilots
from catalog.models import Job, Pilot, Task, Workflow, is_open
from catalog.states import JobState, PilotState, TaskState, WorkflowState

REASON = "the storage is nearly full: stages that read go first"


def may_produce(session: Session, workflow_id: int) -> bool:
    """Whether a workflow's first stages may go on: it is the oldest, and no reader has work."""
    oldest = session.execute(
        sa.select(sa.func.min(col(Workflow.id))).where(
            col(Workflow.state) == WorkflowState.IN_PROGRESS
        )
    ).scalar()
    return oldest == workflow_id and not _readers_have_work(session)


def _readers_have_work(session: Session) -> bool:
    reading = sa.select(col(Task.id)).where(
        col(Task.state) == TaskState.IN_PROGRESS, col(Task.ordinal) > 0
    )
    busy = sa.exists().where(
        col(Job.task_id).in_(reading),
        col(Job.state).in_((JobState.READY, JobState.RUNNING)),
        is_open("job"),
    )
    return bool(session.execute(sa.select(busy)).scalar())


def send_home(session: Session, task_ids: Sequence[int]) -> list[int]:
    """Tell the pilots of these tasks to leave, once they have ended what they have in hand."""
    ids = session.scalars(
        sa.select(col(Pilot.id)).where(
            col(Pilot.task_id).in_(task_ids), col(Pilot.state) == PilotState.ACTIVE
        )
    ).all()
    return pilots.drain(session, list(ids), REASON) if ids else []
