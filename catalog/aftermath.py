"""What a catalog that became an earlier one doesn't know, and what it would remove for that.

What was done since is read in the catalog that a restore has put aside, as far as it can be.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import deletion, lifecycle, restores
from catalog.counts import count_of
from catalog.db import Catalog
from catalog.grace import in_the_way
from catalog.models import Dataset, Finding, Inspection, Replica, Request, Storage
from catalog.refs import FindingKind
from catalog.restores import RestoreInfo
from catalog.rowsets import among
from catalog.states import DatasetState, InspectionState, ReplicaState, RequestState

MOST = 1000
"""Of each kind that are told of."""
_GOING = (DatasetState.DELETING, DatasetState.DELETED)


@dataclass(frozen=True)
class Item:
    """A dataset or a request, by its name or key, and what is to be known of it."""

    name: str
    why: str


@dataclass(frozen=True)
class Aftermath:
    """What is known of the time that a catalog has forgotten; `remarks` are what isn't known."""

    generation: int
    at: datetime
    how: str
    due: Sequence[Item]
    deleted: Sequence[Item]
    pinned: Sequence[Item]
    requests: Sequence[Item]
    remarks: Sequence[str]


@dataclass(frozen=True)
class _Since:
    """What the catalog of before has: datasets that are going, those that are pinned, requests."""

    going: Sequence[sa.Row[Any]]
    pinned: Sequence[sa.Row[Any]]
    answered: Sequence[sa.Row[Any]]


def of(catalog: Catalog) -> Aftermath | None:
    """What is to be known before a catalog is accepted; None of one that needn't be."""
    with catalog.read() as session:
        restore = restores.unaccepted(session)
        if restore is None:
            return None
        due = _due(session, restore)
        remarks = _unseen(session, restore)
    since, why_not = _read_aside(catalog, restore)
    deleted: list[Item] = []
    pinned: list[Item] = []
    requests: list[Item] = []
    with catalog.read() as session:
        if since is None:
            remarks += [why_not, _senders(session, restore)]
        else:
            deleted = _deleted(session, since)
            pinned = _pinned(session, since)
            requests = _requests(session, since)
    return Aftermath(
        restore.id, restore.at, restore.how, due, deleted, pinned, requests, remarks
    )  # fmt: skip


def _due(session: Session, restore: RestoreInfo) -> list[Item]:
    """What goes by itself as soon as that may be."""
    found = [Item(row.name, "its lifetime is over") for row in deletion.expired(session)]
    after = 0
    while len(found) < MOST:
        page, after = lifecycle.over(session, after)
        found += [Item(name, why) for _, name, why in page]
        if not after:
            break
    begun = sa.select(col(Dataset.name)).where(
        sa.text("dataset.state = 'DELETING'"), col(Dataset.deleting_at) < restore.at
    )
    found += [
        Item(name, "its deletion was begun before")
        for name in session.scalars(begun.order_by(col(Dataset.id)).limit(MOST))
    ]
    pressing = in_the_way(session, anyway=True)
    names = sa.select(col(Dataset.name)).where(col(Dataset.id).in_(sorted(pressing.values())))
    found += [
        Item(name, "its storage is above its high-water mark, which ends its grace")
        for name in session.scalars(names)
        if name not in {item.name for item in found}
    ]
    return found[:MOST]


def _unseen(session: Session, restore: RestoreInfo) -> list[str]:
    """What storages tell: copies without bytes, and which of them nobody has looked at since."""
    missing = session.execute(
        sa.select(col(Storage.name), sa.func.count().label("copies"))
        .join(Finding, col(Finding.storage_id) == col(Storage.id))
        .join(Replica, col(Replica.id) == col(Finding.replica_id))
        .where(
            col(Finding.kind) == FindingKind.MISSING,
            col(Finding.found_at) >= restore.at,
            col(Replica.state) != ReplicaState.DELETED,
        )
        .group_by(col(Storage.name))
        .order_by(col(Storage.name))
    )
    told = [
        f"storage {row.name}: {count_of(row.copies, 'copy', 'copies')} without bytes: removed "
        "since, perhaps"
        for row in missing
    ]
    looked = sa.exists().where(
        col(Inspection.storage_id) == col(Storage.id),
        col(Inspection.created_at) >= restore.at,
        col(Inspection.state).in_((InspectionState.DONE, InspectionState.ASKING)),
    )
    unseen = session.scalars(
        sa.select(col(Storage.name)).where(sa.not_(looked)).order_by(col(Storage.name))
    )
    told += [
        f"storage {name} has not been looked at since: `spdf inspect run {name}` tells what is "
        "missing there, and what was stored since"
        for name in unseen
    ]
    return told


