"""Deletion in two phases: a dataset is marked, then bytes go, then what is gone is noted.

Bytes go only where no other dataset that isn't being deleted holds their file, and no workflow that
isn't final reads it; what was registered in place only by an `originals.Order`. A crash between the
phases leaves DELETING rows, which the next run ends. `removal` is what becomes of the copies.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import (
    cattime,
    datasets,
    deletionfaults,
    durations,
    duties,
    fixedinputs,
    grace,
    leftovers,
    lifetimes,
    originals,
    unprocessed,
    uploads,
)
from catalog.clock import now
from catalog.counts import count_of
from catalog.datasets import DatasetInfo
from catalog.db import Catalog
from catalog.errors import Conflict, StateConflict
from catalog.failpoints import reach
from catalog.leftovers import Held
from catalog.models import Dataset, DatasetFile, IntakeRule, Replica, Task, Workflow
from catalog.outage import isolated
from catalog.refs import Originals
from catalog.removal import PAGE, THREADS, Doomed, Removed, doom, drivers, lock, remove_replicas
from catalog.rowsets import among
from catalog.states import FINAL, DatasetState, ReplicaState, WorkflowState
from catalog.transitions import move, record_change
from catalog.tries import Places

MOST_EXPIRED = 500
"""Datasets that are marked in one transaction."""
_GOING = (DatasetState.DELETING, DatasetState.DELETED)
AGAIN = "AGAIN"
"""What the event of a dataset says whose deletion was asked for once more, with other words."""


@dataclass(frozen=True)
class _DoomedPage:
    """What goes of a page of files, how many of these others hold, and what the intake leaves."""

    rows: Sequence[Doomed]
    kept: int
    left: Sequence[Held] = ()


def mark(
    session: Session,
    dataset_id: int,
    reason: str,
    *,
    consumed: bool = False,
    grace_s: float = 0.0,
    by: Originals | None = None,
    by_person: bool = False,
) -> bool:
    """Phase one: a dataset is DELETING; False where it is already, or is DELETED.

    Nothing goes for `grace_s` seconds, in which it can be taken back. Originals go with it only by
    a word or rule (`by`). Of one that is DELETING with grace left, a later word `by_person` decides
    anew on its originals, and ends its grace sooner, never later; nobody else changes it. Raises
    `Conflict` where it is pinned, or a workflow that isn't final makes it or reads it, and where a
    person's word on originals comes too late. With `consumed` a dataset that a workflow makes may
    go once the tasks that read it are FINISHED.
    """
    info = datasets.get(session, dataset_id)
    if info.state in _GOING:
        return by_person and _hasten(session, info, reason, grace_s, by)
    until = now(grace_s) if grace_s > 0 else None
    if not move(
        session, Dataset, [dataset_id], DatasetState.DELETING,
        message=reason, deleting_at=now(), grace_until=until, originals=by,
    ):  # fmt: skip
        raise StateConflict("dataset", info.name, info.state, DatasetState.DELETING)
    # The row is ours and says DELETING: no workflow takes it up from here on.
    check_free(session, info, consumed=consumed)
    return True


def check_free(session: Session, info: DatasetInfo, *, consumed: bool = False) -> None:
    """Raise `Conflict` where something keeps a dataset from being deleted."""
    if info.pin is not None:
        raise Conflict(
            f"dataset {info.name!r} is pinned ({info.pin}); `spdf dataset unpin {info.name}` first."
        )
    if uploads.is_going(session, info.id):
        raise Conflict(
            f"dataset {info.name!r} is being uploaded; wait for its end, or cancel the upload."
        )
    _refuse_read(session, info)
    if info.task_id is not None:
        _refuse_made(session, info, consumed)


def _hasten(
    session: Session, info: DatasetInfo, reason: str, grace_s: float, by: Originals | None
) -> bool:
    """Asked for once more by a person: whether that changed a deletion that has grace left."""
    held = session.execute(
        sa.select(col(Dataset.grace_until), col(Dataset.originals), now(grace_s).label("until"))
        .where(col(Dataset.id) == info.id, grace.is_left(), col(Dataset.grace_until) > now())
        .with_for_update()
    ).one_or_none()
    if held is None:
        _refuse_too_late(datasets.get(session, info.id), by)
        return False
    sooner = held.until < held.grace_until
    if not sooner and by == held.originals:
        return False
    until = held.grace_until
    if sooner:
        until = held.until if grace_s > 0 else None
    session.execute(
        sa.update(Dataset)
        .where(col(Dataset.id) == info.id)
        .values(grace_until=until, originals=by),
        execution_options={"synchronize_session": False},
    )
    if held.originals is not None and by is None:
        reason += "; the order to remove its originals, too, is taken back: they stay"
    record_change(session, Dataset, info.id, AGAIN, reason)
    return True


def check_word(session: Session, info: DatasetInfo, by: Originals | None) -> None:
    """Raise `Conflict` where a person's word to delete a dataset would be refused."""
    if info.state not in _GOING:
        check_free(session, info)
    elif grace.left_until(session, info) is None:
        _refuse_too_late(info, by)


