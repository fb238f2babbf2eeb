"""Duties: what is to be done with a dataset before it goes by itself, and whether that is done.

Nobody's word but a lifetime stands behind such a removal, so it asks for more than that nobody
reads. Rows, fixed at its close, say by which templates it is to be processed: the one whose
workflows begin by themselves over it, and those that its rules name (`--until`). Uploads are rows
as they are asked for. Its lifetime begins when these are FINISHED and DONE, or cancelled by a
person. What nothing took stays, or not, as its rules say (`--unmatched`). `dutywords` tells of it.
"""

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased
from sqlmodel import Session, col

from catalog import matches
from catalog.bulk import insert_ignore
from catalog.clock import now
from catalog.errors import Conflict
from catalog.fixedinputs import file_ids
from catalog.models import (
    Dataset,
    DatasetFile,
    Duty,
    IntakeRule,
    Source,
    Task,
    Template,
    Upload,
    Workflow,
)
from catalog.refs import Untaken
from catalog.rowsets import among
from catalog.settings import get_settings
from catalog.states import (
    FINAL,
    JobState,
    UploadState,
    WorkflowState,
)

OVER = (UploadState.DONE, UploadState.CANCELLED)
"""Uploads that nothing is to be done for any more: a FAILED one may be asked to go on."""


# Which there are.


def take(session: Session, dataset_id: int, templates: Collection[str]) -> None:
    """A dataset is to be processed by these templates, whichever version of them."""
    rows = [{"dataset_id": dataset_id, "template": name} for name in sorted(set(templates))]
    insert_ignore(session, Duty, rows)


def fix(session: Session, dataset_id: int) -> None:
    """Write down what is to be done with a dataset that was just closed; its row must be held.

    Those that a workflow makes get theirs as a workflow over them begins by itself, and those that
    are parted from another have their share of its.
    """
    dataset = session.execute(
        sa.select(
            col(Dataset.name),
            col(Dataset.derived),
            col(Dataset.matched_at),
            col(Dataset.task_id),
            col(Dataset.parted_from),
        ).where(col(Dataset.id) == dataset_id)
    ).one()
    if dataset.task_id is None and dataset.parted_from is None:
        if dataset.matched_at is None:
            # Nobody has looked yet whether a template is for it; who does may be unable to begin.
            chosen = matches.choose(matches.auto_templates(session), dataset.name, dataset.derived)
            take(session, dataset_id, [] if chosen is None else [chosen.name])
        for rule in session.execute(
            sa.select(col(IntakeRule.id), col(IntakeRule.until))
            .select_from(Dataset)
            .join(IntakeRule, fills())
            .where(col(Dataset.id) == dataset_id, col(IntakeRule.until).is_not(None))
        ):
            rows = [
                {"dataset_id": dataset_id, "template": name, "rule_id": rule.id}
                for name in sorted(set(rule.until or ()))
            ]
            insert_ignore(session, Duty, rows)


def fills() -> sa.ColumnElement[bool]:
    """Whether an `IntakeRule` made a `Dataset`, or is a source of it; also a removed one."""
    joined = (
        sa.select(sa.literal(1))
        .where(col(Source.dataset_id) == col(Dataset.id), col(Source.rule_id) == col(IntakeRule.id))
        .correlate(Dataset, IntakeRule)
    )
    return sa.or_(col(IntakeRule.id) == col(Dataset.rule_id), sa.exists(joined))


# Whether they are done, as expressions about a `Dataset`.


def is_done() -> sa.ColumnElement[bool]:
    """Whether all is done with it that was to be, or an operator has said so."""
    return sa.or_(col(Dataset.released_at).is_not(None), sa.not_(is_held()))


def is_held() -> sa.ColumnElement[bool]:
    """Whether something is to be done with it yet, or nobody has decided about it."""
    return sa.or_(has_open_duty(), has_open_upload(), is_untaken())


def has_open_duty() -> sa.ColumnElement[bool]:
    """Whether it is to be processed by a template yet."""
    return _exists(Duty, col(Duty.dataset_id) == col(Dataset.id), sa.not_(is_fulfilled()))


