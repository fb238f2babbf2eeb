"""The rows of requests: accepted once by their key, taken in order, answered once."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased
from sqlmodel import Session, col

from catalog.bulk import chunks, insert_new
from catalog.clock import now
from catalog.db import Catalog
from catalog.errors import Conflict, NotFound, StateConflict
from catalog.models import Dataset, Request
from catalog.outage import printable
from catalog.requests.clashes import Content, check_same
from catalog.requests.kinds import RequestDocument, parse
from catalog.rowsets import among, update_rows
from catalog.states import RequestState, sources

_HINT = "`spdf request list` shows what there is"


@dataclass(frozen=True)
class RequestInfo:
    """A request as its row stood. `begun_at` is set while its work goes on for longer."""

    id: int
    kind: str
    key: str
    lane: str
    payload: dict[str, Any]
    files: int
    state: RequestState
    reply: dict[str, Any] | None
    created_at: datetime
    begun_at: datetime | None
    ended_at: datetime | None

    @property
    def document(self) -> dict[str, Any]:
        """As it was sent."""
        rest: Any = self.payload
        return {"kind": self.kind, "key": self.key, **(rest if type(rest) is dict else {})}


@dataclass(frozen=True)
class Answer:
    """What becomes of a request: DONE or ERROR, with its details."""

    request_id: int
    state: RequestState
    reply: Mapping[str, Any]


_INFO = (
    col(Request.id),
    col(Request.kind),
    col(Request.key),
    col(Request.lane),
    col(Request.payload),
    col(Request.files),
    col(Request.state),
    col(Request.reply),
    col(Request.created_at),
    col(Request.begun_at),
    col(Request.ended_at),
)


def submit_requests(catalog: Catalog, documents: Iterable[Mapping[str, Any]]) -> list[int]:
    """Accept requests, all or none; gives their ids in the order given.

    Once this returns they are durable, and will be done by the `intake` service. Raises `BadInput`
    for a document that is none, `Conflict` where a key is known for another one.
    """
    parsed = [parse(document, f"request {n}") for n, document in enumerate(documents, 1)]
    with catalog.write() as session:
        return submit(session, parsed)


def submit(session: Session, new: Sequence[RequestDocument]) -> list[int]:
    """Queue requests; gives their ids in the order given.

    A key that is known keeps its request, answered or not. Raises `Conflict` where a key is known
    for something else.
    """
    lanes = _lanes(session, [document.dataset for document in new])
    rows = [_row(document, lanes) for document in new]
    fresh = insert_new(session, Request, rows, col(Request.key), col(Request.id))
    ids: dict[str, int] = {row.key: row.id for row in fresh}
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        check_same(row["key"], _content(row), _content(first.setdefault(row["key"], row)))
    for batch in chunks([key for key in first if key not in ids]):
        known = session.execute(sa.select(*_INFO).where(col(Request.key).in_(batch)))
        for found in known:
            check_same(found.key, _content(first[found.key]), (found.kind, found.payload))
            ids[found.key] = found.id
    return [ids[document.key] for document in new]


def _row(document: RequestDocument, lanes: Mapping[int, str]) -> dict[str, Any]:
    about = document.dataset
    lane = lanes.get(about, f"#{about}") if isinstance(about, int) else about
    return {
        "kind": document.kind,
        "key": document.key,
        "lane": lane,
        "payload": document.payload,
        "files": document.file_count,
        "state": RequestState.QUEUED,
    }


def _lanes(session: Session, about: Sequence[int | str]) -> dict[int, str]:
    """Names of the datasets that were given by id: a dataset has one lane, however it is called."""
    names: dict[int, str] = {}
    for batch in chunks(sorted({item for item in about if isinstance(item, int)})):
        rows = session.execute(
            sa.select(col(Dataset.id), col(Dataset.name)).where(col(Dataset.id).in_(batch))
        )
        names.update({row.id: row.name for row in rows})
    return names


def _content(row: Mapping[str, Any]) -> Content:
    return row["kind"], row["payload"]


def window(
    session: Session,
    besides: Sequence[int] = (),
    aside: Collection[str] = (),
    *,
    most: int,
    most_files: int,
) -> list[RequestInfo]:
    """The oldest requests that may be done now, in order.

    Those wait whose dataset has a request in work, or whose lane is `aside`; `besides` are passed
    over, as if answered. The first is given, however many files it has.
    """
    other: Any = aliased(Request, name="other")
    begun = sa.select(other.lane).where(_is_begun("other"))
    oldest = (
        sa.select(col(Request.id), col(Request.files))
        .where(
            col(Request.state) == RequestState.QUEUED,
            col(Request.begun_at).is_(None),
            col(Request.lane).not_in(begun),
            sa.not_(among(session, col(Request.id), besides)),
            sa.not_(among(session, col(Request.lane), aside)),
        )
        .order_by(col(Request.id))
        .limit(most)
        .subquery("oldest")
    )
    # Cut before their documents are read: those of a long queue are many and large.
    so_far = sa.func.sum(oldest.c.files).over(order_by=oldest.c.id)
    place = sa.func.row_number().over(order_by=oldest.c.id)
    numbered = sa.select(oldest.c.id, so_far.label("files"), place.label("place")).subquery(
        "numbered"
    )
    fitting = sa.select(numbered.c.id).where(
        sa.or_(numbered.c.files <= most_files, numbered.c.place == 1)
    )
    rows = session.execute(
        sa.select(*_INFO).where(col(Request.id).in_(fitting)).order_by(col(Request.id))
    )
    return [RequestInfo(**row._mapping) for row in rows]


def glance(catalog: Catalog) -> str:
    """A statement for `Catalog.glance`: whether any request is QUEUED."""
    queued = sa.exists().where(col(Request.state) == RequestState.QUEUED)
    return catalog.prepared(sa.select(queued))


def in_work(session: Session) -> list[RequestInfo]:
    """The requests whose work was begun and goes on, oldest first."""
    rows = session.execute(sa.select(*_INFO).where(_is_begun("request")).order_by(col(Request.id)))
    return [RequestInfo(**row._mapping) for row in rows]


def _is_begun(table: str) -> sa.TextClause:
    # In these words, so that the partial index is seen to have them.
    return sa.text(f"{table}.state = 'QUEUED' AND {table}.begun_at IS NOT NULL")


def begin(session: Session, request_id: int) -> None:
    """The request's work goes on for longer: others of its dataset wait until it is answered.

    Raises `Answered` where it isn't QUEUED any more.
    """
    begun = session.execute(
        sa.update(Request)
        .where(
            col(Request.id) == request_id,
            col(Request.state) == RequestState.QUEUED,
            col(Request.begun_at).is_(None),
        )
        .values(begun_at=now())
        .returning(col(Request.id))
    ).scalar()
    if begun is None:
        raise Answered([request_id])


class Answered(Conflict):
    """Requests (`ids`) that aren't QUEUED any more: another has answered them."""

    def __init__(self, ids: Collection[int]) -> None:
        self.ids = frozenset(ids)
        super().__init__(f"requests {sorted(ids)[:5]} were answered by another process.")


