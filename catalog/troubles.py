"""Troubles: what a loop that serves many can't do for one item, told where its owner looks.

`spdf dataset why` and its like show those of one thing, `spdf status` the newest of all. A trouble
ends when its item is served, or nobody has met it for a day.
"""

import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog.bulk import insert_ignore
from catalog.clock import now
from catalog.db import Catalog
from catalog.models import Trouble
from catalog.outage import isolated, printable

KEPT_S = 86400.0
_AGAIN_S = 60.0


class Of(StrEnum):
    """What can have troubles: the table of the item."""

    DATASET = "dataset"
    WORKFLOW = "workflow"
    UPLOAD = "upload"
    STORAGE = "storage"
    TEMPLATE = "template"
    SERVICE = "service"


@dataclass(frozen=True)
class TroubleInfo:
    """What one loop (`source`) can't do for one item, since when, and when it was tried last."""

    source: str
    entity: str
    entity_id: int
    name: str
    error: str
    since: datetime
    seen_at: datetime


_INFO = (
    col(Trouble.source),
    col(Trouble.entity),
    col(Trouble.entity_id),
    col(Trouble.name),
    col(Trouble.error),
    col(Trouble.since),
    col(Trouble.seen_at),
)


class Troubles:
    """The troubles of one loop, written when they begin and change, and each minute they last.

    To tell of one must not be another: what can't be written is only logged.
    """

    def __init__(self, catalog: Catalog, source: str) -> None:
        self._catalog, self._source = catalog, source
        self._known: dict[tuple[str, int], tuple[str, float]] | None = None
        self._lock = threading.Lock()

    def note(self, entity: Of, entity_id: int, name: str, error: str) -> None:
        """The item can't be served: `error` is a sentence."""
        with self._lock, isolated("trouble", f"{entity} {entity_id}"):
            known = self._read()
            text, written = known.get((entity, entity_id), ("", float("-inf")))
            if text == error and time.monotonic() - written < _AGAIN_S:
                return
            with self._catalog.write() as session:
                write(session, self._source, entity, entity_id, name, error)
            known[entity, entity_id] = error, time.monotonic()

    def over(self, entity: Of, entity_id: int) -> None:
        """The item was served."""
        with self._lock, isolated("trouble", f"{entity} {entity_id}"):
            known = self._read()
            if (entity, entity_id) not in known:
                return
            with self._catalog.write() as session:
                end(session, self._source, entity, entity_id)
            del known[entity, entity_id]

    def only(self, entity: Of, entity_ids: Collection[int]) -> None:
        """No other item of these has troubles: what was noted of others is over."""
        with self._lock, isolated("trouble", entity):
            known = self._read()
            gone = [i for kind, i in known if kind == entity and i not in entity_ids]
            if not gone:
                return
            with self._catalog.write() as session:
                for entity_id in gone:
                    end(session, self._source, entity, entity_id)
            for entity_id in gone:
                del known[entity, entity_id]

    def _read(self) -> dict[tuple[str, int], tuple[str, float]]:
        """What is noted, also by a process before this one."""
        if self._known is None:
            with self._catalog.read() as session:
                rows = session.execute(
                    sa.select(col(Trouble.entity), col(Trouble.entity_id), col(Trouble.error))
                    .where(col(Trouble.source) == self._source)
                    .order_by(col(Trouble.seen_at).desc())
                )
                self._known = {
                    (row.entity, row.entity_id): (row.error, float("-inf")) for row in rows
                }
        return self._known


def write(session: Session, source: str, entity: Of, entity_id: int, name: str, error: str) -> None:
    """Note a trouble; its `since` is when it was noted first."""
    row = {
        "source": source,
        "entity": entity.value,
        "entity_id": entity_id,
        "name": printable(name),
        "error": printable(error),
    }
    insert_ignore(session, Trouble, [row])
    session.execute(
        sa.update(Trouble)
        .where(_is(source, entity, entity_id))
        .values(error=row["error"], seen_at=now()),
        execution_options={"synchronize_session": False},
    )


def end(session: Session, source: str, entity: Of, entity_id: int) -> None:
    """Forget a trouble."""
    session.execute(
        sa.delete(Trouble).where(_is(source, entity, entity_id)),
        execution_options={"synchronize_session": False},
    )


def forget_old(session: Session) -> None:
    """Forget what nobody has met for a day: its item is gone, or is served by another way."""
    session.execute(
        sa.delete(Trouble).where(col(Trouble.seen_at) < now(-KEPT_S)),
        execution_options={"synchronize_session": False},
    )


def of(session: Session, entity: Of, entity_id: int) -> list[TroubleInfo]:
    """The troubles of one thing, the newest first."""
    query = sa.select(*_INFO).where(
        col(Trouble.entity) == entity.value, col(Trouble.entity_id) == entity_id
    )
    rows = session.execute(query.order_by(col(Trouble.since).desc()))
    return [TroubleInfo(**row._mapping) for row in rows]


def recent(session: Session, limit: int) -> list[TroubleInfo]:
    """The newest troubles of all."""
    rows = session.execute(sa.select(*_INFO).order_by(col(Trouble.since).desc()).limit(limit))
    return [TroubleInfo(**row._mapping) for row in rows]


def count(session: Session) -> int:
    """How many there are."""
    return int(session.execute(sa.select(sa.func.count()).select_from(Trouble)).scalar_one())


def _is(source: str, entity: Of, entity_id: int) -> sa.ColumnElement[bool]:
    return sa.and_(
        col(Trouble.source) == source,
        col(Trouble.entity) == entity.value,
        col(Trouble.entity_id) == entity_id,
    )
