"""Events: the history of coarse entities, written where their state changes."""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog.models import Event


@dataclass(frozen=True)
class EventInfo:
    """A state change; `before` is None where the entity was made."""

    id: int
    at: datetime
    entity: str
    entity_id: int
    before: str | None
    after: str
    message: str | None


_INFO = (
    col(Event.id),
    col(Event.at),
    col(Event.entity),
    col(Event.entity_id),
    col(Event.before),
    col(Event.after),
    col(Event.message),
)


def history(session: Session, entity: str, entity_id: int, *, limit: int = 1000) -> list[EventInfo]:
    """What happened to one entity (such as `dataset`), oldest first."""
    query = (
        sa.select(*_INFO)
        .where(col(Event.entity) == entity, col(Event.entity_id) == entity_id)
        .order_by(col(Event.id))
        .limit(limit)
    )
    return [EventInfo(**row._mapping) for row in session.execute(query)]


def recent(session: Session, limit: int = 100) -> list[EventInfo]:
    """What happened last, newest first."""
    query = sa.select(*_INFO).order_by(col(Event.id).desc()).limit(limit)
    return [EventInfo(**row._mapping) for row in session.execute(query)]
