"""What a dataset is kept for though its lifetime is, or will be, over: in sentences."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import duties, fixedinputs, originals, uploads
from catalog.clock import now
from catalog.models import (
    Dataset,
    DatasetFile,
    Duty,
    IntakeRule,
    Storage,
    Task,
    Template,
    Upload,
    Workflow,
)
from catalog.rowsets import among
from catalog.settings import get_settings
from catalog.states import WorkflowState

_TIME = "%Y-%m-%d %H:%M:%SZ"
_SHOWN = 5


@dataclass(frozen=True)
class Kept:
    """Something that a dataset is kept for; `mend` says how that ends."""

    fact: str
    mend: str = ""


def kept_for(session: Session, dataset_id: int) -> list[Kept]:
    """What keeps a dataset from going by itself, what is to be done first; [] where nothing does.

    Pins, and workflows and uploads that are at work, are for others to tell.
    """
    dataset = session.execute(
        sa.select(col(Dataset.name), col(Dataset.released_at), col(Dataset.task_id)).where(
            col(Dataset.id) == dataset_id
        )
    ).one()
    if dataset.released_at is not None:
        return []
    over = _workflows(session, col(Workflow.dataset_id) == dataset_id)
    return [
        *_duties(session, dataset_id, dataset.name, over),
        *_uploads(session, dataset_id, dataset.name),
        *_untaken(session, dataset_id, dataset.name),
        *_failed(session, dataset_id, dataset.task_id, over),
    ]


def facts(session: Session, dataset_id: int) -> str:
    """All of it in a line."""
    return "; ".join(item.fact for item in kept_for(session, dataset_id))


def _workflows(session: Session, *conditions: sa.ColumnElement[bool]) -> Sequence[sa.Row[Any]]:
    query = (
        sa.select(
            col(Workflow.id),
            col(Workflow.state),
            col(Workflow.ended_at),
            col(Workflow.inputs),
            col(Template.name).label("template"),
            col(Template.version),
        )
        .join(Template, col(Template.id) == col(Workflow.template_id))
        .where(*conditions)
    )
    return session.execute(query.order_by(col(Workflow.id))).all()


def _called(row: sa.Row[Any]) -> str:
    return f"workflow {row.id} ({row.template}@{row.version})"


def _duties(
    session: Session, dataset_id: int, name: str, over: Sequence[sa.Row[Any]]
) -> list[Kept]:
    """The templates by which it is to be processed yet, with what became of their workflows."""
    rows = session.execute(
        sa.select(col(Duty.template), col(IntakeRule.name).label("rule"))
        .outerjoin(IntakeRule, col(IntakeRule.id) == col(Duty.rule_id))
        .where(col(Duty.dataset_id) == dataset_id, sa.not_(duties.is_fulfilled()))
        .order_by(col(Duty.id))
    )
    found = []
    parent = originals.parent(session, dataset_id)
    for row in rows:
        why = "takes it by itself" if row.rule is None else f"is awaited by intake rule {row.rule}"
        begun = [w for w in over if w.template == row.template]
        live = [w for w in begun if w.state is not WorkflowState.CANCELLED]
        if parent is not None:
            fact = f"jobs of template {row.template} failed on these files of {parent}"
            mend = f"`spdf workflow submit {row.template} {name}` tries again"
        if live:
            fact, mend = _state(live[-1])
        elif parent is None:
            fact = f"template {row.template} {why}, and no workflow of it has begun"
            mend = f"`spdf workflow submit {row.template} {name}` begins one"
        found.append(Kept(fact, f"{mend}; {_release(name)}"))
    return found


def _state(workflow: sa.Row[Any]) -> tuple[str, str]:
    fact = f"{_called(workflow)} over it is {workflow.state}"
    if workflow.state is WorkflowState.FAILED:
        return fact, (
            f"`spdf workflow retry {workflow.id}` tries again, `spdf workflow cancel "
            f"{workflow.id}` gives it up"
        )
    return fact, "it is done with at its end"


def _uploads(session: Session, dataset_id: int, name: str) -> list[Kept]:
    rows = session.execute(
        sa.select(col(Upload.state), col(Upload.reason), col(Storage.name).label("storage"))
        .select_from(Dataset)
        .join(Upload, col(Upload.dataset_id) == col(Dataset.id))
        .join(Storage, col(Storage.id) == col(Upload.storage_id))
        .where(
            col(Dataset.id) == dataset_id,
            col(Upload.state).not_in((*duties.OVER, *uploads.GOING)),
            duties.has_open_upload(),
        )
        .order_by(col(Upload.id))
    ).all()
    return [
        Kept(
            f"its upload to {row.storage} is {row.state}",
            f"`spdf dataset upload {name} --to {row.storage}` goes on with it, with --cancel it is "
            f"given up; {_release(name)}",
        )
        for row in rows
    ]


def _untaken(session: Session, dataset_id: int, name: str) -> list[Kept]:
    rows = session.execute(
        sa.select(
            col(IntakeRule.name),
            col(IntakeRule.active),
            duties.is_undecided().label("undecided"),
        )
        .select_from(Dataset)
        .join(IntakeRule, duties.fills())
        .where(col(Dataset.id) == dataset_id, duties.is_untaken())
        .order_by(col(IntakeRule.id))
    ).all()
    undecided = [row for row in rows if row.undecided]
    if undecided:
        rule = undecided[0].name.partition("#")[0]
        mend = f"`spdf intake update {rule} --unmatched keep`, or `expire`, decides; "
        mend = mend if undecided[0].active else ""
        return [
            Kept(
                f"intake rule {rule} doesn't say what becomes of datasets that nothing took",
                f"{mend}{_release(name)}",
            )
        ]
    if not rows:
        return []
    return [
        Kept(
            "no template took it and nobody processed it, and its intake rule keeps such",
            f"`spdf workflow submit TEMPLATE {name}` processes it; {_release(name)}",
        )
    ]


def _failed(
    session: Session, dataset_id: int, task_id: int | None, over: Sequence[sa.Row[Any]]
) -> list[Kept]:
    """Workflows that failed not long ago, and would need it for a retry."""
    hold_s = get_settings().failed_holds_s
    recent = sa.and_(
        col(Workflow.state) == WorkflowState.FAILED, col(Workflow.ended_at) > now(-hold_s)
    )
    owed = set(
        session.scalars(sa.select(col(Duty.template)).where(col(Duty.dataset_id) == dataset_id))
    )
    mended = {w.template for w in over if w.state is WorkflowState.FINISHED}
    failed = [
        (w, "which reads it")
        for w in _workflows(session, recent, col(Workflow.dataset_id) == dataset_id)
        if w.template not in owed | mended
    ]
    if task_id is not None:
        maker = sa.select(col(Task.workflow_id)).where(col(Task.id) == task_id)
        made = _workflows(session, recent, col(Workflow.id).in_(maker))
        failed += [(w, "which makes it") for w in made]
    failed += [(w, "which reads a file of it, too,") for w in _fixed(session, dataset_id, recent)]
    return [
        Kept(
            f"{_called(w)}, {how} is FAILED, and may be retried until "
            f"{w.ended_at + timedelta(seconds=hold_s):{_TIME}}",
            f"`spdf workflow cancel {w.id}` gives it up",
        )
        for w, how in failed[:_SHOWN]
    ]


def _fixed(session: Session, dataset_id: int, recent: sa.ColumnElement[bool]) -> list[sa.Row[Any]]:
    rows = _workflows(session, recent)
    wanted = sorted({file_id for row in rows for file_id in fixedinputs.file_ids(row.inputs)})
    if not wanted:
        return []
    mine = set(
        session.scalars(
            sa.select(col(DatasetFile.file_id)).where(
                col(DatasetFile.dataset_id) == dataset_id,
                among(session, col(DatasetFile.file_id), wanted),
            )
        )
    )
    return [row for row in rows if mine.intersection(fixedinputs.file_ids(row.inputs))]


def _release(name: str) -> str:
    return f"`spdf dataset release {name}` lets it go without"
