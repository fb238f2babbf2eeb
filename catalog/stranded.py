"""Stranded datasets: OPEN ones that wait for what can't come, who reads them, and the ways on.

Their workflow was cancelled or FAILED, or a rule that fills them was removed. Whoever ends such
says what that leaves; who waits for it is told the cause.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import aliased
from sqlmodel import Session, col

from catalog import datasets, deletion, sources, tasks, workflows
from catalog.counts import count_of
from catalog.datasets import DatasetInfo
from catalog.deletioncauses import Cause
from catalog.incomplete import cant_end, nothing_comes
from catalog.models import Dataset, DatasetFile, IntakeRule, Source, Task, Template, Workflow
from catalog.rowsets import among
from catalog.states import FINAL, DatasetState, WorkflowState, is_final
from catalog.workflows import WorkflowInfo

MOST = 1000
"""Readers that are looked for."""
_SHOWN = 10
_DEPTH = 50


@dataclass(frozen=True)
class Reader:
    """A workflow that has not ended, and the dataset that it takes files from."""

    id: int
    template: str
    dataset: str


@dataclass(frozen=True)
class Left:
    """An output that stays of a workflow, with the files that are in it now."""

    id: int
    dataset: str
    state: DatasetState
    files: int
    incomplete: str | None


@dataclass(frozen=True)
class Leavings:
    """What somebody who ends leaves, and who waits for what is OPEN of it, also over others."""

    datasets: tuple[Left, ...]
    readers: tuple[Reader, ...]

    @property
    def open(self) -> tuple[str, ...]:
        """The names of those that nobody closes by itself."""
        return tuple(left.dataset for left in self.datasets if left.state is DatasetState.OPEN)


def of_workflow(session: Session, workflow_id: int) -> Leavings:
    """What stays of a workflow: its outputs that nobody deletes."""
    stages = [task.id for task in tasks.of_workflow(session, workflow_id)]
    return _leavings(session, col(Dataset.task_id).in_(stages))


def of_rule(session: Session, rule_id: int) -> Leavings:
    """What a rule leaves OPEN that was removed."""
    left = [info.dataset_id for info in sources.of_removed(session, rule_id)]
    return _leavings(session, among(session, col(Dataset.id), left))


def _leavings(session: Session, which: sa.ColumnElement[bool]) -> Leavings:
    count = (
        sa.select(sa.func.count())
        .where(col(DatasetFile.dataset_id) == col(Dataset.id))
        .correlate(Dataset)
        .scalar_subquery()
    )
    rows = session.execute(
        sa.select(
            col(Dataset.id), col(Dataset.name), col(Dataset.state),
            sa.func.coalesce(col(Dataset.file_count), count), col(Dataset.incomplete),
        )
        .where(which, col(Dataset.state).in_((DatasetState.OPEN, DatasetState.CLOSED)))
        .order_by(col(Dataset.id))
    )  # fmt: skip
    found = tuple(Left(*row) for row in rows)
    waits = [left.id for left in found if left.state is DatasetState.OPEN]
    return Leavings(found, tuple(readers(session, waits)))


def readers(session: Session, dataset_ids: Collection[int]) -> list[Reader]:
    """The workflows that take files from these datasets, or from what such make of them, by id."""
    if not dataset_ids:
        return []
    going = col(Workflow.state).not_in(FINAL[WorkflowState])
    walk = (
        sa.select(col(Workflow.id).label("id"))
        .where(among(session, col(Workflow.dataset_id), sorted(dataset_ids)), going)
        .cte("walk", recursive=True)
    )
    made, maker = aliased(Dataset), aliased(Task)
    walk = walk.union(
        sa.select(col(Workflow.id))
        .select_from(walk)
        .join(maker, col(maker.workflow_id) == walk.c.id)
        .join(made, col(made.task_id) == col(maker.id))
        .join(Workflow, col(Workflow.dataset_id) == col(made.id))
        .where(col(made.state) == DatasetState.OPEN, going)
    )
    rows = session.execute(
        sa.select(col(Workflow.id), col(Template.name), col(Dataset.name))
        .join(Template, col(Template.id) == col(Workflow.template_id))
        .join(Dataset, col(Dataset.id) == col(Workflow.dataset_id))
        .where(col(Workflow.id).in_(sa.select(walk.c.id)))
        .order_by(col(Workflow.id))
        .limit(MOST)
    )
    return [Reader(*row) for row in rows]


def discard(session: Session, workflow_id: int, reason: str, grace_s: float) -> list[str]:
    """Delete what stays of a workflow; gives the names.

    Raises `Conflict` where one is pinned or read by a workflow that isn't final.
    """
    gone = of_workflow(session, workflow_id).datasets
    for left in gone:
        deletion.mark(session, left.id, reason, grace_s=grace_s, by_person=True)
    return [left.dataset for left in gone]


def cause(session: Session, info: DatasetInfo) -> Cause | None:
    """Why nobody ends an OPEN dataset by itself, and the ways on; None where somebody does."""
    if not _is(session, info, cant_end()):
        return None
    if info.task_id is not None:
        return _by_workflow(session, info, tasks.get(session, info.task_id).workflow_id)
    removed = [
        item
        for item in sources.of_dataset(session, info.id)
        if item.orphaned and item.ended_by is None
    ]
    names = ", ".join(dict.fromkeys(item.who for item in removed))
    were = "was" if len(removed) == 1 else "were"
    rule = removed[0].who.rpartition(" ")[2]
    return Cause(
        f"{names}, which {'fills' if len(removed) == 1 else 'fill'} it, {were} removed",
        f"`spdf intake add {rule} …` goes on in its place; {_close([info.name])}",
    )


def _by_workflow(session: Session, info: DatasetInfo, workflow_id: int) -> Cause:
    maker = workflows.get(session, workflow_id)
    why = f": {maker.reason}" if maker.reason else ""
    again = ""
    if maker.state is WorkflowState.FAILED:
        again = f"`spdf workflow retry {maker.id}` goes on with it; "
    return Cause(
        f"workflow {maker.id} ({maker.label}), which makes it, is {maker.state}{why}",
        f"{again}{_close([info.name])}",
    )


def expects_nothing(session: Session, dataset_id: int) -> bool:
    """Whether nobody is known who gives a dataset files still, or ends it."""
    query = sa.select(col(Dataset.id)).where(col(Dataset.id) == dataset_id, nothing_comes())
    return session.execute(query).first() is not None


def _is(session: Session, info: DatasetInfo, condition: sa.ColumnElement[bool]) -> bool:
    query = sa.select(col(Dataset.id)).where(col(Dataset.id) == info.id, condition)
    return info.state is DatasetState.OPEN and session.execute(query).first() is not None


def why_waits(session: Session, workflow: WorkflowInfo) -> Cause | None:
    """Why a workflow waits for what can't come, at whatever distance, and the ways on."""
    if is_final(workflow.state):
        return None
    told, reader = "", workflow
    for _ in range(_DEPTH):
        source = datasets.get(session, reader.dataset_id)
        if source.state is not DatasetState.OPEN:
            return None
        told += f"its input {source.name} stays OPEN: "
        if (found := cause(session, source)) is not None:
            end = f"`spdf workflow cancel {workflow.id}` ends this one, too"
            return Cause(f"{told}{found.fact}", f"{found.next}; {end}")
        if source.task_id is None:
            return None
        reader = workflows.get(session, tasks.get(session, source.task_id).workflow_id)
        told += f"workflow {reader.id} ({reader.label}) makes it, and waits, as "
    return None


