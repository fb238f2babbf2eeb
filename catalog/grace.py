"""Grace: the time after a person's deletion in which nothing goes, and all can be taken back.

A dataset that has some left is DELETING with `grace_until`; who removes its bytes takes that away
first, so that it is either taken back or removed.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import aliased
from sqlmodel import Session, col

from catalog import cattime, datasets, leave, usage
from catalog.clock import now
from catalog.datasets import DatasetInfo
from catalog.errors import Conflict
from catalog.models import Dataset, DatasetFile, DeletionFault, Event, Replica, Storage
from catalog.originals import is_original
from catalog.states import DatasetState, ReplicaState
from catalog.transitions import entity, move, record_change

ENDED = "GRACE_ENDED"
"""What the event of a dataset says whose grace was ended early."""


def is_left() -> sa.ColumnElement[bool]:
    """Whether a `Dataset` can be taken back still, as an expression."""
    # In these words, so that the partial index is seen to have them.
    return sa.text("dataset.state = 'DELETING' AND dataset.grace_until IS NOT NULL")  # type: ignore[return-value]


def left_until(session: Session, info: DatasetInfo) -> datetime | None:
    """Until when a deletion can be taken back; None where it can't be, or there is none."""
    if info.state is not DatasetState.DELETING or info.grace_until is None:
        return None
    moment = session.execute(sa.select(now())).scalar_one()
    return info.grace_until if info.grace_until > moment else None


def undelete(session: Session, dataset_id: int) -> DatasetInfo:
    """Take a deletion back: the dataset is what it was, with what was left of its lifetime.

    Raises `Conflict` for one that isn't being deleted, or whose grace is over.
    """
    # The row is held before it is looked at: nobody begins to remove its bytes meanwhile.
    session.execute(
        sa.select(col(Dataset.id)).where(col(Dataset.id) == dataset_id).with_for_update()
    )
    info = datasets.get(session, dataset_id)
    moment = session.execute(sa.select(now())).scalar_one()
    if info.state is DatasetState.DELETED:
        raise Conflict(
            f"dataset {info.name!r} is DELETED, and can't be taken back; what was detached can be "
            f"registered again: `spdf dataset create {info.name}`, or `spdf intake rescan`."
        )
    if info.state is not DatasetState.DELETING:
        raise Conflict(
            f"dataset {info.name!r} is {info.state}: nobody deletes it, so there is nothing to "
            "take back."
        )
    # Where nothing may go by itself, or the time isn't sure, nobody has ended it.
    is_over = info.grace_until is None or info.grace_until <= moment
    may_go = cattime.may_remove(session) and leave.why_not(session) is None
    if is_over and (info.grace_until is None or may_go):
        raise Conflict(
            f"dataset {info.name!r} can't be taken back: its bytes are going; "
            f"`spdf dataset why {info.name}` tells how far that is."
        )
    before = DatasetState.OPEN if info.closed_at is None else DatasetState.CLOSED
    expires_at = info.expires_at
    if expires_at is not None and info.deleting_at is not None:
        expires_at = moment + max(expires_at - info.deleting_at, timedelta())
    move(
        session, Dataset, [dataset_id], before, only_from=[DatasetState.DELETING],
        message="taken back", grace_until=None, deleting_at=None, originals=None,
        expires_at=expires_at,
    )  # fmt: skip
    return datasets.get(session, dataset_id)


def end(session: Session, dataset_id: int) -> bool:
    """End what is over of a dataset's grace; whether its bytes may go from here on."""
    done = session.execute(
        sa.update(Dataset)
        .where(
            col(Dataset.id) == dataset_id,
            col(Dataset.state) == DatasetState.DELETING,
            sa.or_(col(Dataset.grace_until).is_(None), _is_over(session)),
            leave.has_word(session),
        )
        .values(grace_until=None)
        .returning(col(Dataset.id)),
        execution_options={"synchronize_session": False},
    ).scalar()
    return done is not None


def end_due(session: Session) -> list[str]:
    """End the grace of those whose time is over; gives their names."""
    names = session.scalars(
        sa.update(Dataset)
        .where(is_left(), _is_over(session), leave.has_word(session))
        .values(grace_until=None)
        .returning(col(Dataset.name)),
        execution_options={"synchronize_session": False},
    )
    return sorted(names)


