"""Outages: storages and nodes that can't do their part, and who waits until they can again.

A job that meets one goes back uncounted. From then on nobody who needs what is out is leased a job,
and now and then a pilot or a node's worker looks whether it is well again: see `workers.probe`.
What a node lacks for one task is kept here, too: the task's jobs are tried on other nodes first.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog.bulk import insert_ignore, insert_new
from catalog.clock import now
from catalog.errors import ErrorCode
from catalog.models import Dataset, Node, Outage, OutageReader, Pilot, Storage, Task
from catalog.transitions import record_change

OUT, BACK = "OUT", "BACK"
"""What the events of storages and nodes say that are out, or well again."""

EVERYWHERE = ""
"""The node of an outage that is the same for all nodes: a full storage."""

_WAIT_S = (1.0, 60.0)
_SOON_S = 600.0
"""An outage that comes back within this time is looked at as seldom as before it ended."""
LACKS_S = 600.0
"""How long a node isn't tried for what it lacked, while there are others."""
_NOBODY_S = 900.0
"""An outage that nobody has looked at for so long is of a node that has left."""
_KEPT_S = 3600.0

_WORDS = {
    ErrorCode.STORAGE_FULL: "is full",
    ErrorCode.STORAGE_UNAVAILABLE: "can't be reached",
    ErrorCode.STORAGE_DENIED: "refuses the login",
    ErrorCode.STORAGE_GONE: "is not there any more",
    ErrorCode.STORAGE_FAILED: "can't keep what is written",
}


@dataclass(frozen=True)
class Met:
    """What an attempt met: of a storage, of the `node` itself or, with `lacking`, what it lacks."""

    task_id: int
    node: str
    code: ErrorCode
    message: str
    storage_id: int | None = None
    writing: bool = False
    needed_bytes: int = 0
    lacking: bool = False

    @property
    def subject(self) -> str:
        """One word for what is out."""
        if self.lacking:
            return f"task/{self.task_id}/{self.node}"
        if self.storage_id is not None:
            return f"storage/{self.storage_id}/{self.seen_by}"
        return f"node/{self.node}"

    @property
    def seen_by(self) -> str:
        """The node that it concerns: a storage is full for all, but may be away from one alone."""
        return EVERYWHERE if self.code is ErrorCode.STORAGE_FULL else self.node


@dataclass(frozen=True)
class OutageInfo:
    """An outage as its row stood; `storage` is its name."""

    id: int
    storage_id: int | None
    storage: str | None
    task_id: int | None
    stage: str | None
    node: str
    code: ErrorCode
    message: str
    writing: bool
    needed_bytes: int
    wait_s: float
    since: datetime
    next_at: datetime


def note(session: Session, met: Iterable[Met]) -> None:
    """Remember what attempts met; whoever needs it isn't leased any jobs from now on."""
    found: dict[str, Met] = {}
    readers: dict[str, set[int]] = {}
    for one in met:
        before = found.get(one.subject)
        if before is None or one.needed_bytes > before.needed_bytes:
            found[one.subject] = one
        if one.storage_id is not None and not one.writing:
            readers.setdefault(one.subject, set()).add(one.task_id)
    for subject in sorted(found):
        outage_id = _note(session, subject, found[subject])
        rows = [{"outage_id": outage_id, "task_id": t} for t in sorted(readers.get(subject, ()))]
        insert_ignore(session, OutageReader, rows)