def ways_on(left: Leavings) -> str:
    """What can be done about what is left OPEN; empty where nothing is."""
    if not left.open:
        return ""
    return "; ".join(word for word in (ends(left), _close(left.open)) if word)


def ends(left: Leavings) -> str:
    """How those end, too, who wait for what is left OPEN; empty where nobody does."""
    if not left.readers:
        return ""
    ids = " ".join(str(reader.id) for reader in left.readers[:_SHOWN])
    more = " …" if len(left.readers) > _SHOWN else ""
    return f"`spdf workflow cancel {ids}{more}` ends who waits for it, too"


def waiting(left: Leavings) -> str:
    """Who waits for what is left OPEN, in words; empty where nobody does."""
    if not left.readers:
        return ""
    named = [f"{one.id} ({one.template} · {one.dataset})" for one in left.readers[:_SHOWN]]
    more = len(left.readers) - len(named)
    rest = f" and {more} more" if more else ""
    return f"{count_of(len(left.readers), 'workflow')} waiting for it: {', '.join(named)}{rest}"


def _close(names: Sequence[str]) -> str:
    named = " ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")
    them = "it" if len(names) == 1 else "them"
    return f"`spdf dataset close {named}` closes {them} with what is there, as incomplete"


def told(session: Session, limit: int) -> Iterator[str]:
    """What workflows wait for in vain, and what removed rules have left OPEN, in sentences."""
    awaited = session.scalars(
        sa.select(col(Dataset.id))
        .where(
            cant_end(),
            col(Dataset.id).in_(
                sa.select(col(Workflow.dataset_id)).where(
                    col(Workflow.state).not_in(FINAL[WorkflowState])
                )
            ),
        )
        .order_by(col(Dataset.id))
        .limit(limit)
    ).all()
    named = set()
    for dataset_id in awaited:
        info = datasets.get(session, dataset_id)
        found = cause(session, info)
        if found is not None:
            named.add(info.name)
            left = Leavings((), tuple(readers(session, [dataset_id])))
            yield (
                f"dataset {info.name} stays OPEN, with {waiting(left)}: {found.fact}; "
                f"{found.next}; {ends(left)}"
            )
    names = [name for name in _orphaned(session, limit) if name not in named]
    if names:
        more = " and more" if len(names) == limit else ""
        yield (
            f"nothing closes what removed intake rules have left OPEN: {', '.join(names)}{more}; "
            "`spdf dataset why` of each says how to go on"
        )


def _orphaned(session: Session, limit: int) -> list[str]:
    query = (
        sa.select(col(Dataset.name))
        .join(Source, col(Source.dataset_id) == col(Dataset.id))
        .join(IntakeRule, col(IntakeRule.id) == col(Source.rule_id))
        .where(
            col(Source.ended_by).is_(None),
            sa.not_(col(IntakeRule.active)),
            col(Dataset.state) == DatasetState.OPEN,
        )
        .distinct()
        .order_by(col(Dataset.name))
        .limit(limit)
    )
    return list(session.scalars(query))
