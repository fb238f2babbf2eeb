"""Sources: who fills a dataset from outside, and whether each is done with it.

A dataset that has sources closes by itself once all of them have ended; one that has none is closed
by whoever says so. A rule of the intake that has an end is a source of each dataset that it makes
or joins, and so is every other active one that calls its datasets alike. A sender of requests is
one where it says `hold`, or how many files there will be.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import datasets
from catalog.bulk import insert_ignore
from catalog.clock import now
from catalog.counts import count_of
from catalog.models import Dataset, IntakeRule, Source, Storage
from catalog.refs import SourceEnd
from catalog.rowsets import among
from catalog.rule import Rule
from catalog.states import DatasetState
from catalog.transitions import record_change

ANYBODY = "anybody"
"""The sender of requests that don't say of whom they are."""


@dataclass(frozen=True)
class SourceInfo:
    """A source as its row stood; `rule` is None for a sender.

    `files` are those of the rule's that are in the dataset, `late` of these what came after the
    source's end; `quiet_for_s` is how long a rule saw no new one, as far as it looked. `expects` is
    what a sender announced. One that is `orphaned` is a rule's that is followed no longer.
    """

    id: int
    dataset_id: int
    dataset: str
    rule_id: int | None
    rule: str | None
    storage: str | None
    sender: str | None
    files: int
    late: int
    quiet_for_s: float
    quiet_s: float | None
    expects: int | None
    until: datetime | None
    overdue: bool
    ended_by: SourceEnd | None
    ended_at: datetime | None
    created_at: datetime
    orphaned: bool

    @property
    def is_quiet(self) -> bool:
        """Whether its rule's quiet is over; that is judged anew until the dataset is closed."""
        return (
            self.files > 0
            and not self.orphaned
            and self.quiet_s is not None
            and self.quiet_for_s >= self.quiet_s
        )

    @property
    def is_open(self) -> bool:
        """Whether files of it may come, as far as it alone can tell."""
        return self.ended_by is None and not self.is_quiet

    @property
    def who(self) -> str:
        """How people call it."""
        if self.rule is None:
            return f"sender {self.sender}"
        name = self.rule.rpartition("#")[0] if self.orphaned else self.rule
        return f"intake rule {name}"


def is_overdue() -> sa.ColumnElement[bool]:
    """Whether the time is over in which a sender's files were to come."""
    return sa.func.coalesce(col(Source.until) < now(), sa.false())


_COLUMNS: tuple[Any, ...] = (
    col(Source.id),
    col(Source.dataset_id),
    col(Dataset.name).label("dataset"),
    col(Source.rule_id),
    col(IntakeRule.name).label("rule"),
    col(Storage.name).label("storage"),
    col(Source.sender),
    col(Source.files),
    col(Source.late),
    col(Source.quiet_for_s),
    col(IntakeRule.quiet_s),
    col(Source.expects),
    col(Source.until),
    is_overdue().label("overdue"),
    col(Source.ended_by),
    col(Source.ended_at),
    col(Source.created_at),
    sa.func.coalesce(sa.not_(col(IntakeRule.active)), sa.false()).label("orphaned"),
)


def _select() -> sa.Select[Any]:
    return (
        sa.select(*_COLUMNS)
        .join(Dataset, col(Dataset.id) == col(Source.dataset_id))
        .join(IntakeRule, col(IntakeRule.id) == col(Source.rule_id), isouter=True)
        .join(Storage, col(Storage.id) == col(IntakeRule.storage_id), isouter=True)
    )


def _infos(session: Session, query: sa.Select[Any]) -> list[SourceInfo]:
    return [SourceInfo(**row._mapping) for row in session.execute(query.order_by(col(Source.id)))]


def of_dataset(session: Session, dataset_id: int) -> list[SourceInfo]:
    """The sources of a dataset, the oldest first."""
    return _infos(session, _select().where(col(Source.dataset_id) == dataset_id))


def of_datasets(session: Session, dataset_ids: Collection[int]) -> dict[int, list[SourceInfo]]:
    """The sources of datasets, by the dataset's id."""
    found: dict[int, list[SourceInfo]] = {}
    for info in _infos(
        session, _select().where(among(session, col(Source.dataset_id), dataset_ids))
    ):
        found.setdefault(info.dataset_id, []).append(info)
    return found


