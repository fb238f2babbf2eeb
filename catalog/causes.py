"""Why: what keeps a dataset open, or a file out of one, and what happens next."""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import files, intakerules, jobs, lineage, tasks, uploads, workflows
from catalog.datasets import DatasetInfo
from catalog.files import FileInfo
from catalog.models import Dataset, DatasetFile, IntakeRule, Request
from catalog.states import DatasetState, JobState, RequestState, TaskState, is_final

_SHOWN = 5


@dataclass(frozen=True)
class Cause:
    """A fact, in a sentence; `next` says what happens, or what to do."""

    fact: str
    next: str = ""


def why_dataset(session: Session, info: DatasetInfo) -> list[Cause]:
    """Why a dataset is in its state, the nearest cause first."""
    if info.state is DatasetState.CLOSED:
        return _closed(session, info)
    if info.state is DatasetState.DELETING:
        return [
            Cause(
                f"{info.name} is being deleted since {_since(session, info)}",
                "its bytes go with the next run of the flow `deletion`",
            )
        ]
    if info.state is DatasetState.DELETED:
        return [Cause(f"{info.name} was deleted", "its history is in `spdf dataset show`")]
    found = [Cause(f"{info.name} is OPEN since {info.created_at:%Y-%m-%d %H:%M:%SZ}")]
    if info.task_id is not None:
        return found + _made(session, info, info.task_id)
    return found + _filled(session, info)


def _closed(session: Session, info: DatasetInfo) -> list[Cause]:
    found = [Cause(f"{info.name} is CLOSED since {info.closed_at:%Y-%m-%d %H:%M:%SZ}")]
    if info.pin is not None:
        found.append(Cause(f"it is pinned: {info.pin}", "it stays until `spdf dataset unpin`"))
    elif info.expires_at is not None:
        found.append(Cause(f"its lifetime ends at {info.expires_at:%Y-%m-%d %H:%M:%SZ}",
                           "then it is deleted"))  # fmt: skip
    for upload in uploads.of_dataset(session, info.id)[:1]:
        done = f"{upload.files_done} of {upload.files} files"
        why = f": {upload.reason}" if upload.reason else ""
        found.append(Cause(f"its upload to {upload.storage} is {upload.state}, {done}{why}"))
    return found


def _since(session: Session, info: DatasetInfo) -> str:
    from catalog import events

    moved = [e for e in events.history(session, "dataset", info.id) if e.after == "DELETING"]
    return f"{moved[-1].at:%Y-%m-%d %H:%M:%SZ}" if moved else "a while"


def _made(session: Session, info: DatasetInfo, task_id: int) -> list[Cause]:
    """Of a dataset that a workflow makes: its task, its jobs, and what these wait for."""
    task = tasks.get(session, task_id)
    workflow = workflows.get(session, task.workflow_id)
    found = [
        Cause(
            f"task {task.id} ({task.stage}) of workflow {workflow.id} ({workflow.label}) makes it, "
            f"and is {task.state}" + (f": {task.reason}" if task.reason else ""),
            "" if is_final(task.state) else "it closes when the task is FINISHED",
        )
    ]
    if task.state in (TaskState.FAILED, TaskState.CANCELLED):
        mend = f"`spdf workflow retry {workflow.id}`" if task.state is TaskState.FAILED else ""
        found.append(Cause(f"outputs of a {task.state} task stay OPEN", mend))
    found += _jobs(session, task_id)
    if task.ordinal > 0 and not is_final(task.state):
        found += _upstreams(session, workflow.id, task.ordinal)
    if not is_final(workflow.state) and workflow.owner is None:
        found.append(
            Cause("nobody advances the workflow now", "the watchdog starts a flow run for it")
        )
    return found


def _jobs(session: Session, task_id: int) -> list[Cause]:
    counted = tasks.count_jobs(session, [task_id])[task_id]
    open_states = [state for state in counted if state not in (JobState.FINISHED, JobState.SKIPPED)]
    found = []
    if counted:
        words = ", ".join(f"{number} {state}" for state, number in sorted(counted.items()))
        found.append(Cause(f"its jobs: {words}"))
    for state in (JobState.HELD, JobState.FAILED, JobState.RUNNING, JobState.READY):
        if state not in open_states:
            continue
        for job in jobs.list_jobs(session, task_id=task_id, states=(state,), limit=_SHOWN):
            why = f": {job.reason}" if job.reason else ""
            found.append(
                Cause(f"job {job.id} ({job.key}) is {job.state}{why}", _next(state, job.id))
            )
    return found


def _next(state: JobState, job_id: int) -> str:
    return {
        JobState.HELD: f"`spdf job release {job_id}` once its cause is mended",
        JobState.FAILED: "`spdf workflow retry` runs it again",
        JobState.RUNNING: "it ends, or its pilot's lease does",
        JobState.READY: "the next free pilot leases it",
    }.get(state, "")


