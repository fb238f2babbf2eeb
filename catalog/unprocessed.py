"""Unprocessed: what jobs failed on in a workflow that is FINISHED within its goal all the same.

A goal lets the workflow go on without some jobs, and says nothing of their files. When the lifetime
of its input is over, these are parted from it: they stay, as a dataset of their own, until
something has processed them or an operator releases it.
"""

from collections.abc import Collection, Iterable

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import datasets, duties, originals
from catalog.clock import now
from catalog.datasets import Member
from catalog.models import (
    Dataset,
    DatasetFile,
    Duty,
    File,
    IntakeRule,
    Job,
    JobInput,
    JobOutput,
    PastJob,
    Task,
    Template,
    Workflow,
)
from catalog.refs import Untaken
from catalog.rowsets import among
from catalog.states import JobState, WorkflowState

NAME = "unprocessed"
"""What the name of such a dataset ends in."""


def part(session: Session, dataset_id: int) -> str:
    """Have what nothing processed of a dataset stay when it goes; a sentence on it, or "".

    Its row must be CLOSED. One that was released has nothing that is to be done.
    """
    info = datasets.get(session, dataset_id)
    if info.released_at is not None:
        return ""
    left = {
        template: found
        for template, workflow_ids in _owed(session, dataset_id).items()
        if (found := _left_by_all(session, dataset_id, workflow_ids))
    }
    members = _members(session, dataset_id, set().union(*left.values()))
    if not members:
        return ""
    made = _make(session, info, members)
    owed = _duties(session, info.id)
    duties.take(session, made.id, owed & left.keys())
    return f"; {len(members)} of its files, on which jobs failed, stay as dataset {made.name}"


def _owed(session: Session, dataset_id: int) -> dict[str, list[int]]:
    """The FINISHED workflows over a dataset, by template: of its duties, or of all if it has none.

    Without duties only where a rule of it keeps what nothing took.
    """
    rows = session.execute(
        sa.select(col(Template.name), col(Workflow.id))
        .join(Workflow, col(Workflow.template_id) == col(Template.id))
        .where(
            col(Workflow.dataset_id) == dataset_id, col(Workflow.state) == WorkflowState.FINISHED
        )
        .order_by(col(Workflow.id))
    ).all()
    owed = _duties(session, dataset_id)
    if not owed and not _is_kept(session, dataset_id):
        return {}
    found: dict[str, list[int]] = {}
    for name, workflow_id in rows:
        # By hand, whatever processed a file is enough.
        if not owed or name in owed:
            found.setdefault(name if owed else "", []).append(workflow_id)
    return found


def _duties(session: Session, dataset_id: int) -> set[str]:
    """The templates that a dataset was to be processed by."""
    query = sa.select(col(Duty.template)).where(col(Duty.dataset_id) == dataset_id)
    return set(session.scalars(query))


def _is_kept(session: Session, dataset_id: int) -> bool:
    query = (
        sa.select(col(IntakeRule.id))
        .select_from(Dataset)
        .join(IntakeRule, duties.fills())
        .where(col(Dataset.id) == dataset_id, col(IntakeRule.unmatched) == Untaken.KEEP)
    )
    return session.execute(query.limit(1)).first() is not None


def _left_by_all(session: Session, dataset_id: int, workflow_ids: Iterable[int]) -> set[int]:
    """Files that none of these workflows has processed."""
    left: set[int] | None = None
    for workflow_id in workflow_ids:
        found = _left_by(session, workflow_id)
        left = found if left is None else left & found
        if not left:
            return set()
    return left or set()


def _left_by(session: Session, workflow_id: int) -> set[int]:
    """Files that a workflow's failed jobs read, and those that these were made of."""
    failed = sa.select(col(Task.id), col(Task.counts)).where(col(Task.workflow_id) == workflow_id)
    task_ids = [
        row.id for row in session.execute(failed) if (row.counts or {}).get(JobState.FAILED)
    ]
    if not task_ids:
        return set()
    jobs = [
        job_id
        for model in (Job, PastJob)
        for job_id in session.scalars(
            sa.select(col(model.id)).where(
                among(session, col(model.task_id), task_ids), col(model.state) == JobState.FAILED
            )
        )
    ]
    found: set[int] = set()
    while jobs:
        new = _read(session, jobs) - found
        found |= new
        jobs = list(
            session.scalars(
                sa.select(col(JobOutput.job_id))
                .where(among(session, col(JobOutput.file_id), sorted(new)))
                .distinct()
            )
        )
    return found


def _read(session: Session, jobs: Collection[int]) -> set[int]:
    query = sa.select(col(JobInput.file_id)).where(among(session, col(JobInput.job_id), jobs))
    return set(session.scalars(query))


def _members(session: Session, dataset_id: int, left: Collection[int]) -> list[Member]:
    """Those of the files that are in the dataset, in its order, with what belongs to them."""
    if not left:
        return []
    rows = session.execute(
        sa.select(col(DatasetFile.file_id), col(DatasetFile.name))
        .join(File, col(File.id) == col(DatasetFile.file_id))
        .where(
            col(DatasetFile.dataset_id) == dataset_id,
            sa.or_(
                among(session, col(DatasetFile.file_id), sorted(left)),
                among(session, col(File.primary_id), sorted(left)),
            ),
        )
        .order_by(col(DatasetFile.position), col(DatasetFile.name))
    )
    return [Member(row.file_id, row.name) for row in rows]


def _make(
    session: Session, info: datasets.DatasetInfo, members: list[Member]
) -> datasets.DatasetInfo:
    """A dataset of some files of another, as old as that one; no template takes it by itself."""
    called = originals.parent(session, info.id) or info.name
    number, name = 1, f"{called}.{NAME}"
    while datasets.is_taken(session, name):
        number += 1
        name = f"{called}.{NAME}.{number}"
    row = session.execute(
        sa.select(col(Dataset.rule_id), col(Dataset.parted_from)).where(col(Dataset.id) == info.id)
    ).one()
    made = datasets.create(session, name, lifetime_s=info.lifetime_s, rule_id=row.rule_id)
    _note(session, made, parted_from=row.parted_from or info.id, matched_at=now())
    datasets.attach(session, made, members)
    datasets.close(session, made, why=f"parted from {info.name}: jobs failed on these")
    _note(session, made, closed_at=info.closed_at, expires_at=None)
    return datasets.get(session, made)


def _note(session: Session, dataset_id: int, **values: object) -> None:
    session.execute(
        sa.update(Dataset).where(col(Dataset.id) == dataset_id).values(**values),
        execution_options={"synchronize_session": False},
    )
