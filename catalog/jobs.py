"""Jobs: defining them from files, handing their results on, and looking at them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog.bulk import chunks, insert_new, is_postgresql, table_of
from catalog.errors import NotFound
from catalog.models import (
    IS_UNPASSED,
    Attempt,
    DatasetFile,
    File,
    Job,
    JobInput,
    JobOutput,
    PastJob,
    Replica,
    Task,
)
from catalog.refs import FileRef, ReplicaRef
from catalog.rowsets import among, insert_rows
from catalog.states import AttemptState, JobState, Phase, ReplicaState

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
class SourceFile:
    """A file of an input dataset, at its place."""

    file_id: int
    name: str
    position: int


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


def source_files(session: Session, dataset_id: int, after: int, limit: int) -> list[SourceFile]:
    """Primary files of a dataset beyond a position, in its order, no position cut in two."""
    inside = sa.and_(col(DatasetFile.dataset_id) == dataset_id, col(DatasetFile.position) > after)
    page = (
        sa.select(col(DatasetFile.position))
        .where(inside)
        .order_by(col(DatasetFile.position))
        .limit(limit)
        .subquery()
    )
    last = sa.select(sa.func.max(page.c.position)).scalar_subquery()
    rows = session.execute(
        sa.select(col(DatasetFile.file_id), col(DatasetFile.name), col(DatasetFile.position))
        .join(File, col(File.id) == col(DatasetFile.file_id))
        .where(inside, col(DatasetFile.position) <= last, col(File.primary_id).is_(None))
        .order_by(col(DatasetFile.position), col(DatasetFile.name))
    )
    return [SourceFile(*row) for row in rows]


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


def outputs(
    session: Session, job_ids: Sequence[int], ports: Iterable[str]
) -> dict[tuple[int, str], list[int]]:
    """Primary output files by (job id, port), in order."""
    found: dict[tuple[int, str], list[int]] = {}
    rows = session.execute(
        sa.select(_output.c.job_id, _output.c.port, _output.c.file_id)
        .join(_file, _file.c.id == _output.c.file_id)
        .where(
            among(session, _output.c.job_id, job_ids),
            among(session, _output.c.port, list(ports)),
            _file.c.primary_id.is_(None),
        )
        .order_by(_output.c.job_id, _output.c.port, _output.c.position)
    )
    for job_id, port, file_id in rows:
        found.setdefault((job_id, port), []).append(file_id)
    return found


def files_by_name(session: Session, dataset_id: int, names: Sequence[str]) -> dict[str, int]:
    """Ids of a dataset's files by their names in it."""
    found: dict[str, int] = {}
    for batch in chunks(names):
        rows = session.execute(
            sa.select(col(DatasetFile.name), col(DatasetFile.file_id)).where(
                col(DatasetFile.dataset_id) == dataset_id, col(DatasetFile.name).in_(batch)
            )
        )
        found.update({row.name: row.file_id for row in rows})
    return found


def file_refs(session: Session, file_ids: Sequence[int]) -> dict[int, FileRef]:
    """What a node needs to read these files, with their secondary files, by file id."""
    ids = list(dict.fromkeys(file_ids))
    # Two look-ups: one with OR over both columns would read the whole table.
    found = [*_file_rows(session, _file.c.id, ids), *_file_rows(session, _file.c.primary_id, ids)]
    rows = sorted({row.id: row for row in found}.values(), key=lambda row: row.id)
    places: dict[int, list[ReplicaRef]] = {}
    for file_id, storage_id, path in session.execute(
        sa.select(_replica.c.file_id, _replica.c.storage_id, _replica.c.path)
        .where(
            among(session, _replica.c.file_id, [row.id for row in rows]),
            _replica.c.state == ReplicaState.AVAILABLE,
        )
        .order_by(_replica.c.id)
    ):
        places.setdefault(file_id, []).append(ReplicaRef(storage_id, path))
    secondary: dict[int, list[FileRef]] = {}
    plain = {}
    for row in rows:
        ref = FileRef(row.id, row.name, row.size_bytes, row.checksum, tuple(places.get(row.id, ())))
        plain[row.id] = ref
        if row.primary_id is not None:
            secondary.setdefault(row.primary_id, []).append(ref)
    return {i: replace(plain[i], secondary=tuple(secondary.get(i, ()))) for i in ids if i in plain}


def _file_rows(session: Session, column: sa.Column[Any], ids: Sequence[int]) -> Sequence[Any]:
    """The files that have one of these ids in a column, by their own."""
    return session.execute(
        sa.select(
            _file.c.id, _file.c.name, _file.c.size_bytes, _file.c.checksum, _file.c.primary_id
        ).where(among(session, column, ids))
    ).all()


def inputs(session: Session, job_ids: Sequence[int]) -> dict[int, dict[str, tuple[FileRef, ...]]]:
    """Input files by job id and port, in order."""
    rows = session.execute(
        sa.select(_input.c.job_id, _input.c.port, _input.c.file_id)
        .where(among(session, _input.c.job_id, job_ids))
        .order_by(_input.c.job_id, _input.c.port, _input.c.position)
    ).all()
    refs = file_refs(session, [row.file_id for row in rows])
    lists: dict[int, dict[str, list[FileRef]]] = {job_id: {} for job_id in job_ids}
    for job_id, port, file_id in rows:
        lists[job_id].setdefault(port, []).append(refs[file_id])
    return {
        job_id: {port: tuple(files) for port, files in ports.items()}
        for job_id, ports in lists.items()
    }


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
