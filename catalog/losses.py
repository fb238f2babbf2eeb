"""Jobs whose pilot is lost: they are taken back, and HELD where it is they that kill pilots."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog.clock import now
from catalog.errors import ERRORS, ErrorCode
from catalog.models import IS_OPEN, Attempt, Job
from catalog.states import AttemptState, JobState, Phase

MAX_LOSSES = 2
"""Losses in the payload after which a job runs alone; one more and it is HELD."""

UNPHASED_ATTEMPTS = 3
"""Attempts after which a loss counts, too, where no heartbeat told the phase.

A payload may kill its pilot before the first heartbeat; the jobs that were lost with it are counted
as well, and end well once they run alone.
"""


def take_back(session: Session, task_ids: Sequence[int], limit: int = 1000) -> int:
    """Make jobs READY again whose lease ran out; their attempts are LOST; gives their number.

    A job lost for the third time in its payload is HELD: it kills its pilots.
    """
    rows = session.execute(
        sa.select(col(Job.id), col(Job.attempt), col(Job.losses))
        .where(
            col(Job.task_id).in_(task_ids),
            IS_OPEN,
            col(Job.state) == JobState.RUNNING,
            col(Job.lease_until) < now(),
        )
        .order_by(col(Job.id))
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    if not rows:
        return 0
    keys = [(row.id, row.attempt) for row in rows]
    info = ERRORS[ErrorCode.PILOT_LOST]
    lost = session.execute(
        sa.update(Attempt)
        .where(
            sa.tuple_(col(Attempt.job_id), col(Attempt.number)).in_(keys),
            col(Attempt.state) == AttemptState.RUNNING,
        )
        .values(
            state=AttemptState.LOST,
            error=ErrorCode.PILOT_LOST,
            message=info.sentence,
            ended_at=now(),
        )
        .returning(col(Attempt.job_id), col(Attempt.number), col(Attempt.phase)),
        execution_options={"synchronize_session": False},
    ).all()
    in_payload = {
        row.job_id
        for row in lost
        if row.phase is Phase.PAYLOAD or (row.phase is None and row.number > UNPHASED_ATTEMPTS)
    }
    held = [r.id for r in rows if r.id in in_payload and r.losses >= MAX_LOSSES]
    again = [r.id for r in rows if r.id not in held]
    common: dict[str, Any] = {"pilot_id": None, "lease_until": None, "error": ErrorCode.PILOT_LOST}
    if again:
        grown = sa.case((col(Job.id).in_(in_payload), 1), else_=0) if in_payload else 0
        session.execute(
            sa.update(Job)
            .where(col(Job.id).in_(again))
            .values(state=JobState.READY, losses=col(Job.losses) + grown, **common)
        )
    if held:
        common |= {
            "error": ErrorCode.KILLS_PILOT,
            "reason": ERRORS[ErrorCode.KILLS_PILOT].sentence,
        }
        session.execute(
            sa.update(Job).where(col(Job.id).in_(held)).values(state=JobState.HELD, **common)
        )
    return len(rows)