def _is_over(session: Session) -> sa.ColumnElement[bool]:
    """Whether the time of a `Dataset`'s grace is over, and known to be; as an expression."""
    if not cattime.may_remove(session):
        return sa.false()
    return col(Dataset.grace_until) <= now()


def in_the_way(session: Session, *, anyway: bool = False) -> dict[int, int]:
    """By storage that is above its high-water mark the dataset whose grace is to end early.

    It is the oldest that keeps bytes there. One at a time for each storage: the next when that
    one's bytes are gone, and it is full still. Deletions that got stuck there are waited for only
    where their own grace was ended early: a storage from which nothing can be removed ends no
    other's. Of many files this takes a while, so it is asked before anything is written. None where
    nothing may go by itself, unless it is asked for `anyway`.
    """
    if not anyway and leave.why_not(session) is not None:
        return {}
    return {
        storage_id: oldest
        for storage_id in sorted(usage.pressed(session))
        if not _is_going(session, storage_id)
        and (oldest := _oldest(session, storage_id)) is not None
    }


def end_early(session: Session, found: Mapping[int, int]) -> list[str]:
    """End the grace of those that were found `in_the_way`; gives their names."""
    ended = [_end_now(session, one, storage_id) for storage_id, one in found.items()]
    return [name for name in ended if name is not None]


def _oldest(session: Session, storage_id: int) -> int | None:
    """Of the datasets whose grace keeps bytes on a storage the one that was deleted first.

    Files that another dataset keeps, which nobody deletes, don't count: they stay in any case.
    """
    other, member = aliased(Dataset), aliased(DatasetFile)
    kept = sa.exists().where(
        col(member.file_id) == col(DatasetFile.file_id),
        col(other.id) == col(member.dataset_id),
        col(other.state).in_((DatasetState.OPEN, DatasetState.CLOSED)),
    )
    return session.scalar(
        sa.select(col(Dataset.id))
        .where(is_left(), _lies_on(storage_id, sa.not_(kept)))
        .order_by(col(Dataset.deleting_at), col(Dataset.id))
        .limit(1)
    )


def _end_now(session: Session, dataset_id: int, storage_id: int) -> str | None:
    """The name of the dataset; None where somebody was faster."""
    name = session.scalar(
        sa.update(Dataset)
        .where(col(Dataset.id) == dataset_id, is_left())
        .values(grace_until=None)
        .returning(col(Dataset.name)),
        execution_options={"synchronize_session": False},
    )
    if name is None:
        return None
    storage = session.execute(
        sa.select(col(Storage.name)).where(col(Storage.id) == storage_id)
    ).scalar_one()
    told = f"storage {storage} is above its high-water mark"
    record_change(session, Dataset, dataset_id, ENDED, told)
    return str(name)


def _is_going(session: Session, storage_id: int) -> bool:
    """Whether bytes of a dataset without grace are to go from a storage, and are waited for."""
    stuck = sa.exists().where(
        col(DeletionFault.dataset_id) == col(Dataset.id),
        col(DeletionFault.storage_id) == storage_id,
    )
    early = sa.exists().where(
        col(Event.entity) == entity(Dataset),
        col(Event.entity_id) == col(Dataset.id),
        col(Event.after) == ENDED,
    )
    going = sa.exists().where(
        sa.text("dataset.state = 'DELETING'"),
        col(Dataset.grace_until).is_(None),
        _lies_on(storage_id),
        sa.or_(sa.not_(stuck), early),
    )
    return bool(session.scalar(sa.select(going)))


def _lies_on(storage_id: int, *more: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Whether bytes that go with a `Dataset` lie on a storage, as an expression.

    `more` is what else is to be true of a `DatasetFile`.
    """
    there = (
        sa.select(sa.literal(1))
        .select_from(DatasetFile)
        .join(Replica, col(Replica.file_id) == col(DatasetFile.file_id))
        .where(
            col(DatasetFile.dataset_id) == col(Dataset.id),
            col(Replica.storage_id) == storage_id,
            col(Replica.state).not_in((ReplicaState.MISSING, ReplicaState.DELETED)),
            sa.or_(col(Dataset.originals).is_not(None), sa.not_(is_original())),
            *more,
        )
        .correlate(Dataset)
    )
    return sa.exists(there)
