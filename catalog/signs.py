"""Signs: what those who wait look at, often; each look is one statement that costs little."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased
from sqlmodel import col

from catalog import incomplete, obstacles
from catalog.clock import now
from catalog.db import Catalog
from catalog.models import IS_OPEN, Dataset, Job, Node, Pilot, Task, Workflow
from catalog.pilots import LIVE
from catalog.states import FINAL, DatasetState, JobState, NodeState, TaskState
from catalog.tasks import others_ready_query


class WorkflowSigns:
    """What changes where an advance of a workflow may find something to do.

    Files attached and the dataset closed; jobs ended by its pilots, and pilots that came or went;
    nodes that did; jobs that no pilot is there for; the workflow's state and owner. What only
    time brings (a lease that runs out, a retry that is due) is not among them.
    """

    def __init__(self, catalog: Catalog, workflow_id: int, task_ids: Sequence[int]) -> None:
        self._catalog = catalog
        live = sa.and_(col(Pilot.task_id).in_(task_ids), col(Pilot.state).in_(LIVE))
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
        ready = sa.exists().where(
            col(Job.task_id) == col(Task.id), IS_OPEN, col(Job.state) == JobState.READY
        )
        # Begun with the tasks: of those that have pilots no job is looked at.
        unserved = sa.exists().where(
            col(Task.id).in_(task_ids),
            col(Task.id).not_in(sa.select(col(Pilot.task_id)).where(live)),
            ready.correlate(Task),
        )
        self._statement = catalog.prepared(
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

    def look(self) -> Sequence[Any]:
        """The signs as they are now, to be compared with those of another look."""
        return self._catalog.glance(self._statement)


@dataclass(frozen=True)
class Outlook:
    """What a pilot without jobs has to expect.

    `ended`: its task has. `more_may_come`: the workflow's input is OPEN, and doesn't wait for what
    can't come, or a stage before has not ended. `others_wait`: jobs of another task of its pool
    have no pilot, and `others_waited` says whether they have had none for long. `here`: live pilots
    of the pool on its node.
    """

    ended: bool
    more_may_come: bool
    others_wait: bool
    others_waited: bool
    here: int


class TaskSigns:
    """What a pilot of a task looks at while it has no jobs; `long_s` is long for others to wait."""

    def __init__(
        self, catalog: Catalog, task_id: int, *, pool: str, node: str, long_s: float
    ) -> None:
        self._catalog = catalog
        ready = sa.exists().where(
            col(Job.task_id) == task_id,
            IS_OPEN,
            col(Job.state) == JobState.READY,
            sa.or_(col(Job.not_before).is_(None), col(Job.not_before) <= now()),
        )
        here = sa.literal(node)
        self._ready = catalog.prepared(
            sa.select(ready, sa.and_(ready, obstacles.blocked(here, pool, task_id)))
        )
        self.blocked = False
        """Whether the last look found jobs that an outage keeps from this node."""
        other = aliased(Task)
        earlier = (
            col(other.workflow_id) == col(Task.workflow_id),
            col(other.ordinal) < col(Task.ordinal),
            col(other.state).not_in(FINAL[TaskState]),
        )
        before = sa.exists().where(*earlier)
        jobs_before = sa.exists().where(*earlier, col(Job.task_id) == col(other.id), IS_OPEN)
        may_come = sa.case(
            # Nobody gives the input any more: only jobs that there are bring anything.
            (incomplete.nothing_comes(), jobs_before),
            else_=sa.or_(col(Dataset.state) == DatasetState.OPEN, before),
        )
        pilots = sa.select(sa.func.count()).where(
            col(Pilot.state).in_(LIVE), col(Pilot.node) == node, col(Pilot.pool) == pool
        )
        self._outlook = catalog.prepared(
            sa.select(
                col(Task.state).in_(FINAL[TaskState]),
                may_come,
                sa.exists(others_ready_query(pool, task_id)),
                sa.exists(others_ready_query(pool, task_id, waited_s=long_s)),
                pilots.scalar_subquery(),
            )
            .join(Workflow, col(Workflow.id) == col(Task.workflow_id))
            .join(Dataset, col(Dataset.id) == col(Workflow.dataset_id))
            .where(col(Task.id) == task_id)
        )

    def work_there(self) -> bool:
        """Whether the task has a job that can be leased now."""
        ready, blocked = self._catalog.glance(self._ready)
        self.blocked = bool(blocked)
        return bool(ready) and not self.blocked

    def outlook(self) -> Outlook:
        """Whether to stay."""
        ended, more, wait, waited, here = self._catalog.glance(self._outlook)
        return Outlook(bool(ended), bool(more), bool(wait), bool(waited), here)