def _note(session: Session, subject: str, met: Met) -> int:
    """Begin an outage, or go on with it; gives its id."""
    said = {"code": met.code, "message": met.message}
    new = {
        "subject": subject,
        "storage_id": met.storage_id,
        "task_id": met.task_id if met.lacking else None,
        "node": met.seen_by,
        "writing": met.writing,
        "needed_bytes": met.needed_bytes,
        "wait_s": _WAIT_S[0],
        **said,
    }
    if made := insert_new(session, Outage, [new], col(Outage.id)):
        at = sa.update(Outage).where(col(Outage.id) == made[0].id)
        session.execute(at.values(next_at=now(_WAIT_S[0])))
        _tell(session, met.storage_id, met.node, OUT, met.message, lacking=met.lacking)
        return int(made[0].id)
    row = session.execute(
        sa.select(
            col(Outage.id),
            col(Outage.wait_s),
            col(Outage.writing),
            col(Outage.needed_bytes),
            col(Outage.ended_at),
            (col(Outage.ended_at) > now(-_SOON_S)).label("soon"),
        )
        .where(col(Outage.subject) == subject)
        .with_for_update()
    ).one()
    more: dict[str, Any] = {"met_at": now(), **said}
    if row.ended_at is None:
        more["writing"] = row.writing or met.writing
        more["needed_bytes"] = max(row.needed_bytes, met.needed_bytes)
    else:
        wait_s = min(_WAIT_S[1], 2 * row.wait_s) if row.soon else _WAIT_S[0]
        more |= {"ended_at": None, "since": now(), "wait_s": wait_s, "next_at": now(wait_s)}
        more |= {"writing": met.writing, "needed_bytes": met.needed_bytes}
        _tell(session, met.storage_id, met.node, OUT, met.message, lacking=met.lacking)
    session.execute(sa.update(Outage).where(col(Outage.id) == row.id).values(**more))
    return int(row.id)


def _tell(
    session: Session,
    storage_id: int | None,
    node: str,
    word: str,
    message: str | None,
    *,
    lacking: bool,
) -> None:
    """Write it into the history of the storage, or of the node in each of its pools."""
    if storage_id is not None:
        record_change(session, Storage, storage_id, word, message)
    elif not lacking:
        for node_id in session.scalars(sa.select(col(Node.id)).where(col(Node.name) == node)).all():
            record_change(session, Node, node_id, word, message)


def due(node: str) -> sa.Select[Any]:
    """A query for what the node should look at now."""
    return sa.select(col(Outage.id), col(Outage.wait_s)).where(
        col(Outage.ended_at).is_(None),
        col(Outage.task_id).is_(None),
        col(Outage.node).in_((EVERYWHERE, node)),
        col(Outage.next_at) <= now(),
    )


def claim(session: Session, node: str) -> list[OutageInfo]:
    """What the node shall look at now; the next look at each is put off, twice as far."""
    found = due(node).order_by(col(Outage.subject)).with_for_update(skip_locked=True)
    ids = []
    for row in session.execute(found).all():
        wait_s = min(_WAIT_S[1], 2 * row.wait_s)
        session.execute(
            sa.update(Outage)
            .where(col(Outage.id) == row.id)
            .values(wait_s=wait_s, next_at=now(row.wait_s))
        )
        ids.append(row.id)
    return _list(session, col(Outage.id).in_(ids)) if ids else []


def end(session: Session, outage: OutageInfo) -> bool:
    """What was out is well: its jobs are leased again; False where another had ended it before."""
    ended = session.execute(
        sa.update(Outage)
        .where(col(Outage.id) == outage.id, col(Outage.ended_at).is_(None))
        .values(ended_at=now())
        .returning(col(Outage.id)),
        execution_options={"synchronize_session": False},
    ).scalar()
    if ended is None:
        return False
    session.execute(sa.delete(OutageReader).where(col(OutageReader.outage_id) == outage.id))
    lacking = outage.task_id is not None
    _tell(session, outage.storage_id, outage.node, BACK, None, lacking=lacking)
    return True


def still(session: Session, outage: OutageInfo, message: str) -> None:
    """A look found it as it was; `message` says how."""
    session.execute(
        sa.update(Outage).where(col(Outage.id) == outage.id).values(message=message),
        execution_options={"synchronize_session": False},
    )


def release(session: Session, task_ids: Sequence[int]) -> None:
    """Forget what nodes lacked for these tasks: an operator says that it is mended."""
    session.execute(
        sa.update(Outage)
        .where(col(Outage.task_id).in_(task_ids), col(Outage.ended_at).is_(None))
        .values(ended_at=now()),
        execution_options={"synchronize_session": False},
    )