def answer(session: Session, answers: Sequence[Answer]) -> None:
    """Answer QUEUED requests; raises `Answered` where one isn't."""
    wanted = [item.request_id for item in answers]
    queued: set[int] = set()
    for batch in chunks(sorted(wanted)):
        queued.update(
            session.scalars(
                sa.select(col(Request.id))
                .where(col(Request.id).in_(batch), col(Request.state) == RequestState.QUEUED)
                .order_by(col(Request.id))
                .with_for_update()
            )
        )
    if answered := set(wanted) - queued:
        raise Answered(answered)
    rows = [
        {"id": item.request_id, "state": item.state, "reply": storable(item.reply)}
        for item in answers
    ]
    update_rows(session, Request, rows, lambda _cells: {"ended_at": now()})


def storable(value: Any) -> Any:
    """A JSON value as every database takes it: without NUL, lone surrogates, or what isn't JSON."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {printable(str(name)): storable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def retry(session: Session, request_id: int) -> RequestInfo:
    """Queue a request again that was answered with ERROR; raises `StateConflict`, `NotFound`."""
    done = session.execute(
        sa.update(Request)
        .where(
            col(Request.id) == request_id,
            col(Request.state).in_(sources(RequestState.QUEUED)),
        )
        .values(state=RequestState.QUEUED, reply=None, begun_at=None, ended_at=None)
        .returning(col(Request.id))
    ).scalar()
    info = get(session, request_id)
    if done is None:
        why = "only one that was answered with ERROR can be"
        raise StateConflict("request", info.key, info.state, "retried", why)
    return info


def get(session: Session, request_id: int) -> RequestInfo:
    """The request with that id; raises `NotFound`."""
    return _one(session, col(Request.id) == request_id, request_id)


def lock(session: Session, request_id: int) -> RequestInfo:
    """The request with that id, which nobody else changes until the transaction ends."""
    session.execute(
        sa.select(col(Request.id)).where(col(Request.id) == request_id).with_for_update()
    )
    return get(session, request_id)


def by_key(session: Session, key: str) -> RequestInfo:
    """The request with that key; raises `NotFound`."""
    return _one(session, col(Request.key) == key, key)


def find(session: Session, text: str) -> RequestInfo:
    """The request that `text` means, its id or its key; raises `NotFound`."""
    if text.isascii() and text.isdigit() and len(text) < 19:
        row = session.execute(sa.select(*_INFO).where(col(Request.id) == int(text))).one_or_none()
        if row is not None:
            return RequestInfo(**row._mapping)
    return by_key(session, text)


def _one(session: Session, condition: sa.ColumnElement[bool], name: object) -> RequestInfo:
    row = session.execute(sa.select(*_INFO).where(condition)).one_or_none()
    if row is None:
        raise NotFound("request", name, _HINT)
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


def count(session: Session, state: RequestState) -> int:
    """How many requests are in a state."""
    query = sa.select(sa.func.count()).where(col(Request.state) == state)
    return int(session.execute(query.select_from(Request)).scalar_one())


def waiting(session: Session, request_ids: Sequence[int]) -> list[int]:
    """Those of these requests that aren't answered yet."""
    found: list[int] = []
    for batch in chunks(list(request_ids)):
        query = sa.select(col(Request.id)).where(
            col(Request.id).in_(batch), col(Request.state) == RequestState.QUEUED
        )
        found += session.scalars(query.order_by(col(Request.id)))
    return found


