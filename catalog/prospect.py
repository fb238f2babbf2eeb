"""What the deletion of a dataset would do: what goes, what stays and why, and who refers to it."""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased
from sqlmodel import Session, col

from catalog import deletion, dutywords
from catalog.fixedinputs import file_ids
from catalog.models import Dataset, DatasetFile, File, Replica, Storage, Template, Upload, Workflow
from catalog.originals import is_original
from catalog.rowsets import among
from catalog.states import FINAL, ReplicaState, WorkflowState
from catalog.uploads import GOING

_NAMED = 10
"""Things of a kind that are named; the others are counted."""


@dataclass(frozen=True)
class Amount:
    """So many files, or copies of files, and their bytes."""

    files: int = 0
    size_bytes: int = 0


@dataclass(frozen=True)
class Referrers:
    """Things of one kind that refer to a dataset: how many, and a few of them by name."""

    kind: str
    count: int
    named: tuple[str, ...]


@dataclass(frozen=True)
class Prospect:
    """What a deletion would do to a dataset of `whole`.

    Copies that the product wrote go (`removed`); `originals` were registered where they lay, and
    are detached unless a word takes them, too. `kept` are files whose bytes others need.
    """

    whole: Amount
    removed: Amount
    originals: Amount
    kept: Amount
    referrers: tuple[Referrers, ...]


def prospect(session: Session, dataset_id: int) -> Prospect:
    """What a deletion of the dataset would do now; nothing is changed."""
    members = _members(session, dataset_id)
    whole = kept = Amount()
    for row in session.execute(
        sa.select(
            members.c.held, sa.func.count().label("files"), _sum(members.c.size_bytes)
        ).group_by(members.c.held)
    ):
        amount = Amount(row.files, row.size_bytes)
        whole = Amount(whole.files + amount.files, whole.size_bytes + amount.size_bytes)
        kept = amount if row.held else kept
    removed = originals = Amount()
    for row in session.execute(_copies(members)):
        amount = Amount(row.files, row.size_bytes)
        removed, originals = (removed, amount) if row.original else (amount, originals)
    return Prospect(whole, removed, originals, kept, _referrers(session, dataset_id))


def _members(session: Session, dataset_id: int) -> sa.Subquery:
    """The files of a dataset, with whether others hold them."""
    other: Any = aliased(DatasetFile)
    by_other = (
        sa.select(sa.literal(1))
        .select_from(other)
        .join(Dataset, col(Dataset.id) == other.dataset_id)
        .where(
            other.file_id == col(DatasetFile.file_id),
            col(Dataset.id) != dataset_id,
            deletion.holds(),
        )
        .correlate(DatasetFile)
    )
    fixed = sorted(deletion.fixed_inputs(session))
    held = sa.or_(sa.exists(by_other), among(session, col(DatasetFile.file_id), fixed))
    return (
        sa.select(
            col(DatasetFile.file_id),
            col(File.size_bytes),
            sa.case((held, 1), else_=0).label("held"),
        )
        .join(File, col(File.id) == col(DatasetFile.file_id))
        .where(col(DatasetFile.dataset_id) == dataset_id)
        .subquery("members")
    )


def _copies(members: sa.Subquery) -> sa.Select[Any]:
    """Copies of the files that nobody holds, by whose bytes they are."""
    gone = (ReplicaState.MISSING, ReplicaState.DELETED)
    copies = (
        sa.select(sa.case((is_original(), 1), else_=0).label("original"), members.c.size_bytes)
        .select_from(Replica)
        .join(members, members.c.file_id == col(Replica.file_id))
        .where(members.c.held == 0, col(Replica.state).not_in(gone))
        .subquery("copies")
    )
    return sa.select(
        copies.c.original, sa.func.count().label("files"), _sum(copies.c.size_bytes)
    ).group_by(copies.c.original)


def _sum(column: Any) -> Any:
    return sa.cast(sa.func.coalesce(sa.func.sum(column), 0), sa.BigInteger).label("size_bytes")


def _referrers(session: Session, dataset_id: int) -> tuple[Referrers, ...]:
    found = (
        _named(session, "datasets that share files", _sharing(dataset_id)),
        _named(session, "workflows that read it", _reading(dataset_id)),
        _fixed(session, dataset_id),
        _named(session, "uploads of it", _uploading(dataset_id)),
        _undone(session, dataset_id),
    )
    return tuple(item for item in found if item.count)


def _undone(session: Session, dataset_id: int) -> Referrers:
    """What it would be kept for, were there only its lifetime."""
    facts = [item.fact for item in dutywords.kept_for(session, dataset_id)]
    return Referrers("not done with it", len(facts), tuple(facts[:_NAMED]))


def _named(session: Session, kind: str, query: sa.Select[Any]) -> Referrers:
    """Things by the query's `id` and `words`."""
    them = query.subquery("them")
    count = session.execute(sa.select(sa.func.count()).select_from(them)).scalar_one()
    rows = session.execute(sa.select(them).order_by(them.c.id).limit(_NAMED)) if count else ()
    return Referrers(kind, count, tuple(f"{row.words} ({row.state})" for row in rows))


def _sharing(dataset_id: int) -> sa.Select[Any]:
    mine: Any = aliased(DatasetFile)
    theirs: Any = aliased(DatasetFile)
    shared = (
        sa.select(theirs.dataset_id)
        .join(mine, sa.and_(mine.file_id == theirs.file_id, mine.dataset_id == dataset_id))
        .where(theirs.dataset_id != dataset_id)
    )
    return sa.select(col(Dataset.id), col(Dataset.name).label("words"), col(Dataset.state)).where(
        col(Dataset.id).in_(shared), deletion.holds()
    )


def _reading(dataset_id: int) -> sa.Select[Any]:
    text = sa.cast(col(Workflow.id), sa.String) + ", " + col(Template.name)
    return (
        sa.select(col(Workflow.id), text.label("words"), col(Workflow.state))
        .join(Template, col(Template.id) == col(Workflow.template_id))
        .where(col(Workflow.dataset_id) == dataset_id)
    )


def _uploading(dataset_id: int) -> sa.Select[Any]:
    return (
        sa.select(col(Upload.id), col(Storage.name).label("words"), col(Upload.state))
        .join(Storage, col(Storage.id) == col(Upload.storage_id))
        .where(col(Upload.dataset_id) == dataset_id, col(Upload.state).in_(GOING))
    )


def _fixed(session: Session, dataset_id: int) -> Referrers:
    """Workflows that aren't final, and have a file of the dataset as a fixed input."""
    rows = session.execute(
        sa.select(col(Workflow.id), col(Workflow.state), col(Workflow.inputs))
        .where(col(Workflow.state).not_in(FINAL[WorkflowState]))
        .order_by(col(Workflow.id))
    ).all()
    wanted = {file_id for row in rows for file_id in file_ids(row.inputs)}
    mine = set(
        session.scalars(
            sa.select(col(DatasetFile.file_id)).where(
                col(DatasetFile.dataset_id) == dataset_id,
                among(session, col(DatasetFile.file_id), sorted(wanted)),
            )
        )
    )
    reading = [f"{r.id} ({r.state})" for r in rows if mine.intersection(file_ids(r.inputs))]
    kind = "workflows with a fixed input in it"
    return Referrers(kind, len(reading), tuple(reading[:_NAMED]))
