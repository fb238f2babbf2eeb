"""Workflows: one template applied to one input dataset, its tasks and its output datasets."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog.attempts import cancel_running
from catalog.clock import now
from catalog.errors import Conflict, NotFound, StateConflict
from catalog.models import IS_OPEN, Dataset, Job, Replica, Task, Template, Workflow
from catalog.names import check_name
from catalog.refs import Retention
from catalog.rowsets import among
from catalog.states import (
    DatasetState,
    JobState,
    ReplicaState,
    TaskState,
    TemplateState,
    WorkflowState,
)
from catalog.transitions import move, move_one, record


@dataclass(frozen=True)
class NewTask:
    """A stage to be executed; `outputs` maps each port (and `log`) to its storage's id."""

    stage: str
    pool: str
    rank: int
    outputs: Mapping[str, int]
    readers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By port, of what is no output of the workflow: the stages that read it."""


@dataclass(frozen=True)
class WorkflowInfo:
    """A workflow as its row stood."""

    id: int
    template: str
    version: int
    template_id: int
    dataset: str
    dataset_id: int
    inputs: dict[str, Any]
    number: int
    rank: int
    state: WorkflowState
    reason: str | None
    owner: str | None
    epoch: int
    flow_run_id: str | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None

    @property
    def label(self) -> str:
        """What people call it: template, version, dataset."""
        again = f" r{self.number}" if self.number > 1 else ""
        return f"{self.template} · {self.dataset}{again}"


_INFO: tuple[Any, ...] = (
    col(Workflow.id),
    col(Template.name).label("template"),
    col(Template.version),
    col(Workflow.template_id),
    col(Dataset.name).label("dataset"),
    col(Workflow.dataset_id),
    col(Workflow.inputs),
    col(Workflow.number),
    col(Workflow.rank),
    col(Workflow.state),
    col(Workflow.reason),
    col(Workflow.owner),
    col(Workflow.epoch),
    col(Workflow.flow_run_id),
    col(Workflow.created_at),
    col(Workflow.started_at),
    col(Workflow.ended_at),
)


def select_infos() -> sa.Select[Any]:
    """A query for the columns of `WorkflowInfo`."""
    return (
        sa.select(*_INFO)
        .join(Template, col(Template.id) == col(Workflow.template_id))
        .join(Dataset, col(Dataset.id) == col(Workflow.dataset_id))
    )


def get(session: Session, workflow_id: int) -> WorkflowInfo:
    """The workflow with that id; raises `NotFound`."""
    row = session.execute(select_infos().where(col(Workflow.id) == workflow_id)).one_or_none()
    if row is None:
        raise NotFound("workflow", workflow_id)
    return WorkflowInfo(**row._mapping)


def list_workflows(
    session: Session,
    *,
    states: Sequence[WorkflowState] | None = None,
    before: int | None = None,
    limit: int = 100,
) -> list[WorkflowInfo]:
    """The newest workflows first; `before` continues below an id."""
    query = select_infos().order_by(col(Workflow.id).desc()).limit(limit)
    if states is not None:
        query = query.where(col(Workflow.state).in_(states))
    if before is not None:
        query = query.where(col(Workflow.id) < before)
    return [WorkflowInfo(**row._mapping) for row in session.execute(query)]


def inputs_digest(inputs: Mapping[str, Any]) -> str:
    """A digest of the fixed inputs, the same for the same values in any order."""
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def define(
    session: Session,
    template_id: int,
    dataset_id: int,
    tasks: Sequence[NewTask],
    *,
    inputs: Mapping[str, Any],
    rank: int,
    again: bool = False,
    flow_run_id: str | None = None,
) -> tuple[int, bool]:
    """Define the workflow with its tasks and output datasets, once; gives (id, whether new).

    Without `again`, one that is not CANCELLED for the same template version, dataset and inputs is
    given back as it is. With a `flow_run_id`, what that flow run has defined before is (it may be
    started twice). Raises `StateConflict` where template or dataset can't be worked on.
    """
    if flow_run_id is not None and (before := by_flow_run(session, [flow_run_id])):
        return before[0].id, False
    template = _usable_template(session, template_id)
    dataset = _usable_dataset(session, dataset_id)
    digest = inputs_digest(inputs)
    mine = sa.and_(col(Workflow.template_id) == template_id, col(Workflow.dataset_id) == dataset_id)
    existing = session.execute(
        sa.select(col(Workflow.id))
        .where(
            mine,
            col(Workflow.inputs_digest) == digest,
            col(Workflow.state) != WorkflowState.CANCELLED,
        )
        .order_by(col(Workflow.id))
        .limit(1)
    ).scalar()
    if existing is not None and not again:
        return existing, False
    _hold(session, sorted(set(file_ids(inputs))))
    number = session.execute(
        sa.select(sa.func.coalesce(sa.func.max(col(Workflow.number)), 0)).where(mine)
    )
    workflow = Workflow(
        template_id=template_id,
        dataset_id=dataset_id,
        inputs=dict(inputs),
        inputs_digest=digest,
        number=number.scalar_one() + 1,
        again=existing is not None,
        rank=rank,
        flow_run_id=flow_run_id,
    )
    session.add(workflow)
    session.flush()
    record(session, Workflow, [(workflow.id, None)], WorkflowState.DEFINED)
    _add_tasks(session, workflow, f"{dataset}.{template}", tasks, _retention(session, template_id))
    return workflow.id, True


def file_ids(inputs: Any) -> Iterator[int]:
    """The files that are fixed inputs of a workflow, as its row has them."""
    if isinstance(inputs, dict):
        if "file_id" in inputs:
            yield inputs["file_id"]
        for item in inputs.values():
            yield from file_ids(item)
    elif isinstance(inputs, list):
        for item in inputs:
            yield from file_ids(item)


def _hold(session: Session, wanted: Sequence[int]) -> None:
    """Keep copies of these files until the transaction ends; raises `Conflict` where one has none.

    Who deletes one of them meanwhile waits, and then finds the workflow that reads it.
    """
    query = (
        sa.select(col(Replica.file_id))
        .where(
            among(session, col(Replica.file_id), wanted),
            col(Replica.state) == ReplicaState.AVAILABLE,
        )
        .order_by(col(Replica.id))
        .with_for_update(read=True)
    )
    held = set(session.scalars(query)) if wanted else set()
    for file_id in wanted:
        if file_id not in held:
            raise Conflict(
                f"file {file_id}, an input of the workflow, has no copy that is AVAILABLE; "
                f"`spdf file why {file_id}` says what became of them."
            )


def _usable_template(session: Session, template_id: int) -> str:
    """`name.vN` of an ACTUAL template, whose row stays locked so that submits queue up."""
    row = session.execute(
        sa.select(col(Template.name), col(Template.version), col(Template.state))
        .where(col(Template.id) == template_id)
        .with_for_update()
    ).one_or_none()
    if row is None:
        raise NotFound("template", template_id)
    if row.state is not TemplateState.ACTUAL:
        raise Conflict(
            f"template {row.name!r} version {row.version} is {row.state}; "
            f"`spdf template activate {row.name}@{row.version}` makes a DRAFT usable."
        )
    return f"{row.name}.v{row.version}"


def _usable_dataset(session: Session, dataset_id: int) -> str:
    row = session.execute(
        sa.select(col(Dataset.name), col(Dataset.state))
        .where(col(Dataset.id) == dataset_id)
        .with_for_update(read=True)
    ).one_or_none()
    if row is None:
        raise NotFound("dataset", dataset_id)
    if row.state not in (DatasetState.OPEN, DatasetState.CLOSED):
        raise StateConflict("dataset", row.name, row.state, "processed", "its files are going")
    name: str = row.name
    return name


def _retention(session: Session, template_id: int) -> Retention | None:
    """How long what lies between the template's stages is kept; None: as all else."""
    query = sa.select(col(Template.intermediate)).where(col(Template.id) == template_id)
    found = session.execute(query).scalar_one()
    return None if found is Retention.KEEP else found