def refused(session: Session, request_ids: Sequence[int]) -> list[RequestInfo]:
    """Those of these requests that were answered with ERROR, oldest first."""
    found: list[RequestInfo] = []
    for batch in chunks(sorted(request_ids)):
        rows = session.execute(
            sa.select(*_INFO)
            .where(col(Request.id).in_(batch), col(Request.state) == RequestState.ERROR)
            .order_by(col(Request.id))
        )
        found += [RequestInfo(**row._mapping) for row in rows]
    return found


def answers(
    session: Session, request_ids: Sequence[int]
) -> dict[int, tuple[RequestState, dict[str, Any]]]:
    """State and reply of those of these requests that were answered, by id."""
    rows = session.execute(
        sa.select(col(Request.id), col(Request.state), col(Request.reply)).where(
            among(session, col(Request.id), request_ids),
            col(Request.state) != RequestState.QUEUED,
        )
    )
    return {row.id: (row.state, row.reply or {}) for row in rows}


def ahead(session: Session, info: RequestInfo) -> int:
    """How many requests of the same dataset are to be done before this one."""
    query = sa.select(sa.func.count()).where(
        col(Request.state) == RequestState.QUEUED,
        col(Request.lane) == info.lane,
        col(Request.id) < info.id,
    )
    return int(session.execute(query.select_from(Request)).scalar_one())
