"""Jobs: defining them from files, handing their results on, and looking at them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog.bulk import chunks, insert_new, is_postgresql, table_of
from catalog.errors import NotFound
from catalog.models import (
    IS_UNPASSED,
    Attempt,
    File,
    Job,
    JobInput,
    JobOutput,
    PastJob,
    Replica,
    Task,
)
from catalog.rowsets import among, insert_rows
from catalog.states import AttemptState, JobState, Phase

_file, _replica = table_of(File), table_of(Replica)
_input, _output = table_of(JobInput), table_of(JobOutput)


@dataclass(frozen=True)
class NewJob:
    """A job to be defined: READY with its input files by port, or SKIPPED without."""

    key: str
    ordinal: int
    state: JobState
    files: Mapping[str, Sequence[int]] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    reason: str | None = None


@dataclass(frozen=True)
class EndedJob:
    """A job whose end (FINISHED or SKIPPED) may let others be defined."""

    id: int
    key: str
    ordinal: int
    state: JobState
    outputs: Mapping[str, Any]


@dataclass(frozen=True)
class JobInfo:
    """A job as its row stood."""

    id: int
    task_id: int
    stage: str
    workflow_id: int
    key: str
    ordinal: int
    state: JobState
    error: str | None
    exit_code: int | None
    reason: str | None
    attempt: int
    failures: int
    losses: int
    pilot_id: int | None
    created_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True)
class AttemptInfo:
    """An attempt as its row stood; times are the catalog's."""

    id: int
    job_id: int
    number: int
    pilot_id: int
    state: AttemptState
    phase: Phase | None
    error: str | None
    exit_code: int | None
    message: str | None
    log_tail: str | None
    log_file_id: int | None
    node: str | None
    program: str | None
    tool_digest: str | None
    wall_s: float | None
    cpu_s: float | None
    peak_rss_bytes: int | None
    bytes_in: int | None
    bytes_out: int | None
    started_at: datetime
    ended_at: datetime | None


def define(session: Session, task_id: int, jobs: Sequence[NewJob], *, passed: bool) -> int:
    """Insert those jobs of a task that it doesn't have yet, with their inputs; gives how many.

    `passed`: nothing follows them that the advancer would have to define from each.
    """
    count = 0
    for batch in chunks(jobs):
        new = insert_new(
            session,
            Job,
            _numbered(
                session,
                [
                    {
                        "task_id": task_id,
                        "key": job.key,
                        "ordinal": job.ordinal,
                        "state": job.state,
                        "reason": job.reason,
                        "values": dict(job.values) or None,
                        "passed": passed,
                    }
                    for job in batch
                ],
            ),
            col(Job.id),
            col(Job.key),
        )
        ids = {key: job_id for job_id, key in new}
        rows = [
            {
                "job_id": ids[job.key],
                "task_id": task_id,
                "port": port,
                "position": position,
                "file_id": file_id,
            }
            for job in batch
            if job.key in ids
            for port, files in job.files.items()
            for position, file_id in enumerate(files)
        ]
        insert_rows(session, JobInput, rows)
        count += len(ids)
    return count


