"""Where files come from and what was made of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import files, incomplete
from catalog.bulk import chunks
from catalog.errors import NotFound
from catalog.files import FileInfo
from catalog.incomplete import Lacking
from catalog.models import (
    Dataset,
    DatasetFile,
    File,
    Job,
    JobInput,
    JobOutput,
    PastJob,
    Task,
    Template,
    Workflow,
)
from catalog.states import JobState

_KEPT: tuple[Any, ...] = (Job, PastJob)
"""Where jobs are: those whose history was pruned are kept in short."""

MAX_DEPTH = 64
LOG_PORT = "log"


@dataclass(frozen=True)
class Maker:
    """The job that made or read a file; `attempt` is the number of its last attempt."""

    job_id: int
    key: str
    state: JobState
    attempt: int
    stage: str
    task_id: int
    workflow_id: int
    template: str
    version: int
    port: str


@dataclass(frozen=True)
class LineageStep:
    """A file, how far it is from the one asked for, the job that made it and what that read.

    `made_by` is None for a file that came from outside.
    """

    file: FileInfo
    depth: int
    made_by: Maker | None
    inputs: tuple[int, ...]


@dataclass(frozen=True)
class Lineage:
    """Steps from the file asked for back to the raw ones; `truncated` if there are more.

    `incomplete` are the datasets on the way that lack something.
    """

    steps: tuple[LineageStep, ...]
    truncated: bool
    incomplete: tuple[Lacking, ...] = ()

    @property
    def raw(self) -> tuple[FileInfo, ...]:
        """The files that came from outside."""
        return tuple(step.file for step in self.steps if step.made_by is None)


def lineage(
    session: Session, file_id: int, *, max_depth: int = MAX_DEPTH, limit: int = 10_000
) -> Lineage:
    """The files that a file descends from, nearest first, at most `limit` of them.

    Raises `NotFound`.
    """
    if not files.by_ids(session, [file_id]):
        raise NotFound("file", file_id)
    makers = _log_maker(session, file_id)
    seed: sa.Select[Any]
    if makers:
        seed = sa.select(col(JobInput.file_id), sa.literal(1).label("depth")).where(
            col(JobInput.job_id) == makers[file_id].job_id
        )
        ancestors = {file_id: 0} | _ancestors(session, seed, max_depth, limit)
    else:
        seed = sa.select(col(File.id).label("file_id"), sa.literal(0).label("depth")).where(
            col(File.id) == file_id
        )
        ancestors = _ancestors(session, seed, max_depth, limit + 1)
    ids = list(ancestors)[:limit]
    found = files.by_ids(session, ids)
    makers |= _makers(session, ids)
    read = _inputs(session, sorted({maker.job_id for maker in makers.values()}), limit)
    steps = []
    for i in ids:
        maker = makers.get(i)
        inputs = read.get(maker.job_id, ()) if maker else ()
        steps.append(LineageStep(found[i], ancestors[i], maker, tuple(inputs)))
    workflows = {maker.workflow_id for maker in makers.values()}
    lacking = incomplete.of_lineage(session, [file_id, *ids], workflows)
    return Lineage(tuple(steps), len(ancestors) > limit, tuple(lacking))


def consumers(session: Session, file_id: int, *, limit: int = 1000) -> list[Maker]:
    """The jobs that read a file, oldest first; `port` is where they read it."""
    found: list[Maker] = []
    for kept in _KEPT:
        rows = session.execute(
            _select_jobs(kept, col(JobInput.port))
            .join(JobInput, col(JobInput.job_id) == kept.id)
            .where(col(JobInput.file_id) == file_id)
            .order_by(kept.id)
            .limit(limit)
        )
        found += [Maker(**row._mapping) for row in rows]
    return sorted(found, key=lambda maker: maker.job_id)[:limit]


def _ancestors(
    session: Session, seed: sa.Select[Any], max_depth: int, limit: int
) -> dict[int, int]:
    """Smallest depth by file id, in the order of depth; `seed` gives (file id, depth) to start."""
    walk = seed.cte("walk", recursive=True)
    walk = walk.union(
        sa.select(col(JobInput.file_id), walk.c.depth + 1)
        .select_from(walk)
        .join(JobOutput, col(JobOutput.file_id) == walk.c.file_id)
        .join(JobInput, col(JobInput.job_id) == col(JobOutput.job_id))
        .where(walk.c.depth < max_depth)
    )
    depth = sa.func.min(walk.c.depth).label("depth")
    rows = session.execute(
        sa.select(walk.c.file_id, depth)
        .group_by(walk.c.file_id)
        .order_by(depth, walk.c.file_id)
        .limit(limit)
    )
    return {row.file_id: row.depth for row in rows}


def _select_jobs(kept: Any, port: Any) -> sa.Select[Any]:
    return (
        sa.select(
            kept.id.label("job_id"),
            kept.key,
            kept.state,
            kept.attempt,
            col(Task.stage),
            kept.task_id,
            col(Task.workflow_id),
            col(Template.name).label("template"),
            col(Template.version),
            port.label("port"),
        )
        .join(Task, col(Task.id) == kept.task_id)
        .join(Workflow, col(Workflow.id) == col(Task.workflow_id))
        .join(Template, col(Template.id) == col(Workflow.template_id))
    )


def _makers(session: Session, file_ids: Sequence[int]) -> dict[int, Maker]:
    makers: dict[int, Maker] = {}
    for kept in _KEPT:
        for batch in chunks([file_id for file_id in file_ids if file_id not in makers]):
            rows = session.execute(
                _select_jobs(kept, col(JobOutput.port))
                .add_columns(col(JobOutput.file_id))
                .join(JobOutput, col(JobOutput.job_id) == kept.id)
                .where(col(JobOutput.file_id).in_(batch))
            )
            for row in rows:
                values = dict(row._mapping)
                makers.setdefault(values.pop("file_id"), Maker(**values))
    return makers


def _log_maker(session: Session, file_id: int) -> dict[int, Maker]:
    """The job whose log the file is: found by the log dataset's task and the file's key."""
    for kept in _KEPT:
        row = session.execute(
            _select_jobs(kept, col(Dataset.port))
            .join(Dataset, col(Dataset.task_id) == col(Task.id))
            .join(DatasetFile, col(DatasetFile.dataset_id) == col(Dataset.id))
            .where(
                col(DatasetFile.file_id) == file_id,
                col(Dataset.port) == LOG_PORT,
                kept.key == col(DatasetFile.key),
            )
            .limit(1)
        ).one_or_none()
        if row is not None:
            return {file_id: Maker(**row._mapping)}
    return {}


def _inputs(session: Session, job_ids: Sequence[int], limit: int) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for batch in chunks(job_ids):
        rows = session.execute(
            sa.select(col(JobInput.job_id), col(JobInput.file_id))
            .where(col(JobInput.job_id).in_(batch))
            .order_by(col(JobInput.job_id), col(JobInput.port), col(JobInput.position))
            .limit(limit)
        )
        for job_id, file_id in rows:
            found.setdefault(job_id, []).append(file_id)
    return found
