"""Pools without a node: what is to run there waits, and says so."""

from collections.abc import Collection, Sequence
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog.models import Node, Task, Workflow
from catalog.nodes import PRESENT
from catalog.settings import Settings, get_settings
from catalog.states import FINAL, TaskState

CPU, GPU = "cpu", "gpu"
_DEV = Path("/dev")


def absent(session: Session, pools: Collection[str]) -> dict[str, datetime | None]:
    """Those of the pools that no node serves, with when the last one left (None: none ever came).

    A node that drains takes nothing more, but is there: another may be about to follow it.
    """
    wanted = set(pools) - _served_here(get_settings())
    if not wanted:
        return {}
    rows = session.execute(
        sa.select(
            col(Node.pool),
            sa.func.count().filter(col(Node.state).in_(PRESENT)).label("present"),
            sa.func.max(col(Node.ended_at)).label("left_at"),
        )
        .where(col(Node.pool).in_(sorted(wanted)))
        .group_by(col(Node.pool))
    )
    known = {row.pool: row for row in rows}
    return {
        pool: known[pool].left_at if pool in known else None
        for pool in sorted(wanted)
        if pool not in known or not known[pool].present
    }


def of_pools(session: Session, pools: Collection[str]) -> list[str]:
    """A sentence for each of the pools that no node serves."""
    return [
        f"no node of pool {pool} {'so far' if since is None else _since(since)}: its stages wait "
        f"until there is one; {_mend(pool)}"
        for pool, since in absent(session, pools).items()
    ]


def of_tasks(session: Session, task_ids: Sequence[int]) -> list[str]:
    """A sentence for each pool without a node that tasks which have not ended are for."""
    if not task_ids:
        return []
    rows = session.execute(
        sa.select(col(Task.pool), col(Task.stage), col(Workflow.created_at))
        .join(Workflow, col(Workflow.id) == col(Task.workflow_id))
        .where(col(Task.id).in_(list(task_ids)), col(Task.state).not_in(FINAL[TaskState]))
        .order_by(col(Task.id))
    ).all()
    missing = absent(session, {row.pool for row in rows})
    told = []
    for pool, left_at in missing.items():
        waiting = [row for row in rows if row.pool == pool]
        stages = ", ".join(dict.fromkeys(row.stage for row in waiting))
        since = left_at or min(row.created_at for row in waiting)
        told.append(
            f"no node of pool {pool} {_since(since)}: {stages} waits for one; {_mend(pool)}"
        )
    return told


def _since(at: datetime) -> str:
    return f"since {at:%Y-%m-%d %H:%M:%SZ}"


def _mend(pool: str) -> str:
    return f"`spdf worker start --pool {pool}` makes a machine one"


def _served_here(settings: Settings) -> frozenset[str]:
    """Pools whose payloads the embedded profile runs itself: it announces no node."""
    if settings.api_url or not settings.local_payloads:
        return frozenset()
    has_gpu = bool(settings.devices) or any(_DEV.glob("nvidia[0-9]*"))
    return frozenset({CPU, GPU}) if has_gpu else frozenset({CPU})
