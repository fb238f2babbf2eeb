"""Incomplete datasets: those that lack what they should have, and why.

What a workflow leaves OPEN that was cancelled, or FAILED, is incomplete, until a retry goes on with
it; so is what is closed although something of it can't come, and what is made of such. The row
says why (`Dataset.incomplete`), the manifest's digest and the lineage have it, and no automatic
template takes it.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog.counts import count_of
from catalog.errors import Conflict
from catalog.models import Dataset, DatasetFile, IntakeRule, Source, Task, Workflow
from catalog.rowsets import among
from catalog.states import FINAL, DatasetState, TaskState, WorkflowState

ENDED = (WorkflowState.FAILED, WorkflowState.CANCELLED)
"""Workflows that close nothing any more."""


@dataclass(frozen=True)
class Lacking:
    """An incomplete dataset, and what it lacks."""

    dataset: str
    why: str


def leave(session: Session, workflow_id: int, state: WorkflowState, reason: str | None) -> None:
    """What a workflow leaves OPEN, that ends so, is incomplete."""
    how = "was cancelled" if state is WorkflowState.CANCELLED else f"is {state}"
    why = f"workflow {workflow_id}, which makes it, {how}" + (f": {reason}" if reason else "")
    ids = session.scalars(
        _made_by(sa.select(col(Dataset.id)), workflow_id)
        .where(col(Dataset.state) == DatasetState.OPEN)
        .order_by(col(Dataset.id))
        .with_for_update(of=Dataset)
    ).all()
    _set(session, among(session, col(Dataset.id), ids), incomplete=why)


def go_on(session: Session, workflow_id: int) -> None:
    """A workflow goes on with what it left OPEN; raises `Conflict` where that isn't OPEN any more.

    Automatic templates may be for it from here on.
    """
    # Held first: who closes or deletes one meanwhile is waited for, or waits and finds it going on.
    rows = session.execute(
        _made_by(sa.select(col(Dataset.id), col(Dataset.name), col(Dataset.state)), workflow_id)
        .where(col(Task.state) != TaskState.FINISHED)
        .order_by(col(Dataset.id))
        .with_for_update(of=Dataset)
    ).all()
    gone = next((row for row in rows if row.state is not DatasetState.OPEN), None)
    if gone is not None:
        raise Conflict(
            f"workflow {workflow_id} can't go on: its output {gone.name!r} is {gone.state} and "
            "takes no more files; `spdf workflow submit --again` makes a new one."
        )
    mine = among(session, col(Dataset.id), [row.id for row in rows])
    taken = sa.exists().where(col(Workflow.dataset_id) == col(Dataset.id))
    anew = sa.case((taken, col(Dataset.matched_at)), else_=None)
    _set(session, mine, incomplete=None, matched_at=anew)


def _made_by(query: sa.Select[Any], workflow_id: int) -> sa.Select[Any]:
    return (
        query.select_from(Dataset)
        .join(Task, col(Task.id) == col(Dataset.task_id))
        .where(col(Task.workflow_id) == workflow_id)
    )


def _set(session: Session, which: sa.ColumnElement[bool], **values: Any) -> None:
    session.execute(
        sa.update(Dataset).where(which).values(**values),
        execution_options={"synchronize_session": False},
    )


def check_closable(session: Session, dataset_id: int) -> None:
    """Raise `Conflict` for a dataset whose workflow fills and closes it still.

    Of one that has ended, whose row is held until the transaction ends, a person may close it.
    """
    maker = session.execute(
        sa.select(col(Dataset.name), col(Workflow.id), col(Workflow.state))
        .join(Task, col(Task.id) == col(Dataset.task_id))
        .join(Workflow, col(Workflow.id) == col(Task.workflow_id))
        .where(col(Dataset.id) == dataset_id)
        .with_for_update(read=True, of=Workflow)
    ).one_or_none()
    if maker is not None and maker.state not in FINAL[WorkflowState]:
        raise Conflict(
            f"dataset {maker.name!r} is made by workflow {maker.id}, which is {maker.state}, and "
            f"fills and closes it itself; `spdf workflow cancel {maker.id}` ends it, and leaves "
            "what is there to be closed."
        )


def at_close(session: Session, dataset_id: int, *, is_whole: bool) -> str | None:
    """What a dataset lacks that is being closed, as an earlier word or its rows say.

    With `is_whole` a person says that nothing is missing of what others were to give.
    """
    row = session.execute(
        sa.select(col(Dataset.incomplete), col(Dataset.task_id)).where(
            col(Dataset.id) == dataset_id
        )
    ).one()
    if row.incomplete is not None:
        return str(row.incomplete)
    if row.task_id is not None:
        return _by_maker(session, row.task_id)
    return None if is_whole else _by_sources(session, dataset_id)


def _by_maker(session: Session, task_id: int) -> str | None:
    """Of what a workflow makes: that its stage has not ended well, or its input lacks something."""
    row = session.execute(
        sa.select(col(Task.stage), col(Task.state), col(Dataset.name), col(Dataset.incomplete))
        .join(Workflow, col(Workflow.id) == col(Task.workflow_id))
        .join(Dataset, col(Dataset.id) == col(Workflow.dataset_id))
        .where(col(Task.id) == task_id)
    ).one()
    if row.state is not TaskState.FINISHED:
        return f"task {task_id} ({row.stage}), which makes it, is {row.state}"
    return f"the input of its workflow, {row.name}, is incomplete" if row.incomplete else None


def _by_sources(session: Session, dataset_id: int) -> str | None:
    """Of what is filled from outside: who was to give more, and can't, or hasn't."""
    rows = session.execute(
        sa.select(col(IntakeRule.name).label("rule"), col(Source.sender), col(Source.expects))
        .select_from(Source)
        .join(IntakeRule, col(IntakeRule.id) == col(Source.rule_id), isouter=True)
        .where(
            col(Source.dataset_id) == dataset_id,
            col(Source.ended_by).is_(None),
            sa.or_(sa.not_(col(IntakeRule.active)), col(Source.expects).is_not(None)),
        )
        .order_by(col(Source.id))
    ).all()
    if not rows:
        return None
    query = sa.select(sa.func.count()).select_from(DatasetFile)
    there = session.execute(query.where(col(DatasetFile.dataset_id) == dataset_id)).scalar_one()
    told = []
    for row in rows:
        if row.rule is not None:
            name = row.rule.rpartition("#")[0]
            told.append(f"intake rule {name}, which filled it, was removed before it had ended")
        elif row.expects > there:
            told.append(f"sender {row.sender} announced {count_of(row.expects, 'file')}")
    return f"closed with {count_of(there, 'file')}: {'; '.join(told)}" if told else None


def of_lineage(
    session: Session, file_ids: Collection[int], workflow_ids: Collection[int]
) -> list[Lacking]:
    """Incomplete datasets among those of workflows: what these read, and what holds the files."""
    read = sa.select(col(Workflow.dataset_id)).where(
        among(session, col(Workflow.id), sorted(workflow_ids))
    )
    holds = sa.select(col(DatasetFile.dataset_id)).where(
        among(session, col(DatasetFile.file_id), sorted(file_ids))
    )
    derived = sa.and_(col(Dataset.task_id).is_not(None), col(Dataset.id).in_(holds))
    query = sa.select(col(Dataset.name), col(Dataset.incomplete)).where(
        col(Dataset.incomplete).is_not(None),
        sa.or_(col(Dataset.id).in_(read), derived),
    )
    return [Lacking(*row) for row in session.execute(query.order_by(col(Dataset.id)))]


def cant_end() -> sa.ColumnElement[bool]:
    """Whether an OPEN `Dataset` waits for what can't come, as an expression.

    The workflow that makes it was cancelled or FAILED, or a rule that fills it was removed.
    """
    over = (
        sa.select(sa.literal(1))
        .select_from(Task)
        .join(Workflow, col(Workflow.id) == col(Task.workflow_id))
        .where(col(Task.id) == col(Dataset.task_id), col(Workflow.state).in_(ENDED))
        .correlate(Dataset)
    )
    either = sa.or_(sa.exists(over), _filled_by(sa.not_(_is_followed())))
    return sa.and_(col(Dataset.state) == DatasetState.OPEN, either)


def nothing_comes() -> sa.ColumnElement[bool]:
    """Whether, besides, nobody else is known who gives a `Dataset` files still."""
    return sa.and_(cant_end(), sa.not_(_filled_by(_is_followed())))


def _is_followed() -> sa.ColumnElement[bool]:
    """Whether the rule of a `Source` is followed; who sends requests is there."""
    return sa.func.coalesce(col(IntakeRule.active), sa.true())


def _filled_by(whom: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    return sa.exists(
        sa.select(sa.literal(1))
        .select_from(Source)
        .join(IntakeRule, col(IntakeRule.id) == col(Source.rule_id), isouter=True)
        .where(col(Source.dataset_id) == col(Dataset.id), col(Source.ended_by).is_(None), whom)
        .correlate(Dataset)
    )
