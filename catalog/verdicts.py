"""What becomes of a job after an attempt: whose fault it was, and who pays for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlmodel import Session

from catalog import obstacles, outages
from catalog.bulk import table_of
from catalog.errors import ERRORS, ErrorClass, ErrorCode
from catalog.losses import MAX_LOSSES
from catalog.models import Attempt, Job, Pilot
from catalog.outages import Met
from catalog.refs import JobResult, Outcome
from catalog.rowsets import among
from catalog.states import JobState, Phase

_attempt, _job, _pilot = table_of(Attempt), table_of(Job), table_of(Pilot)

MAX_SYSTEM_ATTEMPTS = 20
"""Errors that don't count against a job, after which it is held all the same.

Outages are none of them: they end by themselves.
"""

OF_NODES = frozenset(
    {ErrorCode.NODE_DISK_FULL, ErrorCode.NODE_DISK_FAILED, ErrorCode.NODE_EXHAUSTED}
)
"""Outages of the node itself."""

OF_JOBS = frozenset(
    {ErrorCode.INPUT_UNREADABLE, ErrorCode.OUTPUT_UNWRITABLE, ErrorCode.WORK_DISK_FULL}
)
"""Troubles of one job on one node: others of the stage have other files, and write less."""

_UNLIMITED = frozenset({ErrorCode.PILOT_LOST, ErrorCode.PROCESS_LOST, ErrorCode.PILOT_STOPPED})
"""Losses are counted on their own; who stops pilots has reasons that are no job's."""
_LIMITED = {
    code
    for code, info in ERRORS.items()
    if info.error_class is ErrorClass.SYSTEM and code not in _UNLIMITED
}

_ELSEWHERE = frozenset(code for code, info in ERRORS.items() if info.elsewhere)


@dataclass(frozen=True)
class Past:
    """What a job has behind it when an attempt ends.

    `failures` count against `retry`; `losses` were in its payload; `excused` were of a kind that
    may happen `MAX_SYSTEM_ATTEMPTS` times. `others`: another node may be tried.
    """

    failures: int = 0
    losses: int = 0
    excused: int = 0
    others: bool = False


@dataclass(frozen=True)
class Verdict:
    """What becomes of a job after an attempt; `delay_s` until it may be leased again.

    `error` and `reason` are said instead of the attempt's own, where they are given.
    """

    state: JobState
    counts: bool = False
    lost: bool = False
    delay_s: float = 0.0
    error: ErrorCode | None = None
    reason: str | None = None


def judge(result: JobResult, past: Past, *, retry: int) -> Verdict:
    """The policy of retries, of which the stage allows `retry`."""
    if result.outcome is Outcome.FINISHED:
        return Verdict(JobState.FINISHED)
    if result.outcome is Outcome.SKIPPED:
        return Verdict(JobState.SKIPPED)
    if result.outcome is Outcome.LOST:
        return _of_loss(result, past)
    error = result.error or ErrorCode.INTERNAL
    info, delay = ERRORS[error], min(60.0, 0.5 * 2.0 ** min(result.number, 10))
    if info.elsewhere and past.others:
        # Nothing keeps the same node from this one job but time.
        return Verdict(JobState.READY, delay_s=delay if error in OF_JOBS else 0.0)
    if error in _LIMITED and past.excused + 1 >= MAX_SYSTEM_ATTEMPTS:
        return Verdict(JobState.HELD)
    match info.error_class:
        case ErrorClass.PERMANENT:
            return Verdict(JobState.FAILED, counts=True)
        case ErrorClass.OPERATOR:
            return Verdict(JobState.HELD)
        case ErrorClass.OUTAGE:
            # The outage keeps it from being leased; without a name for it only time can.
            named = error in OF_NODES or result.storage_id is not None
            return Verdict(JobState.READY, delay_s=0.0 if named else delay)
        case ErrorClass.SYSTEM:
            stopped = error is ErrorCode.PILOT_STOPPED
            return Verdict(JobState.READY, delay_s=0.0 if stopped else delay)
    if past.failures >= retry:
        return Verdict(JobState.FAILED, counts=True)
    transient = info.error_class is ErrorClass.TRANSIENT
    return Verdict(JobState.READY, counts=True, delay_s=delay if transient else 0.0)


