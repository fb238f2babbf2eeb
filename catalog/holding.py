"""Held jobs: what an operator lets go on once its cause is gone."""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import outages
from catalog.models import IS_OPEN, Job, Task
from catalog.rowsets import among
from catalog.states import JobState, TaskState, is_final

_OPEN = [state for state in TaskState if not is_final(state)]


def release(
    session: Session,
    *,
    job_ids: Sequence[int] = (),
    task_id: int | None = None,
    workflow_id: int | None = None,
) -> int:
    """Make HELD jobs READY, with their losses and faults of ours forgotten; gives how many.

    The jobs named, or those of a task, or of a workflow. Jobs of a task that has ended stay.
    """
    chosen = [col(Job.state) == JobState.HELD]
    if job_ids:
        chosen.append(among(session, col(Job.id), job_ids))
    if task_id is not None:
        chosen.append(col(Job.task_id) == task_id)
    open_tasks = sa.select(col(Task.id)).where(col(Task.state).in_(_OPEN))
    if workflow_id is not None:
        open_tasks = open_tasks.where(col(Task.workflow_id) == workflow_id)
    released = session.execute(
        sa.update(Job)
        .where(IS_OPEN, *chosen, col(Job.task_id).in_(open_tasks))
        .values(
            state=JobState.READY,
            losses=0,
            forgiven=col(Job.attempt),
            error=None,
            reason=None,
            not_before=None,
            ended_at=None,
        )
        .returning(col(Job.id), col(Job.task_id))
    ).all()
    outages.release(session, sorted({row.task_id for row in released}))
    return len(released)
