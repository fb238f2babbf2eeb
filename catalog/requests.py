"""Requests: a durable queue of things to be registered later, each with a reply."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog.bulk import chunks, insert_ignore
from catalog.clock import now
from catalog.errors import BadInput, Conflict, NotFound, StateConflict
from catalog.models import Request
from catalog.states import RequestState, is_final, sources


@dataclass(frozen=True)
class NewRequest:
    """What is asked for; `key` is the sender's, so that it can be sent again without harm."""

    kind: str
    key: str
    payload: Mapping[str, Any]


@dataclass(frozen=True)
class RequestInfo:
    """A request as its row stood."""

    id: int
    kind: str
    key: str
    payload: dict[str, Any]
    state: RequestState
    reply: dict[str, Any] | None
    created_at: datetime
    ended_at: datetime | None


_INFO = (
    col(Request.id),
    col(Request.kind),
    col(Request.key),
    col(Request.payload),
    col(Request.state),
    col(Request.reply),
    col(Request.created_at),
    col(Request.ended_at),
)


def submit(session: Session, new: Sequence[NewRequest]) -> list[int]:
    """Queue requests; gives their ids in the order given.

    A key that is known keeps its request, answered or not. Raises `Conflict` where a key is known
    for something else, `BadInput` for an empty kind or key.
    """
    if any(not request.kind or not request.key for request in new):
        raise BadInput("a request has an empty kind or key; give both.")
    known: dict[str, Any] = {}
    for batch in chunks(sorted(new, key=lambda request: request.key)):
        insert_ignore(
            session,
            Request,
            [
                {
                    "kind": request.kind,
                    "key": request.key,
                    "payload": dict(request.payload),
                    "state": RequestState.QUEUED,
                }
                for request in batch
            ],
        )
        rows = session.execute(
            sa.select(
                col(Request.id), col(Request.key), col(Request.kind), col(Request.payload)
            ).where(col(Request.key).in_([request.key for request in batch]))
        )
        known.update({row.key: row for row in rows})
    for request in new:
        row = known[request.key]
        if (row.kind, row.payload) != (request.kind, dict(request.payload)):
            raise Conflict(
                f"request {request.key!r} was sent before with another content; "
                "give another request another key."
            )
    return [known[request.key].id for request in new]


def take(session: Session, limit: int) -> list[RequestInfo]:
    """The oldest QUEUED requests, which nobody else takes until the transaction ends."""
    rows = session.execute(
        sa.select(*_INFO)
        .where(col(Request.state) == RequestState.QUEUED)
        .order_by(col(Request.id))
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return [RequestInfo(**row._mapping) for row in rows]


def reply(
    session: Session, request_id: int, state: RequestState, reply: Mapping[str, Any] | None = None
) -> None:
    """Answer a request as DONE or ERROR, or queue it again; raises `StateConflict`, `NotFound`."""
    ended = is_final(state) or state is RequestState.ERROR
    done = session.execute(
        sa.update(Request)
        .where(col(Request.id) == request_id, col(Request.state).in_(sources(state)))
        .values(
            state=state,
            reply=None if reply is None else dict(reply),
            ended_at=now() if ended else None,
        )
        .returning(col(Request.id))
    ).scalar()
    if done is None:
        info = get(session, request_id)
        raise StateConflict("request", info.key, info.state, state)


def get(session: Session, request_id: int) -> RequestInfo:
    """The request with that id; raises `NotFound`."""
    row = session.execute(sa.select(*_INFO).where(col(Request.id) == request_id)).one_or_none()
    if row is None:
        raise NotFound("request", request_id)
    return RequestInfo(**row._mapping)


def list_requests(
    session: Session,
    *,
    state: RequestState | None = None,
    before: int | None = None,
    limit: int = 100,
) -> list[RequestInfo]:
    """The newest requests first; `before` continues below an id."""
    query = sa.select(*_INFO).order_by(col(Request.id).desc()).limit(limit)
    if state is not None:
        query = query.where(col(Request.state) == state)
    if before is not None:
        query = query.where(col(Request.id) < before)
    return [RequestInfo(**row._mapping) for row in session.execute(query)]
