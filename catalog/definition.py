"""Defining a workflow, once: its row, its tasks and their output datasets."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import fixedinputs
from catalog.errors import Conflict, NotFound, StateConflict
from catalog.models import Dataset, Task, Template, Workflow
from catalog.names import check_name, output_dataset
from catalog.refs import Retention
from catalog.rowsets import among
from catalog.states import (
    DatasetState,
    TaskState,
    TemplateState,
    WorkflowState,
)
from catalog.transitions import record
from catalog.workflows import by_flow_run


@dataclass(frozen=True)
class NewTask:
    """A stage to be executed; `outputs` maps each port (and `log`) to its storage's id."""

    stage: str
    pool: str
    rank: int
    outputs: Mapping[str, int]
    readers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By port, of what is no output of the workflow: the stages that read it."""


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
    files: Iterable[int] = (),
) -> tuple[int, bool]:
    """Define the workflow with its tasks and output datasets, once; gives (id, whether new).

    Without `again`, one that is not CANCELLED for the same template version, dataset and inputs is
    given back as it is. With a `flow_run_id`, what that flow run has defined before is (it may be
    started twice). Raises `StateConflict` where template or dataset can't be worked on, `Conflict`
    where one of its fixed `inputs`, or of the `files` that the template brings, has no copy.
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
    fixedinputs.hold(session, inputs, files)
    number = session.execute(
        sa.select(sa.func.coalesce(sa.func.max(col(Workflow.number)), 0)).where(mine)
    )
    prefix = (dataset, template)
    workflow = Workflow(
        template_id=template_id,
        dataset_id=dataset_id,
        inputs=dict(inputs),
        inputs_digest=digest,
        number=_unused(session, prefix, tasks, number.scalar_one() + 1),
        again=existing is not None,
        rank=rank,
        flow_run_id=flow_run_id,
    )
    session.add(workflow)
    session.flush()
    record(session, Workflow, [(workflow.id, None)], WorkflowState.DEFINED)
    _add_tasks(session, workflow, prefix, tasks, _retention(session, template_id))
    return workflow.id, True


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
        mend = f"`spdf template activate {row.name}@{row.version}` makes it usable"
        if row.state is TemplateState.ARCHIVED:
            mend = f"name a version that is ACTUAL (`spdf template list --name {row.name}`)"
        raise Conflict(f"template {row.name!r} version {row.version} is {row.state}; {mend}.")
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


def _unused(
    session: Session, prefix: tuple[str, str], tasks: Sequence[NewTask], number: int
) -> int:
    """The first number from this one on under which no output would have another dataset's name.

    Its input's name may have been that of a dataset which is DELETED: what was made of that one is
    called after it, and so are its files.
    """
    while True:
        names = [_output(*prefix, number, t.stage, port) for t in tasks for port in t.outputs]
        taken = sa.select(col(Dataset.id)).where(among(session, col(Dataset.name), names)).limit(1)
        if session.execute(taken).first() is None:
            return number
        number += 1


def _output(dataset: str, template: str, number: int, stage: str, port: str) -> str:
    again = f".r{number}" if number > 1 else ""
    return output_dataset(dataset, f".{template}{again}.{stage}.{port}")


def _add_tasks(
    session: Session,
    workflow: Workflow,
    prefix: tuple[str, str],
    tasks: Sequence[NewTask],
    retention: Retention | None,
) -> None:
    rows = [
        Task(workflow_id=workflow.id, stage=t.stage, ordinal=i, pool=t.pool, rank=t.rank)
        for i, t in enumerate(tasks)
    ]
    session.add_all(rows)
    session.flush()
    record(session, Task, [(row.id, None) for row in rows], TaskState.DEFINED)
    datasets = [
        Dataset(
            name=check_name("dataset", _output(*prefix, workflow.number, task.stage, port)),
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
