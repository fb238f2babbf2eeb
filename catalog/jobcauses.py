"""Why a job is in its state, what was tried, and what it waits for."""

from collections.abc import Sequence

from sqlmodel import Session

from catalog import jobs, tasks, waits
from catalog.deletioncauses import Cause
from catalog.jobs import JobInfo
from catalog.states import JobState, is_final

_SHOWN = 5


def waits_of(session: Session, task_ids: Sequence[int]) -> list[Cause]:
    """What is out, and keeps jobs of these tasks waiting."""
    return [Cause(told, "it goes on by itself") for told in waits.of_tasks(session, task_ids)]


def why_job(session: Session, info: JobInfo) -> list[Cause]:
    """Why a job is in its state, what was tried, and what it waits for."""
    why = f": {info.reason}" if info.reason else ""
    found = [
        Cause(f"job {info.id} ({info.key}) is {info.state}{why}", next_of(info.state, info.id))
    ]
    for tried in jobs.attempts(session, [info.id])[info.id][-_SHOWN:]:
        if tried.error is not None:
            found.append(
                Cause(
                    f"attempt {tried.number} on node {tried.node} ended as {tried.error}: "
                    f"{tried.message}"
                )
            )
    task = tasks.get(session, info.task_id)
    if not is_final(info.state):
        found += waits_of(session, [task.id])
        found.append(Cause(f"task {task.id} ({task.stage}) is {task.state}"))
    return found


def next_of(state: JobState, job_id: int) -> str:
    """What happens with a job next, or what to do."""
    return {
        JobState.HELD: f"`spdf job release {job_id}` once its cause is mended",
        JobState.FAILED: "`spdf workflow retry` runs it again",
        JobState.RUNNING: "it ends, or its pilot's lease does",
        JobState.READY: "the next free pilot leases it",
    }.get(state, "")
