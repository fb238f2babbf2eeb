"""Compute nodes: what their workers announced, and whether they are still there."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import clock
from catalog.clock import now
from catalog.durations import words
from catalog.errors import NotFound
from catalog.models import Node
from catalog.states import NodeState
from catalog.transitions import move, record

CLOCK_LIMIT_S = 60.0
"""A node whose clock is further from the database's is told of."""
PRESENT = (NodeState.ONLINE, NodeState.DRAINING)


@dataclass(frozen=True)
class Announcement:
    """What a node has to offer to the pilots of one pool.

    A device is `{"number", "name", "uuid", "memory_mib"}`; `engine` runs payloads in containers.
    """

    name: str
    pool: str
    pid: int
    slots: int
    memory_mib: int
    devices: tuple[dict[str, Any], ...]
    engine: str | None
    program: str


@dataclass(frozen=True)
class NodeInfo:
    """A node as its row stood."""

    id: int
    name: str
    pool: str
    state: NodeState
    reason: str | None
    pid: int
    slots: int
    memory_mib: int
    devices: list[dict[str, Any]]
    engine: str | None
    program: str
    started_at: datetime
    beat_at: datetime
    ended_at: datetime | None
    clock_off_s: float | None

    @property
    def is_off(self) -> bool:
        """Whether its clock is further from the database's than it may be."""
        return self.clock_off_s is not None and abs(self.clock_off_s) > CLOCK_LIMIT_S


def announce(session: Session, said: Announcement) -> int:
    """Put a node online, whatever became of the worker before; gives the row's id."""
    values: dict[str, Any] = {
        "pid": said.pid,
        "slots": said.slots,
        "memory_mib": said.memory_mib,
        "devices": list(said.devices),
        "engine": said.engine,
        "program": said.program,
        "reason": None,
        "started_at": now(),
        "beat_at": now(),
        "ended_at": None,
        "clock_off_s": _clock_off_s(session),
    }
    named = (col(Node.name) == said.name, col(Node.pool) == said.pool)
    found = session.execute(sa.select(col(Node.id)).where(*named).with_for_update()).scalar()
    if found is None:
        made = Node(name=said.name, pool=said.pool, **values)
        session.add(made)
        session.flush()
        record(session, Node, [(made.id, None)], NodeState.ONLINE)
        return made.id
    session.execute(sa.update(Node).where(col(Node.id) == found).values(**values))
    move(session, Node, [found], NodeState.ONLINE, message=f"worker {said.pid} started")
    return int(found)


def beat(session: Session, node_id: int, pid: int) -> NodeState:
    """Say that the worker `pid` still serves the node; gives the state it is wanted in.

    A node that was given up as silent is online again. OFFLINE tells a worker that another one
    has taken its place.
    """
    mine = (col(Node.id) == node_id, col(Node.pid) == pid)
    values = {"beat_at": now(), "clock_off_s": _clock_off_s(session)}
    session.execute(sa.update(Node).where(*mine).values(**values))
    state = session.execute(sa.select(col(Node.state)).where(*mine)).scalar()
    if state is NodeState.OFFLINE:
        move(session, Node, [node_id], NodeState.ONLINE, message="heard again", ended_at=None)
        return NodeState.ONLINE
    return state or NodeState.OFFLINE


def _clock_off_s(session: Session) -> float:
    """How far this machine's clock is ahead of the database's."""
    session.connection()
    told = clock.begun()
    return clock.wall() - (told.wall_s + clock.boottime() - told.boot_s)


def off(session: Session) -> Iterator[str]:
    """A sentence for each node that is there and whose clock is off."""
    for info in list_nodes(session, present=True):
        if info.is_off and info.clock_off_s is not None:
            which = "ahead of" if info.clock_off_s > 0 else "behind"
            yield (
                f"the clock of node {info.name} (pool {info.pool}) is "
                f"{words(abs(info.clock_off_s))} {which} the database's: S3 storages refuse what "
                "comes from there, and files that it writes have its times; set it right"
            )


def drain(session: Session, node_ids: Sequence[int], reason: str) -> list[int]:
    """Ask nodes to take no more pilots, finish, and leave; gives the ids of those that were on."""
    return move(session, Node, node_ids, NodeState.DRAINING, message=reason, reason=reason)


def leave(session: Session, node_id: int, pid: int, reason: str) -> None:
    """Take a node off, unless another worker serves it by now."""
    mine = sa.select(col(Node.id)).where(col(Node.id) == node_id, col(Node.pid) == pid)
    ids = list(session.scalars(mine))
    move(session, Node, ids, NodeState.OFFLINE, message=reason, reason=reason, ended_at=now())


def lose_silent(session: Session, silent_s: float) -> list[int]:
    """Take nodes off whose worker has not beaten for that long; gives their ids."""
    silent = sa.select(col(Node.id)).where(
        col(Node.state).in_(PRESENT), col(Node.beat_at) < now(-silent_s)
    )
    return move(
        session,
        Node,
        list(session.scalars(silent)),
        NodeState.OFFLINE,
        message="no heartbeat",
        reason="no heartbeat",
        ended_at=now(),
    )


def find(session: Session, name: str, pool: str | None = None) -> list[NodeInfo]:
    """The rows of a node, of one pool or of all; raises `NotFound` where there is none."""
    where = [col(Node.name) == name]
    if pool is not None:
        where.append(col(Node.pool) == pool)
    found = _list(session, sa.and_(*where))
    if not found:
        kind = "node" if pool is None else f"node of pool {pool}"
        raise NotFound(kind, name, "`spdf worker list` shows what there is")
    return found


def list_nodes(session: Session, *, present: bool = False) -> list[NodeInfo]:
    """All nodes by pool and name, or those that are not OFFLINE."""
    return _list(session, col(Node.state).in_(PRESENT) if present else sa.true())


def online(session: Session, pool: str) -> list[NodeInfo]:
    """The nodes that take pilots of a pool."""
    return _list(session, sa.and_(col(Node.state) == NodeState.ONLINE, col(Node.pool) == pool))


def count_online(session: Session, pool: str) -> int:
    """How many nodes take pilots of a pool."""
    count: int = session.execute(
        sa.select(sa.func.count())
        .select_from(Node)
        .where(col(Node.state) == NodeState.ONLINE, col(Node.pool) == pool)
    ).scalar_one()
    return count


def _list(session: Session, where: sa.ColumnElement[bool]) -> list[NodeInfo]:
    names = NodeInfo.__dataclass_fields__
    query = (
        sa.select(*(getattr(Node, name) for name in names))
        .where(where)
        .order_by(col(Node.pool), col(Node.name))
    )
    return [NodeInfo(**row._mapping) for row in session.execute(query)]
