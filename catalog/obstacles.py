"""Obstacles: whether an outage, or what a node lacks, keeps jobs from being leased there."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased
from sqlmodel import Session, col

from catalog import outages
from catalog.bulk import table_of
from catalog.clock import now
from catalog.models import Dataset, Node, Outage, OutageReader, Pilot, Task
from catalog.outages import EVERYWHERE, LACKS_S
from catalog.pilots import LIVE
from catalog.states import NodeState

ANY = sa.exists().where(table_of(Outage).c.ended_at.is_(None))
"""Whether anything is out at all: mostly nothing is, and to ask for more costs forty times this."""


def is_blocked(session: Session, node: str, pool: str, task_id: int) -> bool:
    """Whether jobs of a task shall not be leased on a node of a pool."""
    return bool(session.execute(sa.select(blocked(node, pool, task_id))).scalar())


def blocked(node: Any, pool: Any, task_id: Any) -> sa.ColumnElement[bool]:
    """Condition that jobs of a task shall not be leased on a node of a pool.

    Each of the three is a column or a value; the node `EVERYWHERE` asks for outages of all nodes.
    """
    stored, read = aliased(Outage), aliased(Outage)
    out = sa.exists(
        sa.select(sa.literal(1))
        .select_from(stored)
        .join(Dataset, col(Dataset.storage_id) == col(stored.storage_id))
        .where(*_here(stored, node), col(Dataset.task_id) == task_id)
    )
    away = sa.exists(
        sa.select(sa.literal(1))
        .select_from(read)
        .join(OutageReader, col(OutageReader.outage_id) == col(read.id))
        .where(*_here(read, node), col(OutageReader.task_id) == task_id)
    )
    alone = sa.exists().where(_itself(aliased(Outage), node))
    lacks = sa.and_(_lacks(node, task_id), _others(node, pool, task_id))
    return sa.or_(out, away, alone, lacks)


def _here(outage: Any, node: Any) -> tuple[sa.ColumnElement[bool], ...]:
    where = sa.or_(col(outage.node) == EVERYWHERE, col(outage.node) == node)
    return col(outage.ended_at).is_(None), where


def _itself(outage: Any, node: Any) -> sa.ColumnElement[bool]:
    """Whether an outage is of the node itself."""
    return sa.and_(
        col(outage.ended_at).is_(None),
        col(outage.storage_id).is_(None),
        col(outage.task_id).is_(None),
        col(outage.node) == node,
    )


def _lacks(node: Any, task_id: Any) -> sa.ColumnElement[bool]:
    """Whether a node is known to lack something for a task."""
    outage = aliased(Outage)
    return sa.exists().where(
        col(outage.ended_at).is_(None),
        col(outage.task_id) == task_id,
        col(outage.node) == node,
        col(outage.met_at) > now(-LACKS_S),
    )


def _others(node: Any, pool: Any, task_id: Any) -> sa.ColumnElement[bool]:
    """Whether another node of the pool is there that isn't known to lack anything for a task."""
    return sa.exists().where(*_well(aliased(Node), node, pool, task_id))


def _well(other: Any, node: Any, pool: Any, task_id: Any) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        col(other.pool) == pool,
        col(other.state) == NodeState.ONLINE,
        col(other.name) != node,
        sa.not_(_lacks(col(other.name), task_id)),
    )


def others_there(session: Session, node: str, pool: str, task_id: int) -> set[str]:
    """Names of the other nodes of a pool that a job which `node` can't run may be tried on."""
    query = sa.select(col(Node.name)).where(*_well(Node, node, pool, task_id))
    return set(session.scalars(query))


def blocked_tasks(session: Session, task_ids: Sequence[int]) -> set[int]:
    """Those of these tasks that wait for an outage of all nodes to end."""
    query = sa.select(col(Task.id)).where(
        col(Task.id).in_(task_ids), blocked(EVERYWHERE, col(Task.pool), col(Task.id))
    )
    return set(session.scalars(query))


def blocked_nodes(session: Session, pool: str, task_id: int) -> set[str]:
    """Names of the nodes of a pool that are leased no jobs of a task for now."""
    query = sa.select(col(Node.name)).where(
        col(Node.pool) == pool, blocked(col(Node.name), pool, task_id)
    )
    return set(session.scalars(query))


def glance(session: Session, node: str) -> tuple[bool, bool]:
    """Whether a node itself is out, and whether it should look at anything that is."""
    itself = sa.exists().where(_itself(Outage, node))
    row = session.execute(sa.select(itself, sa.exists(outages.due(node)))).one()
    return bool(row[0]), bool(row[1])


def live_pilots(session: Session, task_id: int, nodes: set[str]) -> int:
    """How many live pilots of a task are on these nodes."""
    count: int = session.execute(
        sa.select(sa.func.count())
        .select_from(Pilot)
        .where(
            col(Pilot.task_id) == task_id, col(Pilot.state).in_(LIVE), col(Pilot.node).in_(nodes)
        )
    ).scalar_one()
    return count