def _refuse_too_late(info: DatasetInfo, by: Originals | None) -> None:
    """Raise `Conflict` where a person's word on originals differs from the one that is followed.

    `info` is a dataset whose bytes go already, or are gone.
    """
    if info.state is not DatasetState.DELETING or info.originals == by:
        return
    fate = "stay" if info.originals is None else "go, too"
    raise Conflict(
        f"dataset {info.name!r} is being deleted already, without any grace left, by a word that "
        f"its originals {fate}; that can't be changed any more: `spdf dataset why {info.name}` "
        "tells how far it is."
    )


def _refuse_read(session: Session, info: DatasetInfo) -> None:
    """Raise `Conflict` where a workflow that isn't final has the dataset for its input."""
    query = sa.select(col(Workflow.id)).where(
        col(Workflow.dataset_id) == info.id, col(Workflow.state).not_in(FINAL[WorkflowState])
    )
    reading = sorted(session.scalars(query))
    if reading:
        raise Conflict(
            f"dataset {info.name!r} is the input of workflow {reading[0]}, which isn't final; "
            f"wait for its end, or `spdf workflow cancel {reading[0]}` first."
        )


def _refuse_made(session: Session, info: DatasetInfo, consumed: bool) -> None:
    """Raise `Conflict` where the workflow that makes the dataset still works with it."""
    maker = session.execute(
        sa.select(col(Task.workflow_id), col(Workflow.state))
        .join(Workflow, col(Workflow.id) == col(Task.workflow_id))
        .where(col(Task.id) == info.task_id)
    ).one()
    if maker.state in FINAL[WorkflowState] or (consumed and info.state is DatasetState.CLOSED):
        return
    raise Conflict(
        f"dataset {info.name!r} is made by workflow {maker.workflow_id}, which isn't final; wait "
        f"for its end, or `spdf workflow cancel {maker.workflow_id}` first."
    )


def mark_by_itself(
    session: Session,
    dataset_id: int,
    reason: str,
    *,
    consumed: bool = False,
    by: Originals | None = None,
) -> bool:
    """As `mark`, by nobody's word: raises `Conflict` also where the dataset isn't done with."""
    marked = mark(session, dataset_id, reason, consumed=consumed, by=by)
    # Asked in a statement behind the one that holds the row: a retry that was faster is seen.
    duties.require(session, dataset_id, besides_maker=consumed)
    return marked


def expire(session: Session) -> list[str]:
    """Mark the CLOSED datasets whose lifetime is over; gives their names.

    Lifetimes begin when all is done with a dataset. Those that can't go yet (they are pinned, or
    being read, or may be retried) are left for the next time. Originals go with those whose intake
    rule is followed and declares a lifetime, once that is over, too.
    """
    lifetimes.begin_anew(session)
    lifetimes.begin(session)
    gone: list[str] = []
    if not cattime.may_remove(session):
        return gone
    for row in _expired(session):
        by, why = None, "its lifetime is over"
        if row.declared_s is not None and row.moment >= row.closed_at + timedelta(
            seconds=row.declared_s
        ):
            by = Originals.BY_RULE
            declared = durations.words(row.declared_s)
            why = f"the lifetime of intake rule {row.rule} ({declared}) is over"
        with isolated("dataset", row.name), suppress(Conflict):
            with session.begin_nested():
                why += unprocessed.part(session, row.id)
                mark_by_itself(session, row.id, why, by=by)
            gone.append(row.name)
    return gone


def _expired(session: Session) -> Sequence[sa.Row[Any]]:
    """Datasets whose lifetime is over; those that may not go would be in the way of others."""
    return session.execute(
        sa.select(
            col(Dataset.id),
            col(Dataset.name),
            col(Dataset.closed_at),
            col(IntakeRule.lifetime_s).label("declared_s"),
            col(IntakeRule.name).label("rule"),
            now().label("moment"),
        )
        .outerjoin(
            IntakeRule,
            sa.and_(col(IntakeRule.id) == col(Dataset.rule_id), col(IntakeRule.active)),
        )
        .where(
            col(Dataset.state) == DatasetState.CLOSED,
            col(Dataset.expires_at) <= now(),
            duties.may_go(session),
        )
        .order_by(col(Dataset.id))
        .limit(MOST_EXPIRED)
    ).all()


