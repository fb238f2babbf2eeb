"""Why a job is in its state, what was tried, and what it waits for."""

from collections.abc import Sequence

from sqlmodel import Session

from catalog import jobs, tasks, waits, workflows
from catalog.deletioncauses import Cause
from catalog.jobs import JobInfo
from catalog.states import JobState, WorkflowState, is_final

_SHOWN = 5


def waits_of(session: Session, task_ids: Sequence[int]) -> list[Cause]:
    """What is out, and keeps jobs of these tasks waiting."""
    return [Cause(told, "it goes on by itself") for told in waits.of_tasks(session, task_ids)]


def why_job(session: Session, info: JobInfo) -> list[Cause]:
    """Why a job is in its state, what was tried, and what it waits for."""
    why = f": {info.reason}" if info.reason else ""
    found = [Cause(f"job {info.id} ({info.key}) is {info.state}{why}", next_of(session, info))]
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


def next_of(session: Session, job: JobInfo) -> str:
    """What happens with a job next, or what to do."""
    if job.state is JobState.FAILED:
        return _retry(session, job.workflow_id)
    return {
        JobState.HELD: f"`spdf job release {job.id}` once its cause is mended",
        JobState.RUNNING: "it ends, or its pilot's lease does",
        JobState.READY: "the next free pilot leases it",
    }.get(job.state, "")


def _retry(session: Session, workflow_id: int) -> str:
    """How a FAILED job is run again, if it can be."""
    state = workflows.get(session, workflow_id).state
    if is_final(state) and state is not WorkflowState.FAILED:
        return f"workflow {workflow_id} is {state}: `spdf workflow submit --again` makes a new one"
    later = "" if is_final(state) else ", once its workflow has ended"
    return f"`spdf workflow retry {workflow_id}` runs it again{later}"
