"""Clashes: keys that were sent before with another content."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog.bulk import chunks
from catalog.errors import Conflict
from catalog.models import Request
from catalog.requests.kinds import RequestDocument

Content = tuple[str, Any]
"""A request's kind and its payload."""


def check_same(key: str, sent: Content, known: Content) -> None:
    """Raise `Conflict` where a key is known for something else than what is sent."""
    if sent != known:
        raise Conflict(
            f"request {key!r} was sent before with another content; "
            "give another request another key."
        )


def clashes(session: Session, sent: Sequence[Sequence[RequestDocument]]) -> list[Conflict | None]:
    """Of several sets of requests, each to be accepted whole: why one can't be; None: it can.

    A set clashes with what is known, and with those before it that can be accepted.
    """
    keys = sorted({document.key for documents in sent for document in documents})
    known: dict[str, Content] = {}
    for batch in chunks(keys):
        rows = session.execute(
            sa.select(col(Request.key), col(Request.kind), col(Request.payload)).where(
                col(Request.key).in_(batch)
            )
        )
        known.update({row.key: (row.kind, row.payload) for row in rows})
    return [_clash(documents, known) for documents in sent]


def _clash(documents: Sequence[RequestDocument], known: dict[str, Content]) -> Conflict | None:
    """Why a set can't be accepted; what can be is `known` from then on."""
    own: dict[str, Content] = {}
    for document in documents:
        content = document.kind, document.payload
        before = known.get(document.key) or own.setdefault(document.key, content)
        try:
            check_same(document.key, content, before)
        except Conflict as error:
            return error
    known.update(own)
    return None
