"""Why bytes of a dataset go, are there still, or stayed, in sentences."""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import cattime, deletion, deletionfaults, durations, dutywords, leftovers
from catalog.clock import now
from catalog.counts import count_of
from catalog.datasets import DatasetInfo
from catalog.errors import Conflict
from catalog.models import Dataset, DatasetFile, Detached, Replica, Task
from catalog.originals import is_original
from catalog.refs import Originals, Retention
from catalog.states import JobState, ReplicaState

_TIME = "%Y-%m-%d %H:%M:%SZ"


@dataclass(frozen=True)
class Cause:
    """A fact, in a sentence; `next` says what happens, or what to do."""

    fact: str
    next: str = ""


def due(session: Session, info: DatasetInfo) -> list[Cause]:
    """When a CLOSED dataset is deleted by itself, and what it is kept for."""
    assert info.lifetime_s is not None
    kept = [Cause(item.fact, item.mend) for item in dutywords.kept_for(session, info.id)]
    if info.expires_at is None:
        lasts = durations.words(info.lifetime_s)
        return [Cause(f"its lifetime of {lasts} begins when all is done with it"), *kept]
    ends = f"its lifetime ends at {info.expires_at:{_TIME}}"
    if info.expires_at > session.execute(sa.select(now())).scalar_one():
        return [Cause(ends, "then it is kept for this:" if kept else "then it is deleted"), *kept]
    ended = f"its lifetime ended at {info.expires_at:{_TIME}}"
    if not cattime.may_remove(session):
        waits = "it waits, as it isn't sure what time it is: `spdf clock` tells until when"
        return [Cause(ended, waits), *kept]
    try:
        deletion.check_free(session, info)
    except Conflict as error:
        return [Cause(ended, str(error)), *kept]
    return [Cause(ended), *kept] if kept else [Cause(ends, "then it is deleted")]


def between(session: Session, info: DatasetInfo) -> list[Cause]:
    """Of what lies between two stages and isn't kept for ever: until when it is."""
    row = session.execute(
        sa.select(col(Dataset.retention), col(Dataset.readers), col(Task.workflow_id))
        .join(Task, col(Task.id) == col(Dataset.task_id))
        .where(col(Dataset.id) == info.id, col(Dataset.retention).is_not(None))
    ).one_or_none()
    if row is None:
        return []
    # What it is made for is uploaded when the whole workflow is done with.
    stages = session.execute(
        sa.select(col(Task.stage), col(Task.counts)).where(col(Task.workflow_id) == row.workflow_id)
    )
    failed = sum(
        (stage.counts or {}).get(JobState.FAILED, 0)
        for stage in stages
        if row.retention is Retention.UPLOADED or stage.stage in (row.readers or ())
    )
    until = "the stages that read it are FINISHED"
    if row.retention is Retention.UPLOADED:
        until = "the outputs of its workflow are uploaded"
    found = [Cause(f"it is kept until {until}")]
    if failed:
        found.append(
            Cause(
                f"{count_of(failed, 'job')} failed within a goal, so what they read is unprocessed",
                f"it stays until `spdf dataset delete {info.name}`",
            )
        )
    return found


def going(session: Session, info: DatasetInfo) -> list[Cause]:
    """Of a dataset that is DELETING: until when it can be taken back, or why bytes are there."""
    since = "a while" if info.deleting_at is None else f"{info.deleting_at:{_TIME}}"
    fact = f"{info.name} is being deleted since {since}"
    if info.grace_until is not None:
        found = [
            Cause(
                f"{fact}; nothing goes before {info.grace_until:{_TIME}}",
                f"`spdf dataset undelete {info.name}` takes it back until then",
            )
        ]
    else:
        found = [Cause(fact, "its bytes go with the next run of the flow `deletion`")]
    if _has_originals(session, info.id):
        found.append(_fate(info))
    for fault in deletionfaults.of_dataset(session, info.id):
        where = (
            f"{count_of(fault.files, 'file')} on {fault.storage} can't go"
            if fault.storage
            else "it failed"
        )
        which = f", such as {fault.path}" if fault.path else ""
        found.append(
            Cause(
                f"{where} since {fault.since:{_TIME}}{which}: {fault.reason}",
                "it is tried again by itself",
            )
        )
    return found


def _fate(info: DatasetInfo) -> Cause:
    if info.originals is Originals.BY_WORD:
        return Cause("what was registered in place goes, too: --remove-originals")
    if info.originals is Originals.BY_RULE:
        return Cause("what its intake rule took goes, too: the rule has a lifetime")
    return Cause("what was registered in place is detached: its bytes stay")


def _has_originals(session: Session, dataset_id: int) -> bool:
    query = (
        sa.select(col(Replica.id))
        .join(DatasetFile, col(DatasetFile.file_id) == col(Replica.file_id))
        .where(
            col(DatasetFile.dataset_id) == dataset_id,
            col(Replica.state) != ReplicaState.DELETED,
            is_original(),
        )
        .limit(1)
    )
    return session.execute(query).first() is not None


def gone(session: Session, info: DatasetInfo) -> list[Cause]:
    """Of a dataset that is DELETED: what stayed of it."""
    found = [Cause(f"{info.name} was deleted", "its history is in `spdf dataset show`")]
    count = session.execute(
        sa.select(sa.func.count())
        .select_from(Detached)
        .join(Replica, col(Replica.id) == col(Detached.replica_id))
        .join(DatasetFile, col(DatasetFile.file_id) == col(Replica.file_id))
        .where(col(DatasetFile.dataset_id) == info.id)
    ).scalar_one()
    if count:
        found.append(
            Cause(
                f"{count} of its files were detached: their bytes are where they were, and the "
                "intake leaves them alone",
                "`spdf intake rescan` lets its rules take them again",
            )
        )
    if others := leftovers.count(session, info.name):
        found.append(
            Cause(
                f"{count_of(others, 'file')} of it stayed for other datasets, and the intake takes "
                "none of them for this name again while they are as they were",
                "`spdf intake rescan` lets its rules do so",
            )
        )
    return found
