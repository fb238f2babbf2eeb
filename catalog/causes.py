"""Why: what keeps a dataset open, or a file out of one, and what happens next."""

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import (
    arrivals,
    datasets,
    deletioncauses,
    files,
    following,
    intakerules,
    jobs,
    lineage,
    refusals,
    rulewords,
    sources,
    stranded,
    tasks,
    troubles,
    unseen,
    uploads,
    workflows,
)
from catalog.counts import count_of
from catalog.datasets import DatasetInfo
from catalog.deletioncauses import Cause as Cause
from catalog.errors import NotFound
from catalog.files import FileInfo
from catalog.jobcauses import next_of, waits_of
from catalog.jobcauses import why_job as why_job
from catalog.models import Dataset, DatasetFile, IntakeRule, Request
from catalog.refs import HOLDING
from catalog.refusals import RefusalInfo
from catalog.requests import queue, work
from catalog.sources import SourceInfo
from catalog.states import DatasetState, JobState, RequestState, TaskState, is_final

_SHOWN = 5


def why_name(session: Session, name: str) -> list[Cause]:
    """Why a dataset is in its state, or isn't there although files came; raises `NotFound`."""
    try:
        return why_dataset(session, datasets.by_name(session, name))
    except NotFound:
        left = refusals.of_dataset(session, name, limit=_SHOWN)
        if not left:
            raise
    return [
        Cause(f"there is no dataset {name}: nothing was taken for it"),
        *(_refusal(item, "mend it" if item.kind in HOLDING else "") for item in left),
    ]


def why_dataset(session: Session, info: DatasetInfo) -> list[Cause]:
    """Why a dataset is in its state, the nearest cause first; then what can't be done with it."""
    found = _why_state(session, info)
    if info.state in (DatasetState.OPEN, DatasetState.CLOSED):
        found += _incomplete(session, info)
        found += _unfollowed(session, info)
    return found + troubles_of(session, troubles.Of.DATASET, info.id)


def _incomplete(session: Session, info: DatasetInfo) -> list[Cause]:
    """Of one that lacks something: what, and that no template takes it by itself for that."""
    if info.incomplete is None:
        return []
    fact, template = f"it is incomplete: {info.incomplete}", following.left_alone(session, info)
    if template is None:
        return [Cause(fact)]
    by_hand = f"`spdf workflow submit {template.name} {info.name}` does"
    return [Cause(f"{fact}; so template {template.ref} doesn't take it by itself", by_hand)]


def _unfollowed(session: Session, info: DatasetInfo) -> list[Cause]:
    """Of one that an automatic template was for, until another took its place."""
    item = following.of_dataset(session, info)
    if item is None:
        return []
    fact = (
        f"no template is for it by itself: {item.template.ref} was, until {item.by} took its place "
        f"at {item.at:%Y-%m-%d %H:%M:%SZ}"
    )
    return [Cause(fact, following.mend(item.template))]


def troubles_of(session: Session, entity: troubles.Of, entity_id: int) -> list[Cause]:
    """What services can't do for one thing."""
    return [
        Cause(f"{item.error} (since {item.since:%Y-%m-%d %H:%M:%SZ})", "it is tried again")
        for item in troubles.of(session, entity, entity_id)
    ]


def _why_state(session: Session, info: DatasetInfo) -> list[Cause]:
    if info.state is DatasetState.CLOSED:
        return _closed(session, info)
    if info.state is DatasetState.DELETING:
        return deletioncauses.going(session, info) + _refused(session, info)
    if info.state is DatasetState.DELETED:
        return deletioncauses.gone(session, info)
    found = [Cause(f"{info.name} is OPEN since {info.created_at:%Y-%m-%d %H:%M:%SZ}")]
    if info.task_id is not None:
        return found + _made(session, info, info.task_id)
    return found + _refused(session, info) + _filled(session, info)