def of_rule(session: Session, rule_id: int) -> list[SourceInfo]:
    """A rule's sources of datasets that are OPEN, ended or not."""
    return _infos(
        session,
        _select().where(col(Source.rule_id) == rule_id, col(Dataset.state) == DatasetState.OPEN),
    )


def join(session: Session, rule: Rule, dataset_ids: Collection[int]) -> None:
    """Have a rule, and those that call their datasets alike, be sources of OPEN datasets.

    A rule without an end is none: it would never end. Must come before files are asked for.
    """
    ids = sorted(set(dataset_ids))
    if not ids:
        return
    rules = _alike(session, rule)
    if not rules:
        return
    pairs = session.execute(
        sa.select(col(Source.dataset_id), col(Source.rule_id)).where(
            among(session, col(Source.dataset_id), ids), col(Source.rule_id).is_not(None)
        )
    )
    there = {(row.dataset_id, row.rule_id) for row in pairs}
    missing = [(i, rule_id) for i in ids for rule_id in rules if (i, rule_id) not in there]
    if not missing:
        return
    # As who attaches does: what is being closed takes no source any more.
    held = set(datasets.lock_open(session, [i for i, _ in missing]))
    rows = [{"dataset_id": i, "rule_id": rule_id} for i, rule_id in missing if i in held]
    insert_ignore(session, Source, rows)


def _alike(session: Session, rule: Rule) -> list[int]:
    return list(
        session.scalars(
            sa.select(col(IntakeRule.id))
            .where(col(IntakeRule.active), col(IntakeRule.dataset) == rule.dataset, has_end())
            .order_by(col(IntakeRule.id))
        )
    )


def has_end() -> sa.ColumnElement[bool]:
    """Whether a rule closes datasets."""
    return sa.or_(
        col(IntakeRule.end_pattern).is_not(None),
        col(IntakeRule.close_count).is_not(None),
        col(IntakeRule.quiet_s).is_not(None),
    )


def join_standing(session: Session, rule: Rule) -> None:
    """Be a source of the OPEN datasets that a rule made when programs knew no sources."""
    made = session.scalars(
        sa.select(col(Dataset.id)).where(
            col(Dataset.rule_id) == rule.id, col(Dataset.state) == DatasetState.OPEN
        )
    )
    join(session, rule, list(made))


def hold(
    session: Session,
    dataset_id: int,
    sender: str,
    *,
    expects: int | None = None,
    within_s: float | None = None,
) -> None:
    """Have a sender be a source: the dataset waits for its word, or for so many files.

    Said again, the later word counts. Raises `StateConflict` for a dataset that is not OPEN.
    """
    datasets.require_open(session, dataset_id)
    insert_ignore(session, Source, [{"dataset_id": dataset_id, "sender": sender}])
    if expects is not None:
        until = None if within_s is None else now(within_s)
        session.execute(
            sa.update(Source)
            .where(col(Source.dataset_id) == dataset_id, col(Source.sender) == sender)
            .values(expects=expects, until=until, told=False, ended_by=None, ended_at=None),
            execution_options={"synchronize_session": False},
        )


def end_sender(session: Session, dataset_id: int, sender: str) -> None:
    """A sender has ended, whether it had said before that it fills the dataset or not."""
    hold(session, dataset_id, sender)
    _end(
        session, SourceEnd.WORD,
        col(Source.dataset_id) == dataset_id, col(Source.sender) == sender,
    )  # fmt: skip


def end(session: Session, ends: Mapping[int, SourceEnd]) -> None:
    """End sources, by id, for good; those that have ended, or whose dataset is closed, stay."""
    if not ends:
        return
    about = session.execute(
        sa.select(col(Source.id), col(Source.dataset_id)).where(
            among(session, col(Source.id), ends), col(Source.ended_by).is_(None)
        )
    ).all()
    held = set(datasets.lock_open(session, [row.dataset_id for row in about]))
    for how in sorted({ends[row.id] for row in about}):
        ids = [row.id for row in about if row.dataset_id in held and ends[row.id] is how]
        if ids:
            _end(session, how, among(session, col(Source.id), ids))


