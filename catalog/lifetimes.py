"""Lifetimes: when a dataset goes by itself, counted from when all was done with it.

What is to be done is for `duties` to say. One whose lifetime would be over if nothing had been to
do is *overdue* while something is.
"""

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import duties
from catalog.clock import now
from catalog.columns import total
from catalog.models import Dataset, IntakeRule, Upload, Workflow
from catalog.states import DatasetState, UploadState, WorkflowState
from catalog.transitions import record_change

RELEASED = "RELEASED"
"""What the event of a dataset says that an operator lets go though it isn't done with."""
PAGE = 500
"""Datasets of one transaction."""
WAITS = sa.text(
    "dataset.state = 'CLOSED' AND dataset.lifetime_s IS NOT NULL AND dataset.expires_at IS NULL"
)
"""Datasets whose lifetime hasn't begun, in the words of the partial index."""


def begin(session: Session, *, only: int | None = None) -> int:
    """The lifetimes begin of CLOSED datasets with which all is done; gives of how many.

    They count from when it was done, or from the close where nothing was to be done.
    """
    reads = sa.and_(
        col(Workflow.dataset_id) == col(Dataset.id),
        col(Workflow.state).in_((WorkflowState.FINISHED, WorkflowState.CANCELLED)),
    )
    rows = session.execute(
        sa.select(
            col(Dataset.id),
            col(Dataset.closed_at),
            col(Dataset.lifetime_s),
            col(Dataset.released_at),
            _last(Workflow, reads).label("processed"),
            _last(
                Upload,
                col(Upload.dataset_id) == col(Dataset.id),
                col(Upload.state) == UploadState.DONE,
            ).label("sent"),
        )
        .where(WAITS, sa.true() if only is None else col(Dataset.id) == only, duties.is_done())
        .order_by(col(Dataset.id))
        .limit(PAGE)
    ).all()
    if rows:
        session.connection().execute(
            sa.update(Dataset)
            .where(col(Dataset.id) == sa.bindparam("b_id"), WAITS)
            .values(expires_at=sa.bindparam("b_at")),
            [{"b_id": row.id, "b_at": _end(row)} for row in rows],
        )
    return len(rows)


def _last(model: Any, *conditions: sa.ColumnElement[bool]) -> Any:
    return (
        sa.select(sa.func.max(model.ended_at)).where(*conditions).correlate(Dataset)
    ).scalar_subquery()


def _end(row: sa.Row[Any]) -> datetime:
    """When a lifetime ends; a released one counts from the close, as if nothing had been to do."""
    done = [row.closed_at]
    if row.released_at is None:
        done += [moment for moment in (row.processed, row.sent) if moment is not None]
    end: datetime = max(done) + timedelta(seconds=row.lifetime_s)
    return end


def begin_anew(session: Session) -> None:
    """The lifetimes of datasets that are over before all is done begin when it is."""
    session.execute(
        sa.update(Dataset)
        .where(
            col(Dataset.state) == DatasetState.CLOSED,
            col(Dataset.expires_at) <= now(),
            col(Dataset.released_at).is_(None),
            duties.is_held(),
        )
        .values(expires_at=None),
        execution_options={"synchronize_session": False},
    )


def is_due() -> sa.ColumnElement[bool]:
    """Whether its lifetime would be over if nothing had been to do."""
    return sa.and_(
        col(Dataset.state) == DatasetState.CLOSED,
        col(Dataset.lifetime_s).is_not(None),
        sa.or_(
            col(Dataset.expires_at) <= now(),
            sa.and_(
                col(Dataset.expires_at).is_(None),
                col(Dataset.closed_at) <= now(-sa.func.coalesce(col(Dataset.lifetime_s), 0.0)),
            ),
        ),
    )


def is_overdue(session: Session) -> sa.ColumnElement[bool]:
    """Whether it is due, and kept all the same, but for a person's pin."""
    return sa.and_(is_due(), col(Dataset.pin).is_(None), sa.not_(duties.may_go(session)))


@dataclass(frozen=True)
class Overdue:
    """A dataset that would have gone at `due_at` if nothing had been to do with it."""

    id: int
    name: str
    files: int
    size_bytes: int
    rule: str | None
    due_at: datetime


def overdue(session: Session, mask: str | None = None) -> Iterator[Overdue]:
    """What is overdue, the oldest close first; `mask` is a glob over names."""
    after: tuple[datetime, int] | None = None
    while True:
        query: sa.Select[Any] = (
            sa.select(
                col(Dataset.id),
                col(Dataset.name),
                col(Dataset.file_count),
                col(Dataset.size_bytes),
                col(Dataset.closed_at),
                col(Dataset.lifetime_s),
                col(Dataset.expires_at),
                col(IntakeRule.name).label("rule"),
            )
            .outerjoin(IntakeRule, col(IntakeRule.id) == col(Dataset.rule_id))
            .where(is_overdue(session))
            .order_by(col(Dataset.closed_at), col(Dataset.id))
            .limit(PAGE)
        )
        if after is not None:
            query = query.where(_is_behind(*after))
        page = session.execute(query).all()
        for row in page:
            if mask is None or fnmatch.fnmatchcase(row.name, mask):
                due = row.expires_at or row.closed_at + timedelta(seconds=row.lifetime_s)
                yield Overdue(
                    row.id, row.name, row.file_count or 0, row.size_bytes or 0, row.rule, due
                )
        if len(page) < PAGE:
            return
        after = page[-1].closed_at, page[-1].id


def _is_behind(closed_at: datetime, dataset_id: int) -> sa.ColumnElement[bool]:
    return sa.or_(
        col(Dataset.closed_at) > closed_at,
        sa.and_(col(Dataset.closed_at) == closed_at, col(Dataset.id) > dataset_id),
    )


@dataclass(frozen=True)
class Sum:
    """What is overdue of a rule (None: of none), and the storage that it watches."""

    rule: str | None
    storage_id: int | None
    datasets: int
    size_bytes: int


def sums(session: Session) -> list[Sum]:
    """What is overdue, by rule, the most bytes first."""
    rows = session.execute(
        sa.select(
            col(IntakeRule.name),
            col(IntakeRule.storage_id),
            sa.func.count(),
            sa.func.coalesce(total(col(Dataset.size_bytes)), 0).label("bytes"),
        )
        .select_from(Dataset)
        .outerjoin(IntakeRule, col(IntakeRule.id) == col(Dataset.rule_id))
        .where(is_overdue(session))
        .group_by(col(IntakeRule.id), col(IntakeRule.name), col(IntakeRule.storage_id))
    )
    return sorted((Sum(*row) for row in rows), key=lambda one: (-one.size_bytes, one.rule or ""))


def release(session: Session, dataset_id: int, reason: str) -> bool:
    """Nothing is to be done with a dataset any more: its lifetime counts from its close.

    False for one that isn't CLOSED, or was released before.
    """
    done = session.execute(
        sa.update(Dataset)
        .where(
            col(Dataset.id) == dataset_id,
            col(Dataset.state) == DatasetState.CLOSED,
            col(Dataset.released_at).is_(None),
        )
        .values(released_at=now())
        .returning(col(Dataset.id)),
        execution_options={"synchronize_session": False},
    ).scalar()
    if done is None:
        return False
    record_change(session, Dataset, dataset_id, RELEASED, reason)
    begin(session, only=dataset_id)
    return True