def _closed(session: Session, info: DatasetInfo) -> list[Cause]:
    found = [Cause(f"{info.name} is CLOSED since {info.closed_at:%Y-%m-%d %H:%M:%SZ}")]
    if info.pin is not None:
        found.append(Cause(f"it is pinned: {info.pin}", "it stays until `spdf dataset unpin`"))
    elif info.lifetime_s is not None:
        found += deletioncauses.due(session, info)
    found += deletioncauses.between(session, info)
    for upload in uploads.of_dataset(session, info.id)[:1]:
        done = f"{upload.files_done} of {count_of(upload.files, 'file')}"
        told = upload.reason or upload.waits_for
        why = f": {told}" if told else ""
        what = "it is tried again" if upload.waits_for else ""
        found.append(Cause(f"its upload to {upload.storage} is {upload.state}, {done}{why}", what))
    found += [Cause(sources.in_words(item, "")) for item in sources.of_dataset(session, info.id)]
    return found + _refused(session, info)


def _refused(session: Session, info: DatasetInfo) -> list[Cause]:
    """What the intake saw, and didn't take for it."""
    mend = ""
    if info.state is DatasetState.OPEN:
        mend = (
            f"mend it, `spdf dataset dismiss {info.name} PATH` leaves it out, or "
            f"`spdf dataset close {info.name}` closes it as it is"
        )
    found = [
        _refusal(item, mend if item.kind in HOLDING else "")
        for item in refusals.of_dataset(session, info.name, limit=_SHOWN)
    ]
    if len(found) == _SHOWN and (more := refusals.count_of_dataset(session, info.name) - _SHOWN):
        rules = sorted({item.rule for item in refusals.of_dataset(session, info.name)})
        found.append(Cause(f"{more} more weren't taken", f"`spdf intake show {rules[0]}`"))
    return found


def _refusal(item: RefusalInfo, mend: str = "") -> Cause:
    since = f"{item.found_at:%Y-%m-%d %H:%M:%SZ}"
    return Cause(
        f"{item.path} on {item.storage} isn't taken by intake rule {item.rule} ({item.kind}, "
        f"since {since}): {item.reason}",
        mend,
    )


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
        vain = stranded.cause(session, info)
        later = f"`spdf workflow retry {workflow.id}`, once its workflow has ended"
        mend = later if vain is None else vain.next
        found.append(Cause(f"outputs of a {task.state} task stay OPEN", mend))
        found += _readers(session, info)
    elif (vain := stranded.why_waits(session, workflow)) is not None:
        found.append(Cause(f"the workflow waits: {vain.fact}", vain.next))
    found += waits_of(session, [task_id] if not is_final(task.state) else [])
    found += _jobs(session, task_id)
    if task.ordinal > 0 and not is_final(task.state):
        found += _upstreams(session, workflow.id, task.ordinal)
    if not is_final(workflow.state) and workflow.owner is None:
        found.append(
            Cause("nobody advances the workflow now", "the watchdog starts a flow run for it")
        )
    return found


def _readers(session: Session, info: DatasetInfo) -> list[Cause]:
    """The workflows that wait for one that nobody goes on with."""
    left = stranded.Leavings((), tuple(stranded.readers(session, [info.id])))
    return [Cause(words, stranded.ends(left))] if (words := stranded.waiting(left)) else []


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
                Cause(f"job {job.id} ({job.key}) is {job.state}{why}", next_of(session, job))
            )
    return found


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
            .where(
                col(Request.lane) == info.name,
                col(Request.state) == state,
                # Those of a dataset that was called so before, and is DELETED, were answered then.
                sa.or_(col(Request.ended_at).is_(None), col(Request.ended_at) >= info.created_at),
            )
            .order_by(col(Request.id))
            .limit(_SHOWN)
        ).all()
        for row in rows:
            if state is RequestState.ERROR:
                told = (row.reply or {}).get("error", "no reason")
                fact = f"request {row.id} ({row.kind}) was answered with ERROR: {told}"
                found.append(Cause(fact, f"mend it, then `spdf request retry {row.id}`"))
            else:
                found.append(_queued(session, row.id, is_next=row is rows[0]))
    return found + _sources(session, info)