def _upstreams(session: Session, workflow_id: int, ordinal: int) -> list[Cause]:
    rows = tasks.of_workflow(session, workflow_id)
    return [
        Cause(f"task {row.id} ({row.stage}) before it is {row.state}", "its files come from there")
        for row in rows
        if row.ordinal < ordinal and not is_final(row.state)
    ]


def _filled(session: Session, info: DatasetInfo) -> list[Cause]:
    """Of a dataset that is filled from outside: its requests, and the rule that closes it."""
    found = []
    for state in (RequestState.ERROR, RequestState.QUEUED):
        rows = session.execute(
            sa.select(col(Request.id), col(Request.kind), col(Request.key), col(Request.reply))
            .where(col(Request.lane) == info.name, col(Request.state) == state)
            .order_by(col(Request.id))
            .limit(_SHOWN)
        ).all()
        for row in rows:
            if state is RequestState.ERROR:
                told = (row.reply or {}).get("error", "no reason")
                fact = f"request {row.id} ({row.kind}) was answered with ERROR: {told}"
                found.append(Cause(fact, f"mend it, then `spdf request retry {row.id}`"))
            else:
                found.append(
                    Cause(f"request {row.id} ({row.kind}) is QUEUED", "the intake does it soon")
                )
    rule = session.execute(
        sa.select(col(IntakeRule.name))
        .join(Dataset, col(Dataset.rule_id) == col(IntakeRule.id))
        .where(col(Dataset.id) == info.id, col(IntakeRule.active))
    ).scalar()
    if rule is None:
        found.append(Cause("no rule of the intake closes it", f"`spdf dataset close {info.name}`"))
        return found
    wanted = intakerules.get(session, rule)
    ends = []
    if wanted.end_pattern:
        ends.append(f"the marker {wanted.end_pattern}")
    if wanted.close_count:
        ends.append(f"{wanted.close_count} files")
    if wanted.quiet_s is not None:
        ends.append(f"{wanted.quiet_s:g} s without a file")
    closes = " or ".join(ends)
    found.append(
        Cause(
            f"intake rule {rule} fills it",
            f"it closes on {closes}" if closes else f"`spdf dataset close {info.name}` closes it",
        )
    )
    return found


def why_file(session: Session, info: FileInfo, dataset: DatasetInfo | None) -> list[Cause]:
    """Why a file is where it is; with a dataset, why it is in it or not."""
    found = []
    for replica in files.all_replicas(session, info.id):
        found.append(Cause(f"its copy {replica.path} on {replica.storage} is {replica.state}"))
    if dataset is not None:
        found += _membership(session, info, dataset)
    origin = lineage.lineage(session, info.id, limit=1).steps[0]
    if origin.made_by is None:
        found.append(Cause("it comes from outside"))
    else:
        maker = origin.made_by
        found.append(
            Cause(
                f"job {maker.job_id} of {maker.template}@{maker.version} {maker.stage}, workflow "
                f"{maker.workflow_id}, made it"
            )
        )
    return found


def _membership(session: Session, info: FileInfo, dataset: DatasetInfo) -> list[Cause]:
    there = session.execute(
        sa.select(col(DatasetFile.name)).where(
            col(DatasetFile.dataset_id) == dataset.id, col(DatasetFile.file_id) == info.id
        )
    ).scalar()
    if there is not None:
        return [Cause(f"it is in {dataset.name}, as {there}")]
    found = [Cause(f"it is not in {dataset.name}")]
    if dataset.task_id is None:
        if dataset.state is not DatasetState.OPEN:
            found.append(Cause(f"{dataset.name} is {dataset.state}, so it takes no files any more"))
        else:
            found += _filled(session, dataset)
        return found
    return found + _in_descendants(session, info, dataset.task_id)


def _in_descendants(session: Session, info: FileInfo, task_id: int) -> list[Cause]:
    """What became of the jobs that read a file, or its key, in the task that makes a dataset."""
    keys = session.scalars(
        sa.select(col(DatasetFile.key)).where(col(DatasetFile.file_id) == info.id)
    ).all()
    ended = jobs.by_keys(session, task_id, list(dict.fromkeys(keys)))
    if not ended:
        task = tasks.get(session, task_id)
        return [
            Cause(
                f"{task.stage} has no job for it yet, and is {task.state}",
                "" if is_final(task.state) else "a job comes once the stage before is done with it",
            )
        ]
    found = []
    for job in ended:
        why = f": {job.reason}" if job.reason else ""
        what = {
            JobState.SKIPPED: "a filter let nothing of it through",
            JobState.FINISHED: "what it made of it is in the dataset under the same key",
        }.get(job.state, _next(job.state, job.id))
        found.append(Cause(f"job {job.id} ({job.key}) of it is {job.state}{why}", what))
    return found