def remove(
    catalog: Catalog,
    dataset_id: int,
    *,
    until: Callable[[], bool] = lambda: False,
    progress: Callable[[Removed], None] = lambda _so_far: None,
) -> Removed:
    """Phase two: the bytes of a DELETING dataset go, then it is DELETED; none while grace lasts.

    May be killed at any point and run again. Files that can't go now (their storage is away) keep
    the dataset DELETING, and why is written down; `until` ends the run early.
    """
    total = Removed()
    with catalog.write() as session:
        if not grace.end(session, dataset_id):
            return total
    places = drivers(catalog)
    with Places(THREADS, "delete") as pool:
        for page in _ahead(_doomed_pages(catalog, dataset_id)):
            total += remove_replicas(catalog, page.rows, places, pool) + Removed(kept=page.kept)
            _note_left(catalog, dataset_id, leftovers.look(places, page.left, pool))
            progress(total)
            if until():
                return total
    reach("deletion.ends")
    with catalog.write() as session:
        deletionfaults.replace(session, dataset_id, total.stayed)
        if not total.faults:
            move(session, Dataset, [dataset_id], DatasetState.DELETED, message=_told(total))
    return total


def _note_left(catalog: Catalog, dataset_id: int, left: Sequence[Held]) -> None:
    """Write down what others hold: no rule makes the dataset anew of it."""
    if left:
        with catalog.write() as session:
            leftovers.note(session, leftovers.owner(session, dataset_id).dataset, left)


def _told(total: Removed) -> str:
    told = [
        f"the last run removed {count_of(total.copies, 'copy', 'copies')}",
        f"others hold {count_of(total.kept, 'file')}",
    ]
    if total.detached:
        told.append(f"detached, so that the bytes stay: {count_of(total.detached, 'file')}")
    if total.left:
        told.append(f"under {count_of(total.left, 'path')} lie other bytes, which stay")
    return "; ".join(told)


def _pages(catalog: Catalog, dataset_id: int) -> Iterator[list[int]]:
    """File ids of the dataset, page by page."""
    after = 0
    while True:
        with catalog.read() as session:
            page = list(
                session.scalars(
                    sa.select(col(DatasetFile.file_id))
                    .where(
                        col(DatasetFile.dataset_id) == dataset_id, col(DatasetFile.file_id) > after
                    )
                    .order_by(col(DatasetFile.file_id))
                    .limit(PAGE)
                )
            )
        if not page:
            return
        yield page
        after = page[-1]


def _ahead(pages: Iterator[_DoomedPage]) -> Iterator[_DoomedPage]:
    """The pages, of which the next is made ready while the caller works on one."""
    with ThreadPoolExecutor(1, thread_name_prefix="doom") as pool:
        coming = pool.submit(next, pages, None)
        while (page := coming.result()) is not None:
            coming = pool.submit(next, pages, None)
            yield page


def _doomed_pages(catalog: Catalog, dataset_id: int) -> Iterator[_DoomedPage]:
    """Of each page of the dataset's files the replicas that can go are DELETING from here on."""
    for file_ids in _pages(catalog, dataset_id):
        with catalog.write() as session:
            order = originals.order_of(session, dataset_id)
            # Locked first: who attaches one of them meanwhile waits, and finds its replicas going.
            found = lock(session, among(session, col(Replica.file_id), file_ids))
            held = _held(session, file_ids, besides=dataset_id)
            # What an earlier run has marked goes in any case: nobody may use it again.
            free = [r for r in found if r.file_id not in held or r.state == ReplicaState.DELETING]
            rows = doom(session, free, f"dataset {order.dataset} is deleted", order)
            whose = leftovers.owner(session, dataset_id)
            kept = [r for r in found if r.file_id in held and r.state != ReplicaState.DELETING]
        reach("deletion.marked")
        yield _DoomedPage(rows, len(held), whose.chosen(kept))


def holds() -> sa.ColumnElement[bool]:
    """Whether a `Dataset` keeps the bytes of its files, as an expression."""
    return sa.or_(col(Dataset.state).not_in(_GOING), grace.is_left())


def _held(session: Session, file_ids: Sequence[int], *, besides: int) -> set[int]:
    """Those of the files whose bytes are needed still.

    Held are files of any dataset that isn't going, or may be taken back (`besides` is one that
    doesn't count), and fixed inputs of workflows that aren't final.
    """
    query = (
        sa.select(col(DatasetFile.file_id))
        .join(Dataset, col(Dataset.id) == col(DatasetFile.dataset_id))
        .where(
            among(session, col(DatasetFile.file_id), file_ids),
            holds(),
            col(Dataset.id) != besides,
        )
    )
    return set(session.scalars(query)) | fixed_inputs(session).intersection(file_ids)


def fixed_inputs(session: Session) -> set[int]:
    """Files that are fixed inputs of workflows that aren't final."""
    rows = session.scalars(
        sa.select(col(Workflow.inputs)).where(col(Workflow.state).not_in(FINAL[WorkflowState]))
    )
    return {file_id for inputs in rows for file_id in fixedinputs.file_ids(inputs)}
