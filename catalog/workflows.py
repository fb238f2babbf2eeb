"""Workflows: one template applied to one input dataset, its tasks and its output datasets."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import fixedinputs, incomplete, outages
from catalog.attempts import cancel_running
from catalog.clock import now
from catalog.errors import Conflict, NotFound, StateConflict
from catalog.models import (
    IS_OPEN,
    Dataset,
    DatasetFile,
    Job,
    JobInput,
    Task,
    Template,
    Workflow,
)
from catalog.states import DatasetState, JobState, TaskState, WorkflowState
from catalog.transitions import move, move_one


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


def by_flow_run(session: Session, flow_run_ids: Sequence[str]) -> list[WorkflowInfo]:
    """The workflows that these flow runs drive."""
    query = select_infos().where(col(Workflow.flow_run_id).in_(flow_run_ids))
    return [WorkflowInfo(**row._mapping) for row in session.execute(query)]


def finish(session: Session, workflow_id: int, state: WorkflowState, reason: str | None) -> None:
    """End a workflow as FINISHED or FAILED; what a FAILED one leaves OPEN is incomplete."""
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
    if state is not WorkflowState.FINISHED:
        incomplete.leave(session, workflow_id, state, reason)


def cancel(session: Session, workflow_id: int, reason: str) -> bool:
    """Cancel a workflow with all that is not final in it; False: it was cancelled already.

    What it leaves OPEN is incomplete. Payloads die at their pilot's next heartbeat. Raises
    `StateConflict` for a FINISHED one.
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
    incomplete.leave(session, workflow_id, WorkflowState.CANCELLED, reason)
    return True


def retry(session: Session, workflow_id: int) -> int:
    """Reopen a FAILED workflow: its failed and held jobs are READY again; gives their number.

    Raises `StateConflict` for one that isn't FAILED, `Conflict` where files are going, or gone,
    that it would read or add to, or where an output of it that isn't whole was closed meanwhile.
    """
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
    outages.release(session, failed)
    jobs = session.execute(
        sa.update(Job)
        .where(col(Job.task_id).in_(failed), col(Job.state).in_((JobState.FAILED, JobState.HELD)))
        .values(
            state=JobState.READY,
            failures=0,
            losses=0,
            forgiven=col(Job.attempt),
            error=None,
            exit_code=None,
            reason=None,
            not_before=None,
            ended_at=None,
        )
        .returning(col(Job.id))
    )
    reopened_jobs = len(jobs.all())
    incomplete.go_on(session, workflow_id)
    _hold_files(session, workflow_id, failed)
    return reopened_jobs


def _hold_files(session: Session, workflow_id: int, reopened: Sequence[int]) -> None:
    """Keep what a retry needs from being deleted until the transaction ends; raises `Conflict`.

    That is its input, what its reopened stages read, and what they add to. A removal that was
    faster is waited for, and seen; one that is slower finds the workflow reopened.
    """
    made_by = sa.select(col(Task.id)).where(col(Task.workflow_id) == workflow_id)
    stages = set(session.scalars(sa.select(col(Task.stage)).where(col(Task.id).in_(reopened))))
    reads = session.execute(
        sa.select(col(Workflow.dataset_id), col(Workflow.inputs)).where(
            col(Workflow.id) == workflow_id
        )
    ).one()
    rows = session.execute(
        sa.select(
            col(Dataset.id),
            col(Dataset.name),
            col(Dataset.state),
            col(Dataset.task_id),
            col(Dataset.readers),
            col(Dataset.grace_until),
        )
        .where(sa.or_(col(Dataset.id) == reads.dataset_id, col(Dataset.task_id).in_(made_by)))
        .order_by(col(Dataset.id))
        .with_for_update(read=True)
    ).all()
    for row in rows:
        if row.state not in (DatasetState.DELETING, DatasetState.DELETED):
            continue
        if row.id == reads.dataset_id:
            raise _going(workflow_id, row, "its input")
        is_read = stages & set(row.readers or ()) or _is_read(session, row.id, reopened)
        if row.task_id in reopened or is_read:
            raise _going(workflow_id, row, "what it needs,")
    fixedinputs.hold(session, reads.inputs)


def _is_read(session: Session, dataset_id: int, task_ids: Sequence[int]) -> bool:
    """Whether jobs of these tasks read a file of a dataset."""
    query = (
        sa.select(sa.literal(1))
        .select_from(DatasetFile)
        .join(JobInput, col(JobInput.file_id) == col(DatasetFile.file_id))
        .where(col(DatasetFile.dataset_id) == dataset_id, col(JobInput.task_id).in_(task_ids))
    )
    return session.execute(query.limit(1)).first() is not None


def _going(workflow_id: int, dataset: sa.Row[Any], what: str) -> Conflict:
    mend = "its files are gone: submit the template over a dataset that has them"
    if dataset.state is DatasetState.DELETING:
        mend = f"`spdf dataset why {dataset.name}` tells how far that is"
        if dataset.grace_until is not None:
            mend = f"`spdf dataset undelete {dataset.name}` takes that back while its grace lasts"
    return Conflict(
        f"workflow {workflow_id} can't be retried: {what} dataset {dataset.name!r}, is "
        f"{dataset.state}; {mend}."
    )
