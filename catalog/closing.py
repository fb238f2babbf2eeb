"""Which datasets are to be closed by themselves, as all who fill them have ended, and which wait.

What keeps one open though its sources have ended: something that a rule saw and couldn't take,
until its rule's patience is over; a folder that can't be read; requests that wait.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import arrivals, datasets, intakerules, refusals, sources, unseen
from catalog.counts import count_of
from catalog.datasets import SourcesOpen
from catalog.ends import unended
from catalog.errors import StateConflict
from catalog.models import Dataset, Request, Source
from catalog.refs import SourceEnd
from catalog.rowsets import among
from catalog.sources import SourceInfo
from catalog.states import DatasetState, RequestState
from catalog.transitions import record_change

PAGE = 500
UNFIT = "ANNOUNCED"
"""What the event of a dataset says that can't have what was announced any more."""


@dataclass(frozen=True)
class Ended:
    """An OPEN dataset whose sources have ended, but for those that never had a file (`idle`)."""

    id: int
    name: str
    sources: tuple[SourceInfo, ...]

    @property
    def idle(self) -> list[SourceInfo]:
        """Rules that have seen no file and no marker of it."""
        return [info for info in self.sources if info.is_open]


def ended(session: Session, *, after: int = 0, only: int | None = None) -> list[Ended]:
    """A page of these, by id; `after` continues beyond one, `only` asks for that one."""
    filling = unended(sa.literal(1)).where(
        col(Source.dataset_id) == col(Dataset.id),
        sa.or_(col(Source.rule_id).is_(None), col(Source.files) > 0),
    )
    any_source = sa.select(sa.literal(1)).where(col(Source.dataset_id) == col(Dataset.id))
    rows = session.execute(
        sa.select(col(Dataset.id), col(Dataset.name))
        .where(
            # In these words, so that the partial index is seen to have them.
            sa.text("dataset.state = 'OPEN'"),
            col(Dataset.id) > after if only is None else col(Dataset.id) == only,
            any_source.exists(),
            ~filling.exists(),
        )
        .order_by(col(Dataset.id))
        .limit(PAGE)
    ).all()
    by_dataset = sources.of_datasets(session, [row.id for row in rows])
    return [Ended(row.id, row.name, tuple(by_dataset.get(row.id, ()))) for row in rows]


def kept_open(session: Session, found: Sequence[Ended]) -> set[int]:
    """Ids of those that something else keeps open; `why` of each tells what."""
    names = {item.name for item in found}
    held = refusals.holding(session, names).keys() | _queued(session, names)
    rules = {info.rule_id for item in found for info in item.sources if info.rule_id is not None}
    texts = {rule_id: intakerules.by_id(session, rule_id).dataset for rule_id in rules}
    blind = {text for text in set(texts.values()) if unseen.folders(session, text)}
    return {
        item.id
        for item in found
        if item.name in held
        or any(info.rule_id is not None and texts[info.rule_id] in blind for info in item.sources)
    }


def _queued(session: Session, names: Collection[str]) -> set[str]:
    """Those of the names about which requests wait."""
    if not names:
        return set()
    query = sa.select(col(Request.lane)).where(
        among(session, col(Request.lane), names), col(Request.state) == RequestState.QUEUED
    )
    return set(session.scalars(query))


def close(session: Session, item: Ended) -> bool:
    """Close a dataset whose sources have ended; False where one has come, or it isn't OPEN now.

    Then the transaction must not be committed.
    """
    left = refusals.count_of_dataset(session, item.name)
    late = sum(info.late for info in item.sources)
    told = ", ".join(f"{info.who} ({info.ended_by or SourceEnd.QUIET})" for info in item.sources)
    why = f"all who fill it have ended: {told}"
    if late:
        why += f"; {count_of(late, 'file')} came after its source's end"
    if left:
        why += f"; {count_of(left, 'thing')} seen and not taken"
    try:
        return (
            datasets.close(session, item.id, by_sources=True, why=why).state is DatasetState.CLOSED
        )
    except (SourcesOpen, StateConflict):
        return False


def close_ended(session: Session, dataset_id: int) -> list[str]:
    """Close a dataset if all who fill it have ended; else what it waits for."""
    found = ended(session, only=dataset_id)
    if not found:
        return [
            sources.in_words(info, "its end")
            for info in sources.of_dataset(session, dataset_id)
            if info.is_open
        ]
    (item,) = found
    if waits := [info.who for info in item.idle]:
        return [f"{who} has no file of it so far" for who in waits]
    # The request that asks for it is one that waits, too.
    if held := refusals.holding(session, {item.name}).get(item.name):
        return [f"{count_of(held, 'thing')} of it not taken"]
    close(session, item)
    return []


def announced(session: Session, dataset_id: int | None = None) -> Sequence[sa.Row[Any]]:
    """Senders, of one dataset or of all, that said how many files there will be."""
    query = (
        sa.select(
            col(Source.id),
            col(Source.dataset_id),
            col(Source.sender),
            col(Source.expects),
            col(Source.told),
            sources.is_overdue().label("overdue"),
        )
        .join(Dataset, col(Dataset.id) == col(Source.dataset_id))
        .where(
            col(Source.expects).is_not(None),
            col(Source.ended_by).is_(None),
            col(Dataset.state) == DatasetState.OPEN,
        )
    )
    if dataset_id is not None:
        query = query.where(col(Dataset.id) == dataset_id)
    return session.execute(query).all()


def count_announced(session: Session, rows: Sequence[sa.Row[Any]]) -> None:
    """End those of `announced` whose datasets have so many files; tell where that can't be."""
    if not rows:
        return
    counts = arrivals.counts(session, {row.dataset_id for row in rows})
    sources.end(
        session,
        {row.id: SourceEnd.COUNT for row in rows if counts.get(row.dataset_id, 0) == row.expects},
    )
    for row in rows:
        there = counts.get(row.dataset_id, 0)
        if not row.told and (there > row.expects or (row.overdue and there != row.expects)):
            when = "" if there > row.expects else " in the time that it gave"
            announced = f"{row.sender} announced {count_of(row.expects, 'file')}{when}"
            message = f"{announced}, and there are {there}"
            record_change(session, Dataset, row.dataset_id, UNFIT, message)
            _tell(session, row.id)


def _tell(session: Session, source_id: int) -> None:
    session.execute(
        sa.update(Source).where(col(Source.id) == source_id).values(told=True),
        execution_options={"synchronize_session": False},
    )


def add_idle(session: Session, waits: Sequence[SourceInfo], passed_s: float) -> None:
    """Count on how long rules without a file are the last ones that a dataset waits for."""
    values: list[dict[str, Any]] = [
        {"id": w.id, "files": w.files, "late": w.late, "quiet_for_s": w.quiet_for_s + passed_s}
        for w in waits
    ]
    sources.learn(session, values)
