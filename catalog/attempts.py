"""Attempts: leasing jobs, keeping them, and registering their ends exactly once."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import obstacles
from catalog.bulk import table_of
from catalog.clock import now
from catalog.errors import ERRORS, ErrorCode
from catalog.losses import MAX_LOSSES
from catalog.models import IS_OPEN, Attempt, Job, Pilot, Task, Workflow
from catalog.rowsets import among, insert_rows
from catalog.states import (
    AttemptState,
    JobState,
    Phase,
    PilotState,
    TaskState,
    WorkflowState,
)

_job, _attempt, _pilot = table_of(Job), table_of(Attempt), table_of(Pilot)
_task, _workflow = table_of(Task), table_of(Workflow)
_LIVE = (PilotState.ACTIVE, PilotState.DRAINING)


@dataclass(frozen=True)
class Lease:
    """A job that a pilot holds: attempt `number` of it, fenced by that number."""

    job_id: int
    attempt_id: int
    number: int
    key: str
    ordinal: int
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Beat:
    """What a heartbeat learnt: the pilot's state and the attempts it still holds."""

    state: PilotState
    held: frozenset[int]


def lease(
    session: Session,
    pilot_id: int,
    task_id: int,
    limit: int,
    *,
    lease_s: float,
    node: str,
    program: str,
    tool_digest: str,
    alone: bool = False,
    after: int = -1,
) -> list[Lease]:
    """Lease up to `limit` READY jobs of a task, in its order; each gets a new attempt.

    `alone` leases one of those that were lost too often to share a pilot. Only jobs beyond the
    ordinal `after` are looked at: see `flows.shift.turn`. Nothing is leased for a pilot that isn't
    ACTIVE, of a task that isn't being worked on, or of one that an outage keeps from its node.
    """
    if not _may_lease(session, pilot_id, task_id):
        return []
    picked = _ready(task_id, limit, alone, after)
    rows = session.execute(
        sa.update(_job)
        .where(_job.c.id == picked.c.id)
        .values(
            state=JobState.RUNNING,
            attempt=_job.c.attempt + 1,
            pilot_id=pilot_id,
            lease_until=now(lease_s),
            error=None,
            exit_code=None,
            reason=None,
            not_before=None,
        )
        .returning(_job.c.id, _job.c.attempt, _job.c.key, _job.c.ordinal, _job.c["values"])
    ).all()
    new = [
        {
            "job_id": row.id,
            "number": row.attempt,
            "pilot_id": pilot_id,
            "node": node,
            "program": program,
            "tool_digest": tool_digest,
        }
        for row in rows
    ]
    made = insert_rows(session, Attempt, new, _attempt.c.job_id, _attempt.c.id)
    ids = {row.job_id: row.id for row in made}
    return [
        Lease(row.id, ids[row.id], row.attempt, row.key, row.ordinal, row[4] or {})
        for row in sorted(rows, key=lambda row: row.ordinal)
    ]


def _ready(task_id: int, limit: int, alone: bool, after: int) -> sa.CTE:
    """Ids of READY jobs, locked, those skipped that another pilot is just leasing."""
    losses = _job.c.losses >= MAX_LOSSES if alone else _job.c.losses < MAX_LOSSES
    return (
        sa.select(_job.c.id.label("id"))
        .where(
            _job.c.task_id == task_id,
            IS_OPEN,
            _job.c.state == JobState.READY,
            _job.c.ordinal > after,
            losses,
            sa.or_(_job.c.not_before.is_(None), _job.c.not_before <= now()),
        )
        .order_by(_job.c.ordinal)
        .limit(1 if alone else limit)
        .with_for_update(skip_locked=True)
        .cte("picked")
    )


