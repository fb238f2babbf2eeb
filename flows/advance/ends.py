"""When a task, and then its workflow, has ended: and how."""

from collections.abc import Mapping

from sqlmodel import Session

from catalog import datasets, tasks, workflows
from catalog.counts import count_of
from catalog.states import DatasetState, JobState, TaskState, WorkflowState, is_final
from catalog.tasks import TaskInfo
from flows.advance.chain import Chain
from flows.plan import Stage


def sources_final(session: Session, chain: Chain, stage: Stage) -> bool:
    """Whether nothing more will come from what feeds a stage."""
    for link in stage.links:
        for source in link.sources:
            if source.stage is None:
                dataset = datasets.get(session, chain.dataset_id)
                if dataset.state is DatasetState.OPEN:
                    return False
            elif not is_final(tasks.get(session, chain.task_ids[source.stage]).state):
                return False
    return True


def upstream_failure(session: Session, chain: Chain, stage: Stage) -> str | None:
    """The name of a stage that feeds this one and did not finish."""
    for name in stage.upstreams:
        if tasks.get(session, chain.task_ids[name]).state is not TaskState.FINISHED:
            return name
    return None


def settle_task(session: Session, chain: Chain, stage: Stage) -> TaskState | None:
    """End a task whose sources are final, all of whose jobs are defined and have ended.

    FINISHED closes its datasets; FAILED leaves them OPEN, so that a retry can complete them.
    """
    task = chain.task(session, stage)
    if is_final(task.state) or tasks.has_unfinished(session, task.id):
        return None
    failed = upstream_failure(session, chain, stage)
    if failed is not None:
        tasks.end(session, task.id, TaskState.FAILED, f"stage {failed} failed before it")
        return TaskState.FAILED
    counts = tasks.count_jobs(session, [task.id])[task.id]
    state, reason = _verdict(session, task, stage, counts)
    # The jobs of a FAILED task change again by a retry.
    known = counts if state is TaskState.FINISHED else None
    tasks.end(session, task.id, state, reason, known)
    if state is TaskState.FINISHED:
        for output in tasks.outputs(session, [task.id])[task.id].values():
            datasets.close(session, output.dataset_id)
    return state


def _verdict(
    session: Session, task: TaskInfo, stage: Stage, counts: Mapping[JobState, int]
) -> tuple[TaskState, str | None]:
    failed, total = counts.get(JobState.FAILED, 0), sum(counts.values())
    if not failed:
        return TaskState.FINISHED, None
    kinds = "; ".join(
        f"{error}" + (f" (exit code {code})" if code is not None else "") + f" × {count}"
        for error, code, count in tasks.failure_summary(session, task.id)
    )
    reason = f"{failed} of {count_of(total, 'job')} failed: {kinds}"
    if stage.goal < 1.0 and total - failed >= stage.goal * total:
        return TaskState.FINISHED, f"{reason}; within the goal of {stage.goal:.0%}"
    return TaskState.FAILED, reason


def settle_workflow(session: Session, chain: Chain) -> WorkflowState | None:
    """End a workflow whose tasks have all ended."""
    rows = tasks.of_workflow(session, chain.workflow_id)
    if not all(is_final(task.state) for task in rows):
        return None
    first = next((task for task in rows if task.state is TaskState.FAILED), None)
    if first is None:
        workflows.finish(session, chain.workflow_id, WorkflowState.FINISHED, None)
        return WorkflowState.FINISHED
    reason = f"stage {first.stage}: {first.reason}"
    workflows.finish(session, chain.workflow_id, WorkflowState.FAILED, reason)
    return WorkflowState.FAILED