def _senders(session: Session, restore: RestoreInfo) -> str:
    """From when on requests have to be sent again where nobody knows which."""
    query = sa.select(sa.func.max(col(Request.created_at)))
    last = session.scalar(query.where(col(Request.created_at) < restore.at))
    since = "which was none yet" if last is None else f"of {last:%Y-%m-%d %H:%M:%SZ}"
    return (
        "which requests were answered since can't be told: have all sent again that came after the "
        f"last one that this catalog knows, {since}; one that it knows changes nothing"
    )


def _read_aside(catalog: Catalog, restore: RestoreInfo) -> tuple[_Since | None, str]:
    """What the catalog of before says; else a sentence why nothing is known of it."""
    if restore.aside is None:
        return None, "no catalog of before is there, so that what was deleted since can't be told"
    try:
        with _aside(catalog, restore.aside) as connection:
            return _Since(
                connection.execute(
                    sa.select(col(Dataset.id), col(Dataset.name), col(Dataset.state))
                    .where(col(Dataset.state).in_(_GOING))
                    .order_by(col(Dataset.id).desc())
                ).all(),
                connection.execute(
                    sa.select(col(Dataset.id), col(Dataset.name), col(Dataset.pin))
                    .where(col(Dataset.pin).is_not(None))
                    .order_by(col(Dataset.id))
                ).all(),
                connection.execute(
                    sa.select(col(Request.key), col(Request.kind), col(Request.lane))
                    .where(col(Request.state) == RequestState.DONE)
                    .order_by(col(Request.id))
                ).all(),
            ), ""
    except (sa.exc.DBAPIError, sqlite3.Error, OSError) as error:
        why = getattr(error, "orig", error)
        return None, f"the catalog of before, {restore.aside}, can't be read ({why})"


@contextmanager
def _aside(catalog: Catalog, aside: str) -> Iterator[sa.Connection]:
    """A connection to the catalog of before."""
    if not catalog.is_sqlite:
        with catalog.engine.connect() as connection:
            yield connection.execution_options(schema_translate_map={None: aside})
        return
    address = f"{Path(aside).absolute().as_uri()}?mode=ro"
    engine = sa.create_engine("sqlite://", creator=lambda: sqlite3.connect(address, uri=True))
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def _here(session: Session, rows: Sequence[sa.Row[Any]]) -> dict[int, sa.Row[Any]]:
    """The datasets of this catalog that those of the one of before are, by id."""
    query = sa.select(col(Dataset.id), col(Dataset.name), col(Dataset.state), col(Dataset.pin))
    found = session.execute(query.where(among(session, col(Dataset.id), [r.id for r in rows])))
    return {row.id: row for row in found}


def _deleted(session: Session, since: _Since) -> list[Item]:
    here = _here(session, since.going)
    gone = (
        Item(here[row.id].name, f"{row.state} there, {here[row.id].state} here")
        for row in since.going
        if row.id in here and here[row.id].state not in _GOING
    )
    return list(islice(gone, MOST))


def _pinned(session: Session, since: _Since) -> list[Item]:
    here = _here(session, since.pinned)
    kept = (
        Item(here[row.id].name, str(row.pin))
        for row in since.pinned
        if row.id in here and here[row.id].pin is None
    )
    return list(islice(kept, MOST))


def _requests(session: Session, since: _Since) -> list[Item]:
    keys = [row.key for row in since.answered]
    known = set(
        session.scalars(sa.select(col(Request.key)).where(among(session, col(Request.key), keys)))
    )
    again = (
        Item(row.key, f"{row.kind} of {row.lane}" if row.lane else row.kind)
        for row in since.answered
        if row.key not in known
    )
    return list(islice(again, MOST))