def _of_loss(result: JobResult, past: Past) -> Verdict:
    """A job that was in its payload when a process of ours died may have been what killed it."""
    blamed = result.phase is Phase.PAYLOAD
    if blamed and past.losses >= MAX_LOSSES:
        kills = ErrorCode.KILLS_PILOT
        return Verdict(JobState.HELD, error=kills, reason=ERRORS[kills].sentence)
    return Verdict(JobState.READY, lost=blamed)


def excused(session: Session, results: Sequence[JobResult]) -> dict[int, int]:
    """How often jobs ended before by errors of the limited kinds, of those that do so now.

    What was before their last release is forgotten.
    """
    ids = [result.job_id for result in results if result.error in _LIMITED]
    if not ids:
        return {}
    rows = session.execute(
        sa.select(_attempt.c.job_id, sa.func.count())
        .join(_job, _job.c.id == _attempt.c.job_id)
        .where(
            among(session, _attempt.c.job_id, ids),
            _attempt.c.error.in_(sorted(_LIMITED)),
            _attempt.c.number > sa.func.coalesce(_job.c.forgiven, 0),
        )
        .group_by(_attempt.c.job_id)
    )
    return dict(rows.tuples().all())


def note_outages(
    session: Session, pilot_id: int, results: Sequence[JobResult], tasks: Mapping[int, int]
) -> set[int]:
    """Remember what these attempts met; gives the jobs that another node may be tried for.

    `tasks` are ids of tasks by job. No job is tried on others for ever: the node that could run it
    may be leased other work each time.
    """
    bad = [r for r in results if r.error is not None and _is_of_place(r.error)]
    if not bad:
        return set()
    here = session.execute(
        sa.select(_pilot.c.node, _pilot.c.pool).where(_pilot.c.id == pilot_id)
    ).one()
    others = {
        task: obstacles.others_there(session, here.node, here.pool, task)
        for task in {tasks[r.job_id] for r in bad if _elsewhere(r)}
    }
    met = [_met(r, tasks[r.job_id], here.node) for r in bad]
    outages.note(session, [one for one in met if one is not None])
    tried = _tried(session, [r.job_id for r in bad if _elsewhere(r)])
    return {
        r.job_id
        for r in bad
        if _elsewhere(r)
        and len(nodes := tried.get(r.job_id, [])) + 1 < MAX_SYSTEM_ATTEMPTS
        and others[tasks[r.job_id]].difference(nodes)
    }


def _tried(session: Session, job_ids: Sequence[int]) -> dict[int, list[str]]:
    """The node of each attempt that could not run these jobs, by job, since their last release.

    What a node lacks is forgotten after a while; a job's own tries aren't, or it would never end.
    """
    if not job_ids:
        return {}
    found: dict[int, list[str]] = {}
    rows = session.execute(
        sa.select(_attempt.c.job_id, _pilot.c.node)
        .join(_job, _job.c.id == _attempt.c.job_id)
        .join(_pilot, _pilot.c.id == _attempt.c.pilot_id)
        .where(
            among(session, _attempt.c.job_id, job_ids),
            _attempt.c.error.in_(sorted(_ELSEWHERE)),
            _attempt.c.number > sa.func.coalesce(_job.c.forgiven, 0),
        )
    )
    for job_id, node in rows:
        found.setdefault(job_id, []).append(node)
    return found


def _is_of_place(error: ErrorCode) -> bool:
    return ERRORS[error].elsewhere or ERRORS[error].error_class is ErrorClass.OUTAGE


def _elsewhere(result: JobResult) -> bool:
    return result.error in _ELSEWHERE


def _met(result: JobResult, task_id: int, node: str) -> Met | None:
    """The outage that an attempt met; None of a file's trouble, or of a storage it doesn't name."""
    assert result.error is not None
    if result.error in OF_JOBS:
        return None
    lacking, of_node = _elsewhere(result), result.error in OF_NODES
    if result.storage_id is None and not lacking and not of_node:
        return None
    return Met(
        task_id=task_id,
        node=node,
        code=result.error,
        message=result.message or ERRORS[result.error].sentence,
        storage_id=None if lacking or of_node else result.storage_id,
        writing=result.phase is Phase.STAGE_OUT,
        needed_bytes=result.needed_bytes,
        lacking=lacking,
    )
