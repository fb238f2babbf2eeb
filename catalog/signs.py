"""Signs: what those who wait look at, often; each look is one statement that costs little."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog.clock import now
from catalog.models import Dataset, Job, Node, Pilot, Task, Workflow
from catalog.pilots import LIVE
from catalog.states import FINAL, DatasetState, JobState, NodeState, TaskState


class WorkflowSigns:
    """What changes where an advance of a workflow may find something to do.

    Files attached and the dataset closed; jobs ended by its pilots, and pilots that came or went;
    nodes that did; jobs that no pilot is there for; the workflow's state and owner. What only
    time brings (a lease that runs out, a retry that is due) is not among them.
    """

    def __init__(self, workflow_id: int, task_ids: Sequence[int]) -> None:
        ids = list(task_ids)
        live = sa.and_(col(Pilot.task_id).in_(ids), col(Pilot.state).in_(LIVE))
        pilots = (
            sa.select(
                sa.func.count().label("live"),
                sa.func.max(col(Pilot.id)).label("last"),
                sa.func.sum(col(Pilot.jobs_done)).label("done"),
            )
            .where(live)
            .subquery()
        )
        nodes = sa.select(sa.func.count()).where(col(Node.state) == NodeState.ONLINE)
        unserved = sa.exists().where(
            col(Job.task_id).in_(ids),
            col(Job.state) == JobState.READY,
            col(Job.task_id).not_in(sa.select(col(Pilot.task_id)).where(live)),
        )
        self._query: sa.Select[Any] = (
            sa.select(
                col(Workflow.state),
                col(Workflow.epoch),
                col(Dataset.state),
                col(Dataset.next_position),
                pilots,
                nodes.scalar_subquery(),
                unserved,
            )
            .select_from(Workflow)
            .join(Dataset, col(Dataset.id) == col(Workflow.dataset_id))
            .join(pilots, sa.true())
            .where(col(Workflow.id) == workflow_id)
        )

    def look(self, session: Session) -> tuple[object, ...]:
        """The signs as they are now, to be compared with those of another look."""
        return tuple(session.execute(self._query).one())


def has_ready(session: Session, task_id: int) -> bool:
    """Whether a task has a job that can be leased now."""
    found = session.execute(
        sa.select(sa.literal(1))
        .where(
            col(Job.task_id) == task_id,
            col(Job.state) == JobState.READY,
            sa.or_(col(Job.not_before).is_(None), col(Job.not_before) <= now()),
        )
        .limit(1)
    ).scalar()
    return found is not None


def more_may_come(session: Session, task_id: int) -> bool:
    """Whether a task may get jobs yet: its input is OPEN, or a stage before it has not ended."""
    mine = sa.select(col(Task.workflow_id), col(Task.ordinal)).where(col(Task.id) == task_id)
    task = mine.subquery()
    before = sa.exists().where(
        col(Task.workflow_id) == task.c.workflow_id,
        col(Task.ordinal) < task.c.ordinal,
        col(Task.state).not_in(FINAL[TaskState]),
    )
    found = session.execute(
        sa.select(sa.or_(col(Dataset.state) == DatasetState.OPEN, before))
        .select_from(task)
        .join(Workflow, col(Workflow.id) == task.c.workflow_id)
        .join(Dataset, col(Dataset.id) == col(Workflow.dataset_id))
    ).scalar()
    return bool(found)
