"""Tasks: the stages of workflows, their progress and their end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased
from sqlmodel import Session, col

from catalog.clock import now
from catalog.errors import NotFound
from catalog.models import IS_OPEN, Attempt, Dataset, DatasetFile, File, Job, Pilot, Task, is_open
from catalog.states import FINAL, JobState, PilotState, TaskState
from catalog.transitions import move, move_one


@dataclass(frozen=True)
class TaskInfo:
    """A task as its row stood."""

    id: int
    workflow_id: int
    stage: str
    ordinal: int
    pool: str
    rank: int
    state: TaskState
    reason: str | None
    roots_defined: int
    cursor: int
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True)
class OutputDataset:
    """Where a task's port puts its files."""

    dataset_id: int
    name: str
    port: str
    storage_id: int


@dataclass(frozen=True)
class Usage:
    """What a task's attempts used together, and the files that it made."""

    attempts: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    files_out: int = 0


@dataclass(frozen=True)
class Progress:
    """A task with its jobs counted by state."""

    task: TaskInfo
    jobs: Mapping[JobState, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All jobs defined so far."""
        return sum(self.jobs.values())

    @property
    def done(self) -> int:
        """Jobs in a final state."""
        final = (JobState.FINISHED, JobState.FAILED, JobState.SKIPPED, JobState.CANCELLED)
        return sum(self.jobs.get(state, 0) for state in final)


_COLUMNS = tuple(col(getattr(Task, name)) for name in TaskInfo.__dataclass_fields__)


def get(session: Session, task_id: int) -> TaskInfo:
    """The task with that id; raises `NotFound`."""
    row = session.execute(sa.select(*_COLUMNS).where(col(Task.id) == task_id)).one_or_none()
    if row is None:
        raise NotFound("task", task_id)
    return TaskInfo(**row._mapping)


def of_workflow(session: Session, workflow_id: int) -> list[TaskInfo]:
    """A workflow's tasks in the plan's order."""
    query = sa.select(*_COLUMNS).where(col(Task.workflow_id) == workflow_id)
    return [TaskInfo(**row._mapping) for row in session.execute(query.order_by(col(Task.ordinal)))]


def list_tasks(
    session: Session, *, states: Sequence[TaskState] | None = None, limit: int = 100
) -> list[TaskInfo]:
    """The newest tasks first."""
    query = sa.select(*_COLUMNS).order_by(col(Task.id).desc()).limit(limit)
    if states is not None:
        query = query.where(col(Task.state).in_(states))
    return [TaskInfo(**row._mapping) for row in session.execute(query)]


def outputs(session: Session, task_ids: Sequence[int]) -> dict[int, dict[str, OutputDataset]]:
    """Output datasets by task id and port; the log's port is `log`."""
    found: dict[int, dict[str, OutputDataset]] = {task_id: {} for task_id in task_ids}
    rows = session.execute(
        sa.select(
            col(Dataset.task_id), col(Dataset.id), col(Dataset.name), col(Dataset.port),
            col(Dataset.storage_id),
        ).where(col(Dataset.task_id).in_(task_ids))
    )  # fmt: skip
    for task_id, dataset_id, name, port, storage_id in rows:
        found[task_id][port] = OutputDataset(dataset_id, name, port, storage_id)
    return found


def progress(session: Session, workflow_id: int) -> list[Progress]:
    """A workflow's tasks in the plan's order with their jobs counted.

    Jobs of tasks that are FINISHED were counted at their end. Those of others are counted now,
    which takes the longer the more there are (0.1 s for a million): who asks again and again
    leaves time between, as `flows.share.Share` does.
    """
    tasks = of_workflow(session, workflow_id)
    known = counted(session, [task.id for task in tasks])
    known |= count_jobs(session, [task.id for task in tasks if task.id not in known])
    return [Progress(task, known[task.id]) for task in tasks]


def counted(session: Session, task_ids: Sequence[int]) -> dict[int, dict[JobState, int]]:
    """Jobs by state of those tasks whose jobs were counted for good, by task id."""
    rows = session.execute(
        sa.select(col(Task.id), col(Task.counts)).where(
            col(Task.id).in_(task_ids),
            col(Task.state).in_(FINAL[TaskState]),
            col(Task.counts).is_not(None),
        )
    )
    return {row[0]: {JobState(state): n for state, n in row[1].items()} for row in rows}


def count_jobs(session: Session, task_ids: Sequence[int]) -> dict[int, dict[JobState, int]]:
    """The jobs that each of these tasks has now, by task id and state."""
    counts: dict[int, dict[JobState, int]] = {task_id: {} for task_id in task_ids}
    if not counts:
        return {}
    rows = session.execute(
        sa.select(col(Job.task_id), col(Job.state), sa.func.count())
        .where(col(Job.task_id).in_(counts))
        .group_by(col(Job.task_id), col(Job.state))
    )
    for task_id, state, count in rows:
        counts[task_id][state] = count
    return counts


def usage(session: Session, task_ids: Sequence[int]) -> dict[int, Usage]:
    """What each task used and made, over all its attempts, those that were pruned included."""
    past = session.execute(
        sa.select(col(Task.id), col(Task.used)).where(
            col(Task.id).in_(task_ids), col(Task.used).is_not(None)
        )
    )
    found = {row[0]: Usage(**row[1]) for row in past}
    rest = [task_id for task_id in task_ids if task_id not in found]
    return (found | _sum_usage(session, rest)) if rest else found


def _sum_usage(session: Session, task_ids: Sequence[int]) -> dict[int, Usage]:
    files = dict(
        session.execute(
            sa.select(col(Dataset.task_id), sa.func.count())
            .join(DatasetFile, col(DatasetFile.dataset_id) == col(Dataset.id))
            .join(File, col(File.id) == col(DatasetFile.file_id))
            .where(
                col(Dataset.task_id).in_(task_ids),
                col(Dataset.port) != "log",
                col(File.primary_id).is_(None),
            )
            .group_by(col(Dataset.task_id))
        )
        .tuples()
        .all()
    )
    rows = session.execute(
        sa.select(
            col(Job.task_id),
            sa.func.count(),
            sa.func.coalesce(sa.func.sum(col(Attempt.wall_s)), 0.0),
            sa.func.coalesce(sa.func.sum(col(Attempt.cpu_s)), 0.0),
            sa.func.coalesce(sa.func.sum(col(Attempt.bytes_in)), 0),
            sa.func.coalesce(sa.func.sum(col(Attempt.bytes_out)), 0),
        )
        .join(Job, col(Job.id) == col(Attempt.job_id))
        .where(col(Job.task_id).in_(task_ids))
        .group_by(col(Job.task_id))
    )
    used = {row[0]: Usage(row[1], row[2], row[3], int(row[4]), int(row[5])) for row in rows}
    none = Usage()
    return {
        task_id: Usage(
            **{
                **vars(used.get(task_id, none)),
                "files_out": files.get(task_id, 0),
            }
        )
        for task_id in task_ids
    }


def count_ready(session: Session, task_id: int, most: int) -> int:
    """How many jobs of a task can be leased now, up to `most`."""
    # From the end: at the front of the index may be many entries of jobs that were leased.
    some = (
        sa.select(sa.literal(1))
        .where(
            col(Job.task_id) == task_id,
            IS_OPEN,
            col(Job.state) == JobState.READY,
            sa.or_(col(Job.not_before).is_(None), col(Job.not_before) <= now()),
        )
        .order_by(col(Job.ordinal).desc())
        .limit(most)
        .subquery()
    )
    count: int = session.execute(sa.select(sa.func.count()).select_from(some)).scalar_one()
    return count


def others_ready_query(pool: str, task_id: int, *, waited_s: float = 0.0) -> sa.Select[Any]:
    """READY jobs of other tasks of the pool that no pilot works on, defined `waited_s` ago."""
    job, task = aliased(Job, name="other_job"), aliased(Task)
    served = sa.select(col(Pilot.task_id)).where(
        col(Pilot.state).in_((PilotState.ACTIVE, PilotState.DRAINING))
    )
    return (
        sa.select(sa.literal(1))
        .select_from(task)
        .join(job, col(job.task_id) == col(task.id))
        .where(
            col(task.pool) == pool,
            col(task.id) != task_id,
            col(task.state) == TaskState.IN_PROGRESS,
            col(task.id).not_in(served),
            is_open("other_job"),
            col(job.state) == JobState.READY,
            col(job.created_at) <= now(-waited_s),
        )
        .limit(1)
    )


def has_unfinished(session: Session, task_id: int) -> bool:
    """Whether a task has a job that is not in a final state."""
    found = session.execute(
        sa.select(sa.literal(1))
        .select_from(Job)
        .where(col(Job.task_id) == task_id, IS_OPEN)
        .limit(1)
    ).scalar()
    return found is not None


def begin(session: Session, task_ids: Sequence[int]) -> list[int]:
    """DEFINED tasks become IN_PROGRESS."""
    return move(
        session,
        Task,
        task_ids,
        TaskState.IN_PROGRESS,
        only_from=[TaskState.DEFINED],
        started_at=now(),
    )


def end(
    session: Session,
    task_id: int,
    state: TaskState,
    reason: str | None,
    counts: Mapping[JobState, int] | None = None,
) -> None:
    """End a task as FINISHED or FAILED; `counts` are its jobs, of a FINISHED one for good."""
    kept = None if counts is None else dict(counts)
    move_one(
        session, Task, task_id, state, message=reason, reason=reason, ended_at=now(), counts=kept
    )


def set_progress(session: Session, task_id: int, *, cursor: int, roots_defined: int) -> None:
    """Remember how far the advancer has consumed the task's source."""
    session.execute(
        sa.update(Task)
        .where(col(Task.id) == task_id)
        .values(cursor=cursor, roots_defined=roots_defined)
    )


def failure_summary(session: Session, task_id: int) -> list[tuple[str, int | None, int]]:
    """(error code, exit code, jobs) of a task's FAILED jobs, the most frequent first."""
    count = sa.func.count()
    rows = session.execute(
        sa.select(col(Job.error), col(Job.exit_code), count)
        .where(col(Job.task_id) == task_id, col(Job.state) == JobState.FAILED)
        .group_by(col(Job.error), col(Job.exit_code))
        .order_by(count.desc())
    )
    return [(row[0] or "INTERNAL", row[1], row[2]) for row in rows]
