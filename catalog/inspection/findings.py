"""Inspections and their findings, as rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import singletons
from catalog.bulk import chunks, insert_ignore
from catalog.clock import now
from catalog.db import Catalog
from catalog.errors import NotFound
from catalog.models import Finding, Inspection, Storage
from catalog.refs import FindingKind
from catalog.rowsets import among
from catalog.states import FindingState, InspectionState
from catalog.transitions import move, record

PAGE = 500
_NO_LEASE_S = 86400.0
APART = timedelta(days=1)
"""Between two looks that both must have listed what goes by itself."""
OPEN = (FindingState.FOUND, FindingState.MARKED, FindingState.QUARANTINED)


@dataclass(frozen=True)
class InspectionInfo:
    """An inspection as its row stood; `found` counts what it found, by kind.

    `detached` files have no copy in the catalog any more, and are where they are on purpose.
    """

    id: int
    storage_id: int
    storage: str
    state: InspectionState
    reason: str | None
    sample_percent: float
    replicas: int
    objects: int
    missing: int
    corrupt: int
    dark: int
    detached: int
    created_at: datetime
    ended_at: datetime | None

    @property
    def found(self) -> int:
        """Everything that isn't as it should be."""
        return self.missing + self.corrupt + self.dark


@dataclass(frozen=True)
class FindingInfo:
    """A finding as its row stood. `replica_id` is None of bytes without a row."""

    id: int
    inspection_id: int
    storage_id: int
    storage: str
    kind: FindingKind
    state: FindingState
    path: str
    replica_id: int | None
    size_bytes: int
    message: str
    found_at: datetime
    seen_at: datetime | None
    settled_at: datetime | None

    @property
    def is_seen_again(self) -> bool:
        """Whether an inspection has listed it a day or more after the first that did."""
        return self.seen_at is not None and self.seen_at - self.found_at >= APART


@dataclass(frozen=True)
class NewFinding:
    """What a scan found."""

    kind: FindingKind
    path: str
    size_bytes: int
    message: str
    replica_id: int | None = None


_INSPECTION: tuple[Any, ...] = (
    col(Inspection.id),
    col(Inspection.storage_id),
    col(Storage.name).label("storage"),
    col(Inspection.state),
    col(Inspection.reason),
    col(Inspection.sample_percent),
    col(Inspection.replicas),
    col(Inspection.objects),
    col(Inspection.missing),
    col(Inspection.corrupt),
    col(Inspection.dark),
    col(Inspection.detached),
    col(Inspection.created_at),
    col(Inspection.ended_at),
)
_FINDING: tuple[Any, ...] = (
    col(Finding.id),
    col(Finding.inspection_id),
    col(Finding.storage_id),
    col(Storage.name).label("storage"),
    col(Finding.kind),
    col(Finding.state),
    col(Finding.path),
    col(Finding.replica_id),
    col(Finding.size_bytes),
    col(Finding.message),
    col(Finding.found_at),
    col(Finding.seen_at),
    col(Finding.settled_at),
)


def begin(session: Session, storage_id: int, sample_percent: float) -> int:
    """A new inspection; gives its id."""
    made = Inspection(storage_id=storage_id, sample_percent=sample_percent)
    session.add(made)
    session.flush()
    record(session, Inspection, [(made.id, None)], InspectionState.RUNNING)
    return made.id


def get(session: Session, inspection_id: int) -> InspectionInfo:
    """The inspection with that id; raises `NotFound`."""
    row = session.execute(_inspections().where(col(Inspection.id) == inspection_id)).one_or_none()
    if row is None:
        raise NotFound("inspection", inspection_id, "`spdf inspect report` shows what there is")
    return InspectionInfo(**row._mapping)


def recent(
    session: Session, limit: int = 20, storage_id: int | None = None
) -> list[InspectionInfo]:
    """The newest inspections first, of one storage or of all."""
    query = _inspections().order_by(col(Inspection.id).desc()).limit(limit)
    if storage_id is not None:
        query = query.where(col(Inspection.storage_id) == storage_id)
    return [InspectionInfo(**row._mapping) for row in session.execute(query)]


def _inspections() -> sa.Select[Any]:
    return sa.select(*_INSPECTION).join(Storage, col(Storage.id) == col(Inspection.storage_id))


def end(
    session: Session, inspection_id: int, state: InspectionState, reason: str | None = None
) -> None:
    """An inspection has ended, or asks; the reason says why."""
    move(
        session, Inspection, [inspection_id], state,
        message=reason, reason=reason, ended_at=now(),
    )  # fmt: skip


def role_of(inspection_id: int) -> str:
    """Name of the lease that the process of an inspection holds."""
    return f"inspection:{inspection_id}"


def bury(session: Session) -> list[InspectionInfo]:
    """Inspections whose process died are FAILED; gives them.

    Alive is one whose lease is held. Programs before this one held none: theirs have a day.
    """
    running = sa.select(col(Inspection.id), col(Inspection.created_at) < now(-_NO_LEASE_S)).where(
        col(Inspection.state) == InspectionState.RUNNING
    )
    dead = []
    for inspection_id, is_old in session.execute(running).all():
        role = role_of(inspection_id)
        leased = singletons.is_known(session, role)
        if (leased or is_old) and not singletons.is_held(session, role):
            end(session, inspection_id, InspectionState.FAILED, "its process died before its end")
            singletons.forget(session, role)
            dead.append(get(session, inspection_id))
    return dead