def _sources(session: Session, info: DatasetInfo) -> list[Cause]:
    """Who fills an OPEN dataset, what each is waited for, and what else keeps it open."""
    filled = sources.of_dataset(session, info.id)
    close = f"`spdf dataset close {info.name}` closes it as it is"
    found = [_source(session, item, close) for item in filled]
    if any(item.orphaned and item.ended_by is None for item in filled):
        found += _readers(session, info)
    for text in sorted({_text(session, item.rule_id) for item in filled if item.rule_id}):
        for folder in unseen.folders(session, text)[:_SHOWN]:
            found.append(_refusal(folder, f"files of it may lie there; let us read it, or {close}"))
    if not filled:
        found.append(_unended(session, info))
    elif not any(item.is_open for item in filled):
        found.append(Cause("all who fill it have ended", "it is closed soon"))
    return found


def _source(session: Session, item: SourceInfo, close: str) -> Cause:
    if item.rule_id is None:
        return _sender(session, item, close)
    rule = intakerules.by_id(session, item.rule_id)
    fact = sources.in_words(item, rulewords.awaits(rule, item.dataset, item.files))
    if item.ended_by is not None:
        return Cause(fact)
    if item.orphaned:
        return Cause(
            fact,
            f"`spdf intake add … --adopt {item.rule_id}` goes on in its place; {close}, and it is "
            "incomplete then (unless you say --complete)",
        )
    if item.is_quiet:
        return Cause(f"{item.who} has seen no file of it for long enough", "")
    if not item.files:
        fact += "; once all others have ended it is waited for only a while"
    return Cause(fact, close)


def _sender(session: Session, item: SourceInfo, close: str) -> Cause:
    fact = sources.in_words(item, "")
    if item.ended_by is not None:
        return Cause(fact)
    if item.expects is None:
        return Cause(fact, f"it is closed at its word; {close}")
    there = arrivals.counts(session, [item.dataset_id]).get(item.dataset_id, 0)
    then = "it is closed when these are there" if there <= item.expects else "it stays OPEN"
    return Cause(f"{fact}, and there are {there}", f"{then}; {close}")


def _text(session: Session, rule_id: int | None) -> str:
    assert rule_id is not None
    return intakerules.by_id(session, rule_id).dataset


def _unended(session: Session, info: DatasetInfo) -> Cause:
    """Of a dataset that nothing ends: a rule without an end fills it, or nobody does."""
    rule = session.execute(
        sa.select(col(IntakeRule.name))
        .join(Dataset, col(Dataset.rule_id) == col(IntakeRule.id))
        .where(col(Dataset.id) == info.id, col(IntakeRule.active))
    ).scalar()
    closes = f"`spdf dataset close {info.name}`"
    if rule is None:
        return Cause("no rule of the intake closes it", closes)
    return Cause(f"intake rule {rule} fills it", f"{closes} closes it")


def _queued(session: Session, request_id: int, *, is_next: bool) -> Cause:
    info = queue.get(session, request_id)
    fact = f"request {info.id} ({info.kind}) is QUEUED"
    if is_next and (waits := work.waits(info)) is not None:
        return Cause(fact, f"it waits {waits}")
    return Cause(fact, "the intake does it soon")


def why_text(session: Session, text: str, dataset: DatasetInfo | None) -> list[Cause]:
    """As `why_file`, of what a person writes; also of `STORAGE:PATH` that isn't taken.

    Raises `NotFound`, `BadInput`.
    """
    try:
        return why_file(session, files.find(session, text), dataset)
    except NotFound:
        storage, _, path = text.partition(":")
        left = refusals.of_storage_path(session, storage, path)[:_SHOWN]
        if not left:
            raise
    return [Cause(f"{text} is no file of the catalog"), *map(_refusal, left)]


def why_file(session: Session, info: FileInfo, dataset: DatasetInfo | None) -> list[Cause]:
    """Why a file is where it is; with a dataset, why it is in it or not."""
    found = []
    for replica in files.all_replicas(session, info.id):
        found.append(Cause(f"its copy {replica.path} on {replica.storage} is {replica.state}"))
        for item in refusals.of_path(session, replica.storage_id, replica.path)[:_SHOWN]:
            found.append(_refusal(item))
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
        }.get(job.state, next_of(session, job))
        found.append(Cause(f"job {job.id} ({job.key}) of it is {job.state}{why}", what))
    return found
