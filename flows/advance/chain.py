"""A workflow as the advancer sees it: its plan beside the rows of its tasks."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlmodel import Session

from catalog import ownership, tasks, templates, workflows
from catalog.db import Catalog
from catalog.errors import Conflict
from catalog.outage import Over
from catalog.states import WorkflowState
from catalog.tasks import TaskInfo
from flows.plan import Plan, Stage, StageKind, plan_from_json

BATCH = 1000
"""Jobs defined in one transaction."""


class OwnershipLost(Over, Conflict):
    """Another run advances the workflow now; this one must stop."""


class NotRunning(Over, Conflict):
    """The workflow is no longer IN_PROGRESS; nothing is advanced."""

    def __init__(self, state: WorkflowState) -> None:
        self.state = state
        super().__init__(f"the workflow is {state}.")


@dataclass(frozen=True)
class Chain:
    """What stays the same while a workflow is advanced under one epoch."""

    catalog: Catalog
    workflow_id: int
    dataset_id: int
    epoch: int
    lease_s: float
    plan: Plan
    task_ids: dict[str, int]

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that happens only while this run owns the workflow and it goes on."""
        with self.catalog.write() as session:
            state = ownership.beat(session, self.workflow_id, self.epoch, self.lease_s)
            if state is None:
                raise OwnershipLost(f"workflow {self.workflow_id} has another owner.")
            if state is not WorkflowState.IN_PROGRESS:
                raise NotRunning(state)
            yield session

    def task(self, session: Session, stage: Stage) -> TaskInfo:
        """The stage's task as it stands."""
        return tasks.get(session, self.task_ids[stage.name])

    def followers(self, stage: Stage) -> tuple[Stage, ...]:
        """Map stages whose jobs are defined as soon as this stage's jobs end."""
        return tuple(
            other
            for other in self.plan.stages
            if stage.name in other.upstreams and other.kind is StageKind.MAP and not other.barrier
        )


def load(catalog: Catalog, workflow_id: int, epoch: int, lease_s: float) -> Chain:
    """The chain of a workflow that this process owns under `epoch`."""
    with catalog.read() as session:
        info = workflows.get(session, workflow_id)
        plan = plan_from_json(templates.get_by_id(session, info.template_id).plan)
        rows = tasks.of_workflow(session, workflow_id)
    return Chain(
        catalog=catalog,
        workflow_id=workflow_id,
        dataset_id=info.dataset_id,
        epoch=epoch,
        lease_s=lease_s,
        plan=plan,
        task_ids={task.stage: task.id for task in rows},
    )