def note(session: Session, inspection_id: int, new: Sequence[NewFinding]) -> None:
    """Write findings down; what is known already, and is open, isn't written twice."""
    storage_id = get(session, inspection_id).storage_id
    for batch in chunks(sorted(new, key=lambda item: item.path)):
        insert_ignore(
            session,
            Finding,
            [
                {
                    "inspection_id": inspection_id,
                    "storage_id": storage_id,
                    "kind": item.kind,
                    "state": FindingState.FOUND,
                    "path": item.path,
                    "replica_id": item.replica_id,
                    "size_bytes": item.size_bytes,
                    "message": item.message,
                }
                for item in batch
            ],
        )


def note_seen(session: Session, inspection_id: int, paths: Sequence[str]) -> None:
    """An inspection has listed these dark bytes, of which an earlier one has told already."""
    storage_id = get(session, inspection_id).storage_id
    for batch in chunks(sorted(paths)):
        session.execute(
            sa.update(Finding)
            .where(
                col(Finding.storage_id) == storage_id,
                col(Finding.kind) == FindingKind.DARK,
                col(Finding.path).in_(batch),
                col(Finding.state).in_(OPEN),
                col(Finding.inspection_id) != inspection_id,
            )
            .values(seen_at=now()),
            execution_options={"synchronize_session": False},
        )


def acted_on(
    session: Session, inspection_id: int, paths: Sequence[str]
) -> set[tuple[FindingKind, str]]:
    """Kind and path of what earlier inspections have found there, and was acted on already."""
    storage_id = get(session, inspection_id).storage_id
    found: set[tuple[FindingKind, str]] = set()
    for batch in chunks(list(paths)):
        rows = session.execute(
            sa.select(col(Finding.kind), col(Finding.path)).where(
                col(Finding.storage_id) == storage_id,
                col(Finding.path).in_(batch),
                col(Finding.state).in_((FindingState.MARKED, FindingState.QUARANTINED)),
            )
        )
        found.update((row.kind, row.path) for row in rows)
    return found


def count(session: Session, inspection_id: int, counts: Mapping[str, int]) -> None:
    """Add to an inspection's counts, by the columns' names."""
    columns: Any = Inspection
    session.execute(
        sa.update(Inspection)
        .where(col(Inspection.id) == inspection_id)
        .values({name: getattr(columns, name) + number for name, number in counts.items()}),
        execution_options={"synchronize_session": False},
    )


def findings(
    session: Session,
    *,
    storage_id: int | None = None,
    states: Sequence[FindingState] = OPEN,
    kind: FindingKind | None = None,
    after: int = 0,
    limit: int = 1000,
) -> list[FindingInfo]:
    """Findings by id, those that are open by default; `after` goes on behind an id."""
    query = (
        sa.select(*_FINDING)
        .join(Storage, col(Storage.id) == col(Finding.storage_id))
        .where(col(Finding.state).in_(states), col(Finding.id) > after)
        .order_by(col(Finding.id))
        .limit(limit)
    )
    if storage_id is not None:
        query = query.where(col(Finding.storage_id) == storage_id)
    if kind is not None:
        query = query.where(col(Finding.kind) == kind)
    return [FindingInfo(**row._mapping) for row in session.execute(query)]


def pages(
    catalog: Catalog, storage_id: int, states: Sequence[FindingState] = OPEN
) -> Iterator[list[FindingInfo]]:
    """The findings of a storage by id, page by page."""
    after = 0
    while True:
        with catalog.read() as session:
            page = findings(session, storage_id=storage_id, states=states, after=after, limit=PAGE)
        if not page:
            return
        yield page
        after = page[-1].id


def begin_removal(session: Session, finding_ids: Sequence[int]) -> set[int]:
    """Those of the findings whose bytes are being removed from now on: no row gets their paths."""
    found = list(finding_ids)
    move(session, Finding, found, FindingState.MARKED, message="bytes without a row: they go now")
    query = sa.select(col(Finding.id)).where(
        among(session, col(Finding.id), found), col(Finding.state) == FindingState.MARKED
    )
    return set(session.scalars(query))


def end_removal(session: Session, finding_ids: Sequence[int], why: str) -> None:
    """The bytes of these findings are not removed."""
    move(
        session, Finding, finding_ids, FindingState.QUARANTINED,
        only_from=(FindingState.MARKED,), message=why,
    )  # fmt: skip


def settle(
    session: Session, finding_ids: Sequence[int], state: FindingState, message: str
) -> list[int]:
    """Findings become `state`, with an event each; gives the ids of those that did."""
    done: list[int] = []
    for batch in chunks(sorted(finding_ids)):
        done += move(session, Finding, batch, state, message=message, settled_at=now())
    return done