def _add_tasks(
    session: Session,
    workflow: Workflow,
    prefix: str,
    tasks: Sequence[NewTask],
    retention: Retention | None,
) -> None:
    if workflow.number > 1:
        prefix = f"{prefix}.r{workflow.number}"
    rows = [
        Task(workflow_id=workflow.id, stage=t.stage, ordinal=i, pool=t.pool, rank=t.rank)
        for i, t in enumerate(tasks)
    ]
    session.add_all(rows)
    session.flush()
    record(session, Task, [(row.id, None) for row in rows], TaskState.DEFINED)
    datasets = [
        Dataset(
            name=check_name("dataset", f"{prefix}.{task.stage}.{port}"),
            derived=True,
            task_id=row.id,
            port=port,
            storage_id=storage_id,
            readers=list(task.readers[port]) if port in task.readers else None,
            retention=retention if port in task.readers else None,
        )
        for row, task in zip(rows, tasks, strict=True)
        for port, storage_id in task.outputs.items()
    ]
    session.add_all(datasets)
    session.flush()
    record(session, Dataset, [(row.id, None) for row in datasets], DatasetState.OPEN)


def by_flow_run(session: Session, flow_run_ids: Sequence[str]) -> list[WorkflowInfo]:
    """The workflows that these flow runs drive."""
    query = select_infos().where(col(Workflow.flow_run_id).in_(flow_run_ids))
    return [WorkflowInfo(**row._mapping) for row in session.execute(query)]