def is_fulfilled() -> sa.ColumnElement[bool]:
    """Whether a `Duty` is done: a workflow is FINISHED, or a person has cancelled all there were.

    What jobs failed on, within the goal of one, is for `unprocessed` to keep.
    """
    cancelled = _workflow_of_duty(_is(WorkflowState.CANCELLED))
    other = _workflow_of_duty(sa.not_(_is(WorkflowState.CANCELLED)))
    finished = _workflow_of_duty(_is(WorkflowState.FINISHED))
    return sa.or_(finished, sa.and_(cancelled, sa.not_(other)))


def _workflow_of_duty(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    found = (
        sa.select(sa.literal(1))
        .select_from(Workflow)
        .join(Template, col(Template.id) == col(Workflow.template_id))
        .where(
            col(Workflow.dataset_id) == col(Duty.dataset_id),
            col(Template.name) == col(Duty.template),
            condition,
        )
        .correlate(Duty)
    )
    return sa.exists(found)


def _is(*states: WorkflowState) -> sa.ColumnElement[bool]:
    return col(Workflow.state).in_(states)


def is_whole() -> sa.ColumnElement[bool]:
    """Whether a `Workflow` is FINISHED, and none of its jobs failed."""
    failed: Any = col(Task.counts)
    partly = (
        sa.select(sa.literal(1))
        .where(
            col(Task.workflow_id) == col(Workflow.id),
            sa.func.coalesce(failed[JobState.FAILED.value].as_integer(), 0) > 0,
        )
        .correlate(Workflow)
    )
    return sa.and_(_is(WorkflowState.FINISHED), sa.not_(sa.exists(partly)))


def has_open_upload() -> sa.ColumnElement[bool]:
    """Whether an upload of it has not come to its end, and none to the same storage is DONE."""
    done: Any = aliased(Upload)
    there = (
        sa.select(sa.literal(1))
        .where(
            done.dataset_id == col(Upload.dataset_id),
            done.storage_id == col(Upload.storage_id),
            done.state == UploadState.DONE,
        )
        .correlate(Upload)
    )
    return _exists(
        Upload,
        col(Upload.dataset_id) == col(Dataset.id),
        col(Upload.state).not_in(OVER),
        sa.not_(sa.exists(there)),
    )


def is_undecided() -> sa.ColumnElement[bool]:
    """Whether an `IntakeRule` has a lifetime, and nobody said what becomes of what nothing took."""
    return sa.and_(col(IntakeRule.lifetime_s).is_not(None), col(IntakeRule.unmatched).is_(None))


def is_untaken() -> sa.ColumnElement[bool]:
    """Whether its rules keep it, as nothing took it, or as nobody has decided about such."""
    keeps = col(IntakeRule.unmatched) == Untaken.KEEP
    return sa.or_(
        _exists(IntakeRule, fills(), is_undecided()),
        sa.and_(_exists(IntakeRule, fills(), keeps), sa.not_(is_taken())),
    )


def is_taken() -> sa.ColumnElement[bool]:
    """Whether a template took it, by itself or by hand, or it was sent elsewhere."""
    return sa.or_(
        _exists(Duty, col(Duty.dataset_id) == col(Dataset.id)),
        _exists(
            Upload, col(Upload.dataset_id) == col(Dataset.id), col(Upload.state) == UploadState.DONE
        ),
        _exists(
            Workflow,
            col(Workflow.dataset_id) == col(Dataset.id),
            _is(WorkflowState.FINISHED),
        ),
    )


def is_in_use() -> sa.ColumnElement[bool]:
    """Whether a workflow that isn't final reads or makes it, or it is on its way elsewhere."""
    final = FINAL[WorkflowState]
    going = sa.and_(
        col(Upload.dataset_id) == col(Dataset.id),
        col(Upload.state).not_in(FINAL[UploadState]),
    )
    return sa.or_(
        _exists(
            Workflow, col(Workflow.dataset_id) == col(Dataset.id), col(Workflow.state).not_in(final)
        ),
        _made_by(col(Workflow.state).not_in(final)),
        _exists(Upload, going),
    )


def may_be_retried(session: Session, *, besides_maker: bool = False) -> sa.ColumnElement[bool]:
    """Whether a workflow that failed not long ago would need it, as its input or for its stages.

    That of a duty holds it anyway, and for as long as it takes. With `besides_maker` the workflow
    that makes it doesn't count.
    """
    failed = sa.and_(
        _is(WorkflowState.FAILED),
        col(Workflow.ended_at) > now(-get_settings().failed_holds_s),
    )
    wanted = sa.and_(failed, sa.not_(_is_owed()), sa.not_(_is_mended()))
    found = [_exists(Workflow, col(Workflow.dataset_id) == col(Dataset.id), wanted)]
    if not besides_maker:
        found.append(_made_by(failed))
    inputs = session.scalars(sa.select(col(Workflow.inputs)).where(wanted))
    if fixed := sorted({file_id for one in inputs for file_id in file_ids(one)}):
        found.append(
            _exists(
                DatasetFile,
                col(DatasetFile.dataset_id) == col(Dataset.id),
                among(session, col(DatasetFile.file_id), fixed),
            )
        )
    return sa.or_(*found)


def _is_owed() -> sa.ColumnElement[bool]:
    """Whether a `Workflow` is of a template by which its dataset is to be processed anyway."""
    owed = (
        sa.select(sa.literal(1))
        .select_from(Duty)
        .join(Template, col(Template.name) == col(Duty.template))
        .where(
            col(Duty.dataset_id) == col(Workflow.dataset_id),
            col(Template.id) == col(Workflow.template_id),
        )
        .correlate(Workflow)
    )
    return sa.exists(owed)


def _is_mended() -> sa.ColumnElement[bool]:
    """Whether another of a `Workflow`'s template and dataset is FINISHED, of whichever version."""
    other: Any = aliased(Workflow)
    mine, its = aliased(Template), aliased(Template)
    mended = (
        sa.select(sa.literal(1))
        .select_from(other)
        .join(its, col(its.id) == other.template_id)
        .join(mine, col(mine.name) == col(its.name))
        .where(
            other.dataset_id == col(Workflow.dataset_id),
            other.state == WorkflowState.FINISHED,
            col(mine.id) == col(Workflow.template_id),
        )
        .correlate(Workflow)
    )
    return sa.exists(mended)


def may_go(session: Session, *, besides_maker: bool = False) -> sa.ColumnElement[bool]:
    """Whether it may go by itself: who asks for it has to ask again once its row is held."""
    retried = may_be_retried(session, besides_maker=besides_maker)
    released = col(Dataset.released_at).is_not(None)
    return sa.and_(
        col(Dataset.pin).is_(None),
        sa.not_(is_in_use()),
        sa.or_(released, sa.not_(sa.or_(is_held(), retried))),
    )


def _made_by(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    made = (
        sa.select(sa.literal(1))
        .select_from(Task)
        .join(Workflow, col(Workflow.id) == col(Task.workflow_id))
        .where(col(Task.id) == col(Dataset.task_id), condition)
        .correlate(Dataset)
    )
    return sa.exists(made)


def _exists(model: Any, *conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    query = sa.select(sa.literal(1)).select_from(model).where(*conditions)
    return sa.exists(query.correlate(Dataset))


def require(session: Session, dataset_id: int, *, besides_maker: bool = False) -> None:
    """Raise `Conflict` where a dataset that is marked by nobody's word may not go after all.

    Its row must be held, and say so: who is about to read it, or retries what does, holds it, too.
    """
    name = session.execute(
        sa.select(col(Dataset.name)).where(
            col(Dataset.id) == dataset_id,
            sa.not_(may_go(session, besides_maker=besides_maker)),
        )
    ).scalar()
    if name is not None:
        raise Conflict(
            f"dataset {name!r} isn't done with; `spdf dataset why {name}` tells what it is kept "
            "for, and `spdf dataset release` lets it go all the same."
        )
