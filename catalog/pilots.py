"""Pilots: processes on compute nodes that lease jobs of one task."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog.clock import now
from catalog.errors import NotFound
from catalog.models import Pilot, Task
from catalog.states import PilotState
from catalog.transitions import move, record

LIVE = (PilotState.ACTIVE, PilotState.DRAINING)
_SILENT_S = 60.0


@dataclass(frozen=True)
class PilotInfo:
    """A pilot as its row stood."""

    id: int
    task_id: int
    stage: str
    workflow_id: int
    pool: str
    state: PilotState
    reason: str | None
    node: str
    pid: int
    slots: int
    flow_run_id: str | None
    jobs_done: int
    started_at: datetime
    beat_at: datetime
    ended_at: datetime | None


def start(
    session: Session,
    task_id: int,
    *,
    pool: str,
    node: str,
    pid: int,
    slots: int,
    flow_run_id: str | None,
) -> int:
    """Register a pilot that begins its shift; gives its id."""
    pilot = Pilot(
        task_id=task_id,
        pool=pool,
        node=node,
        pid=pid,
        slots=slots,
        flow_run_id=flow_run_id,
        state=PilotState.ACTIVE,
    )
    session.add(pilot)
    session.flush()
    record(session, Pilot, [(pilot.id, None)], PilotState.ACTIVE)
    return pilot.id


def end(session: Session, pilot_id: int, reason: str) -> bool:
    """End a pilot's shift; False where it was LOST in the meantime."""
    return bool(
        move(
            session,
            Pilot,
            [pilot_id],
            PilotState.DONE,
            message=reason,
            reason=reason,
            ended_at=now(),
        )
    )


def drain(session: Session, pilot_ids: Sequence[int], reason: str) -> list[int]:
    """Ask pilots to finish or hand back what they hold; they read it at their next heartbeat."""
    return move(session, Pilot, pilot_ids, PilotState.DRAINING, message=reason, reason=reason)


def lose_silent(session: Session, lease_s: float) -> list[int]:
    """Mark pilots LOST that have not beaten for a lease; gives their ids."""
    silent = session.scalars(
        sa.select(col(Pilot.id)).where(
            col(Pilot.state).in_(LIVE), col(Pilot.beat_at) < now(-lease_s)
        )
    )
    return move(
        session,
        Pilot,
        list(silent),
        PilotState.LOST,
        message="no heartbeat",
        reason="no heartbeat",
        ended_at=now(),
    )


def live_on(session: Session, node: str, pool: str) -> list[int]:
    """Ids of the live pilots of a pool on one node."""
    query = sa.select(col(Pilot.id)).where(
        col(Pilot.state).in_(LIVE), col(Pilot.node) == node, col(Pilot.pool) == pool
    )
    return list(session.scalars(query))


def lost_runs(session: Session, since_s: float, limit: int) -> list[str]:
    """Flow runs of the pilots that were LOST in the last `since_s` seconds, the newest first."""
    query = (
        sa.select(col(Pilot.flow_run_id))
        .where(
            col(Pilot.state) == PilotState.LOST,
            col(Pilot.ended_at) > now(-since_s),
            col(Pilot.flow_run_id).is_not(None),
        )
        .order_by(col(Pilot.ended_at).desc())
        .limit(limit)
    )
    return [run for run in session.scalars(query) if run is not None]


def beating(session: Session) -> int:
    """How many live pilots have beaten within a minute: those whose processes are there."""
    count: int = session.execute(
        sa.select(sa.func.count())
        .select_from(Pilot)
        .where(col(Pilot.state).in_(LIVE), col(Pilot.beat_at) >= now(-_SILENT_S))
    ).scalar_one()
    return count


def live_counts(session: Session, task_ids: Sequence[int]) -> dict[int, int]:
    """Live pilots by task id."""
    rows = session.execute(
        sa.select(col(Pilot.task_id), sa.func.count())
        .where(col(Pilot.task_id).in_(task_ids), col(Pilot.state).in_(LIVE))
        .group_by(col(Pilot.task_id))
    )
    return {row[0]: row[1] for row in rows}


def begun(session: Session, flow_run_ids: Sequence[str]) -> set[str]:
    """Those of these flow runs whose pilots have begun."""
    if not flow_run_ids:
        return set()
    query = sa.select(col(Pilot.flow_run_id)).where(col(Pilot.flow_run_id).in_(flow_run_ids))
    return {run for run in session.scalars(query) if run is not None}


def get(session: Session, pilot_id: int) -> PilotInfo:
    """The pilot with that id; raises `NotFound`."""
    found = _list(session, sa.true(), limit=1, only=pilot_id)
    if not found:
        raise NotFound("pilot", pilot_id)
    return found[0]


def list_pilots(
    session: Session, *, live: bool = False, workflow_id: int | None = None, limit: int = 100
) -> list[PilotInfo]:
    """The newest pilots first."""
    where: sa.ColumnElement[bool] = sa.true()
    if live:
        where = sa.and_(where, col(Pilot.state).in_(LIVE))
    if workflow_id is not None:
        where = sa.and_(where, col(Task.workflow_id) == workflow_id)
    return _list(session, where, limit=limit)


def _list(
    session: Session, where: sa.ColumnElement[bool], *, limit: int, only: int | None = None
) -> list[PilotInfo]:
    query = (
        sa.select(
            col(Pilot.id),
            col(Pilot.task_id),
            col(Task.stage),
            col(Task.workflow_id),
            col(Pilot.pool),
            col(Pilot.state),
            col(Pilot.reason),
            col(Pilot.node),
            col(Pilot.pid),
            col(Pilot.slots),
            col(Pilot.flow_run_id),
            col(Pilot.jobs_done),
            col(Pilot.started_at),
            col(Pilot.beat_at),
            col(Pilot.ended_at),
        )
        .join(Task, col(Task.id) == col(Pilot.task_id))
        .where(where)
        .order_by(col(Pilot.id).desc())
        .limit(limit)
    )
    if only is not None:
        query = query.where(col(Pilot.id) == only)
    return [PilotInfo(**row._mapping) for row in session.execute(query)]