def finish(session: Session, workflow_id: int, state: WorkflowState, reason: str | None) -> None:
    """End a workflow as FINISHED or FAILED."""
    move_one(
        session,
        Workflow,
        workflow_id,
        state,
        message=reason,
        reason=reason,
        owner=None,
        lease_until=None,
        ended_at=now(),
    )


def cancel(session: Session, workflow_id: int, reason: str) -> bool:
    """Cancel a workflow with all that is not final in it; False: it was cancelled already.

    Payloads die at their pilot's next heartbeat. Raises `StateConflict` for a FINISHED one.
    """
    info = get(session, workflow_id)
    if info.state is WorkflowState.CANCELLED:
        return False
    move_one(
        session,
        Workflow,
        workflow_id,
        WorkflowState.CANCELLED,
        message=reason,
        reason=reason,
        owner=None,
        epoch=col(Workflow.epoch) + 1,
        lease_until=None,
        ended_at=now(),
    )
    tasks = list(
        session.scalars(sa.select(col(Task.id)).where(col(Task.workflow_id) == workflow_id))
    )
    move(session, Task, tasks, TaskState.CANCELLED, message=reason, reason=reason, ended_at=now())
    session.execute(
        sa.update(Job)
        .where(col(Job.task_id).in_(tasks), IS_OPEN)
        .values(state=JobState.CANCELLED, ended_at=now(), lease_until=None),
        execution_options={"synchronize_session": False},
    )
    cancel_running(session, tasks)
    return True


def retry(session: Session, workflow_id: int) -> int:
    """Reopen a FAILED workflow: its failed and held jobs are READY again; gives their number."""
    reopened = move(
        session,
        Workflow,
        [workflow_id],
        WorkflowState.IN_PROGRESS,
        only_from=[WorkflowState.FAILED],
        message="retry",
        reason=None,
        owner=None,
        epoch=col(Workflow.epoch) + 1,
        lease_until=now(),
        ended_at=None,
    )
    if not reopened:
        info = get(session, workflow_id)
        raise StateConflict(
            "workflow", workflow_id, info.state, "retried", "only a FAILED one can be"
        )
    failed = list(
        session.scalars(
            sa.select(col(Task.id)).where(
                col(Task.workflow_id) == workflow_id, col(Task.state) == TaskState.FAILED
            )
        )
    )
    move(session, Task, failed, TaskState.IN_PROGRESS, message="retry", reason=None, ended_at=None)
    jobs = session.execute(
        sa.update(Job)
        .where(col(Job.task_id).in_(failed), col(Job.state).in_((JobState.FAILED, JobState.HELD)))
        .values(
            state=JobState.READY,
            failures=0,
            losses=0,
            error=None,
            exit_code=None,
            reason=None,
            not_before=None,
            ended_at=None,
        )
        .returning(col(Job.id))
    )
    return len(jobs.all())