def forget(session: Session) -> None:
    """End what nobody looks at any more, as its node has left, and remove what ended long ago."""
    unseen = sa.or_(
        sa.and_(col(Outage.task_id).is_(None), col(Outage.next_at) < now(-_NOBODY_S)),
        sa.and_(col(Outage.task_id).is_not(None), col(Outage.met_at) < now(-_NOBODY_S)),
    )
    unsynced = {"synchronize_session": False}
    session.execute(
        sa.update(Outage)
        .where(col(Outage.ended_at).is_(None), col(Outage.node) != EVERYWHERE, unseen)
        .values(ended_at=now()),
        execution_options=unsynced,
    )
    old = sa.select(col(Outage.id)).where(col(Outage.ended_at) < now(-_KEPT_S))
    session.execute(
        sa.delete(OutageReader).where(col(OutageReader.outage_id).in_(old)),
        execution_options=unsynced,
    )
    session.execute(
        sa.delete(Outage).where(col(Outage.ended_at) < now(-_KEPT_S)), execution_options=unsynced
    )


def current(session: Session) -> list[OutageInfo]:
    """All that is out now, the longest first."""
    return _list(session, col(Outage.ended_at).is_(None))


def of_task(session: Session, task_id: int) -> list[OutageInfo]:
    """The outages that jobs of a task wait for, or would meet on some node."""
    return of_tasks(session, [task_id])


def of_tasks(session: Session, task_ids: Sequence[int]) -> list[OutageInfo]:
    """As `of_task`, of several."""
    stores = sa.select(col(Dataset.storage_id)).where(col(Dataset.task_id).in_(task_ids))
    reads = sa.select(col(OutageReader.outage_id)).where(col(OutageReader.task_id).in_(task_ids))
    pool = sa.select(col(Task.pool)).where(col(Task.id).in_(task_ids))
    served = sa.select(col(Node.name)).where(col(Node.pool).in_(pool))
    tried = sa.select(col(Pilot.node)).where(col(Pilot.task_id).in_(task_ids))
    alone = sa.and_(
        col(Outage.storage_id).is_(None),
        col(Outage.task_id).is_(None),
        sa.or_(col(Outage.node).in_(served), col(Outage.node).in_(tried)),
    )
    return _list(
        session,
        sa.and_(
            col(Outage.ended_at).is_(None),
            sa.or_(
                col(Outage.storage_id).in_(stores),
                col(Outage.id).in_(reads),
                col(Outage.task_id).in_(task_ids),
                alone,
            ),
        ),
    )


def sentence(outage: OutageInfo) -> str:
    """What is out, since when, and who waits for it."""
    since = f"since {outage.since:%Y-%m-%d %H:%M:%SZ}"
    if outage.task_id is not None:
        return (
            f"node {outage.node} can't run stage {outage.stage} (task {outage.task_id}) {since}: "
            f"{outage.message}; others are tried first, if there are any"
        )
    if outage.storage_id is None:
        return f"node {outage.node} gets no jobs {since}: {outage.message}"
    where = f", as node {outage.node} sees it" if outage.node else ""
    what, who = _WORDS.get(outage.code, "is out"), "its producers wait"
    if not outage.writing:
        who = "who reads from it or writes to it waits"
    return f"storage {outage.storage} {what}{where} {since}: {who} ({outage.message})"


def _list(session: Session, where: sa.ColumnElement[bool]) -> list[OutageInfo]:
    own = (
        "id", "storage_id", "task_id", "node", "code", "message", "writing", "needed_bytes",
        "wait_s", "since", "next_at",
    )  # fmt: skip
    rows = session.execute(
        sa.select(
            *(getattr(Outage, name) for name in own),
            col(Storage.name).label("storage"),
            col(Task.stage),
        )
        .outerjoin(Storage, col(Storage.id) == col(Outage.storage_id))
        .outerjoin(Task, col(Task.id) == col(Outage.task_id))
        .where(where)
        .order_by(col(Outage.since), col(Outage.id))
    )
    return [OutageInfo(**{**row._mapping, "code": ErrorCode(row.code)}) for row in rows]