def _end(session: Session, how: SourceEnd, *chosen: sa.ColumnElement[bool]) -> None:
    session.execute(
        sa.update(Source)
        .where(col(Source.ended_by).is_(None), *chosen)
        .values(ended_by=how, ended_at=now()),
        execution_options={"synchronize_session": False},
    )


def learn(session: Session, seen: Sequence[Mapping[str, Any]]) -> None:
    """Note what a rule's look says of its sources: `id`, `files`, `late`, `quiet_for_s`."""
    if seen:
        session.connection().execute(
            sa.update(Source)
            .where(col(Source.id) == sa.bindparam("b_id"))
            .values(
                files=sa.bindparam("files"),
                late=sa.bindparam("late"),
                quiet_for_s=sa.bindparam("quiet_for_s"),
            ),
            [
                {"b_id": row["id"], **{k: row[k] for k in ("files", "late", "quiet_for_s")}}
                for row in seen
            ],
        )


def orphans(session: Session, rule: Rule) -> list[SourceInfo]:
    """Open sources of removed rules of a rule's name, storage and datasets."""
    before = sa.literal(f"{rule.name}#") + sa.cast(col(IntakeRule.id), sa.String)
    query = _select().where(
        col(Source.ended_by).is_(None),
        col(Dataset.state) == DatasetState.OPEN,
        sa.not_(col(IntakeRule.active)),
        col(IntakeRule.name) == before,
        col(IntakeRule.storage_id) == rule.storage_id,
        col(IntakeRule.dataset) == rule.dataset,
    )
    return _infos(session, query)


def of_removed(session: Session, rule_id: int) -> list[SourceInfo]:
    """Open sources of a rule that is followed no longer."""
    query = _select().where(
        col(Source.rule_id) == rule_id,
        col(Source.ended_by).is_(None),
        col(Dataset.state) == DatasetState.OPEN,
        sa.not_(col(IntakeRule.active)),
    )
    return _infos(session, query)


def adopt(session: Session, rule: Rule, left: Sequence[SourceInfo]) -> list[str]:
    """Have a rule go on as a source in place of removed ones; gives the datasets' names."""
    taken = []
    for info in left:
        if info.dataset_id not in datasets.lock_open(session, [info.dataset_id]):
            continue
        session.execute(
            sa.delete(Source).where(
                col(Source.dataset_id) == info.dataset_id, col(Source.rule_id) == rule.id
            ),
            execution_options={"synchronize_session": False},
        )
        session.execute(
            sa.update(Source).where(col(Source.id) == info.id).values(rule_id=rule.id),
            execution_options={"synchronize_session": False},
        )
        session.execute(
            sa.update(Dataset)
            .where(col(Dataset.id) == info.dataset_id, col(Dataset.rule_id) == info.rule_id)
            .values(rule_id=rule.id),
            execution_options={"synchronize_session": False},
        )
        told = f"intake rule {rule.name} ({rule.id}) goes on in place of rule {info.rule_id}"
        record_change(session, Dataset, info.dataset_id, "ADOPTED", told)
        taken.append(info.dataset)
    return taken


def in_words(info: SourceInfo, awaits: str) -> str:
    """Where a source stands; `awaits` is what ends it."""
    late = f", {info.late} of them after its end" if info.late else ""
    count = count_of(info.files, "file")
    if info.ended_by is not None:
        how = {
            SourceEnd.MARKER: "by its marker",
            SourceEnd.COUNT: "by its count",
            SourceEnd.QUIET: "as nothing came any more",
            SourceEnd.WORD: "by a word",
            SourceEnd.OTHER: "by the marker of a rule that ends all",
            SourceEnd.NOTHING: "as it had no file and all others had ended",
        }[info.ended_by]
        has = f" with {count}{late}" if info.rule is not None else ""
        return f"{info.who} has ended {how} at {info.ended_at:%Y-%m-%d %H:%M:%SZ}{has}"
    if info.orphaned:
        return f"{info.who} was removed, and nothing ends it; it gave {count}"
    if info.rule is None:
        if info.expects is None:
            return f"{info.who} holds it since {info.created_at:%Y-%m-%d %H:%M:%SZ}"
        until = f", until {info.until:%Y-%m-%d %H:%M:%SZ}" if info.until else ""
        return f"{info.who} announced {count_of(info.expects, 'file')}{until}"
    return f"{info.who} fills it from {info.storage}, so far with {count}; it awaits {awaits}"