def _may_lease(session: Session, pilot_id: int, task_id: int) -> bool:
    found = session.execute(
        sa.select(_pilot.c.node, _pilot.c.pool, obstacles.ANY)
        .select_from(
            _pilot.join(_task, _task.c.id == task_id).join(
                _workflow, _workflow.c.id == _task.c.workflow_id
            )
        )
        .where(
            _pilot.c.id == pilot_id,
            _pilot.c.state == PilotState.ACTIVE,
            _task.c.state == TaskState.IN_PROGRESS,
            _workflow.c.state == WorkflowState.IN_PROGRESS,
        )
    ).one_or_none()
    if found is None:
        return False
    node, pool, any_out = found
    return not any_out or not obstacles.is_blocked(session, node, pool, task_id)


def heartbeat(session: Session, pilot_id: int, lease_s: float, phases: Mapping[int, Phase]) -> Beat:
    """Renew all leases of a pilot with one statement; `phases` are by attempt id, changed ones."""
    # Jobs before the pilot, as at the end of attempts: the other way round is a deadlock.
    alive = sa.select(_pilot.c.id).where(_pilot.c.id == pilot_id, _pilot.c.state.in_(_LIVE))
    held = session.execute(
        sa.update(_job)
        .where(_job.c.pilot_id == pilot_id, _job.c.state == JobState.RUNNING, sa.exists(alive))
        .values(lease_until=now(lease_s))
        .returning(_job.c.id)
    ).scalars()
    renewed = frozenset(held)
    state = session.execute(
        sa.update(_pilot)
        .where(_pilot.c.id == pilot_id)
        .values(beat_at=now())
        .returning(_pilot.c.state)
    ).scalar_one()
    if state not in _LIVE:
        return Beat(state, frozenset())
    for phase in Phase:
        ids = [attempt_id for attempt_id, value in phases.items() if value is phase]
        if ids:
            session.execute(
                sa.update(_attempt)
                .where(among(session, _attempt.c.id, ids), _attempt.c.state == AttemptState.RUNNING)
                .values(phase=phase)
            )
    return Beat(state, renewed)


def held(session: Session, pilot_id: int) -> list[tuple[int, int]]:
    """(job id, attempt number) of every job that a pilot holds."""
    rows = session.execute(
        sa.select(col(Job.id), col(Job.attempt)).where(
            col(Job.pilot_id) == pilot_id, col(Job.state) == JobState.RUNNING
        )
    )
    return [(row.id, row.attempt) for row in rows]


def hand_back(session: Session, pilot_id: int, leases: Collection[tuple[int, int]]) -> int:
    """Give (job id, attempt number)s that never started back, without a trace of an attempt."""
    if not leases:
        return 0
    numbers = dict(leases)
    rows = session.execute(
        sa.select(col(Job.id), col(Job.attempt))
        .where(
            col(Job.id).in_(numbers),
            col(Job.pilot_id) == pilot_id,
            col(Job.state) == JobState.RUNNING,
        )
        .order_by(col(Job.id))
        .with_for_update()
    ).all()
    mine = [row.id for row in rows if numbers[row.id] == row.attempt]
    if not mine:
        return 0
    session.execute(
        sa.delete(Attempt).where(
            sa.tuple_(col(Attempt.job_id), col(Attempt.number)).in_(
                [(job_id, numbers[job_id]) for job_id in mine]
            )
        )
    )
    session.execute(
        sa.update(Job)
        .where(col(Job.id).in_(mine))
        .values(state=JobState.READY, attempt=col(Job.attempt) - 1, pilot_id=None, lease_until=None)
    )
    return len(mine)


def cancel_running(session: Session, task_ids: Sequence[int]) -> None:
    """End the attempts that run in these tasks as CANCELLED."""
    jobs = sa.select(col(Job.id)).where(
        col(Job.task_id).in_(task_ids), col(Job.state) == JobState.CANCELLED
    )
    session.execute(
        sa.update(Attempt)
        .where(col(Attempt.state) == AttemptState.RUNNING, col(Attempt.job_id).in_(jobs))
        .values(
            state=AttemptState.CANCELLED,
            error=ErrorCode.CANCELLED,
            message=ERRORS[ErrorCode.CANCELLED].sentence,
            ended_at=now(),
        ),
        execution_options={"synchronize_session": False},
    )