def _numbered(session: Session, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """New jobs, on SQLite with ids that no pruned job had.

    SQLite gives the highest id out again once its row has gone, and files name the jobs that made
    them for as long as they are known.
    """
    if is_postgresql(session):
        return rows
    highest = [sa.select(sa.func.max(column)).scalar_subquery() for column in (Job.id, PastJob.id)]
    last = session.execute(
        sa.select(sa.func.max(*(sa.func.coalesce(number, 0) for number in highest)))
    ).scalar_one()
    return [{"id": number, **row} for number, row in enumerate(rows, last + 1)]


def unpassed(session: Session, task_id: int, limit: int) -> list[EndedJob]:
    """Ended jobs of a task that nothing has been defined from yet, in order."""
    return _ended(
        session,
        # Said twice: SQLite would rather read all jobs by the index that has no condition.
        sa.and_(col(Job.task_id) == task_id, col(Job.passed) == sa.false(), IS_UNPASSED),
        limit,
    )


def ended_by_key(session: Session, task_id: int, keys: Sequence[str]) -> dict[str, EndedJob]:
    """Of these keys, the jobs of a task that are FINISHED or SKIPPED, by key."""
    found: dict[str, EndedJob] = {}
    for batch in chunks(keys):
        where = sa.and_(
            col(Job.task_id) == task_id,
            col(Job.key).in_(batch),
            col(Job.state).in_((JobState.FINISHED, JobState.SKIPPED)),
        )
        found.update({job.key: job for job in _ended(session, where, len(batch))})
    return found


def after_ordinal(session: Session, task_id: int, after: int, limit: int) -> list[EndedJob]:
    """All jobs of a task beyond an ordinal, whatever their state, in order."""
    where = sa.and_(col(Job.task_id) == task_id, col(Job.ordinal) > after)
    return _ended(session, where, limit)


def _ended(session: Session, where: sa.ColumnElement[bool], limit: int) -> list[EndedJob]:
    rows = session.execute(
        sa.select(col(Job.id), col(Job.key), col(Job.ordinal), col(Job.state), col(Job.outputs))
        .where(where)
        .order_by(col(Job.ordinal))
        .limit(limit)
    )
    return [EndedJob(row[0], row[1], row[2], row[3], row[4] or {}) for row in rows]


def mark_passed(session: Session, job_ids: Sequence[int]) -> None:
    """What follows these jobs has been defined."""
    for batch in chunks(job_ids):
        session.execute(
            sa.update(Job).where(among(session, col(Job.id), batch)).values(passed=True)
        )


_INFO: tuple[Any, ...] = (
    col(Job.id), col(Job.task_id), col(Task.stage), col(Task.workflow_id), col(Job.key),
    col(Job.ordinal), col(Job.state), col(Job.error), col(Job.exit_code), col(Job.reason),
    col(Job.attempt), col(Job.failures), col(Job.losses), col(Job.pilot_id),
    col(Job.created_at), col(Job.ended_at),
)  # fmt: skip


_PRUNED = "its history was pruned; `spdf file show FILE` still tells how a file was made"


def get(session: Session, job_id: int) -> JobInfo:
    """The job with that id; raises `NotFound`."""
    query = sa.select(*_INFO).join(Task, col(Task.id) == col(Job.task_id))
    row = session.execute(query.where(col(Job.id) == job_id)).one_or_none()
    if row is None:
        past = session.execute(sa.select(col(PastJob.id)).where(col(PastJob.id) == job_id)).first()
        raise NotFound("job", job_id, _PRUNED if past else "")
    return JobInfo(**row._mapping)


def list_jobs(
    session: Session,
    *,
    task_id: int | None = None,
    workflow_id: int | None = None,
    states: Sequence[JobState] | None = None,
    after: tuple[int, int] | None = None,
    limit: int = 100,
) -> list[JobInfo]:
    """Jobs by task and ordinal; `after` (task id, ordinal) continues a listing."""
    query = sa.select(*_INFO).join(Task, col(Task.id) == col(Job.task_id))
    if task_id is not None:
        query = query.where(col(Job.task_id) == task_id)
    if workflow_id is not None:
        query = query.where(col(Task.workflow_id) == workflow_id)
    if states is not None:
        query = query.where(col(Job.state).in_(states))
    if after is not None:
        query = query.where(sa.tuple_(col(Job.task_id), col(Job.ordinal)) > after)
    query = query.order_by(col(Job.task_id), col(Job.ordinal)).limit(limit)
    return [JobInfo(**row._mapping) for row in session.execute(query)]


def by_keys(session: Session, task_id: int, keys: Sequence[str]) -> list[JobInfo]:
    """The jobs of a task with these keys."""
    found: list[JobInfo] = []
    for batch in chunks(keys):
        query = sa.select(*_INFO).join(Task, col(Task.id) == col(Job.task_id))
        rows = session.execute(query.where(col(Job.task_id) == task_id, col(Job.key).in_(batch)))
        found += [JobInfo(**row._mapping) for row in rows]
    return found


def attempts(session: Session, job_ids: Sequence[int]) -> dict[int, list[AttemptInfo]]:
    """The history of jobs, by job id, oldest first."""
    columns = tuple(col(getattr(Attempt, name)) for name in AttemptInfo.__dataclass_fields__)
    found: dict[int, list[AttemptInfo]] = {job_id: [] for job_id in job_ids}
    for batch in chunks(job_ids):
        query = sa.select(*columns).where(col(Attempt.job_id).in_(batch))
        for row in session.execute(query.order_by(col(Attempt.job_id), col(Attempt.number))):
            found[row.job_id].append(AttemptInfo(**row._mapping))
    return found
