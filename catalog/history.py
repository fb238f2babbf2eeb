"""History: what is removed of workflows that ended long ago, and what is kept to trace files by.

Of each job that ran stay a `past_job` row and the rows of its input and output files: files say
how they were made for as long as they are known. Attempts, jobs and pilots go, with the pilots'
events. A workflow that is FAILED may be retried, so it keeps all until it is retried or cancelled.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import aliased
from sqlmodel import Session, col

from catalog import cattime, tasks
from catalog.bulk import table_of
from catalog.clock import now
from catalog.counts import count_of
from catalog.db import Catalog
from catalog.models import (
    Attempt,
    Event,
    Job,
    JobInput,
    PastJob,
    Pilot,
    Request,
    Task,
    Workflow,
)
from catalog.states import FINAL, JobState, PilotState, RequestState, WorkflowState
from catalog.tasks import TaskInfo

PRUNED = "PRUNED"
"""What the events of tasks and workflows say that lost their history."""

BATCH = 500
"""Jobs that go in one transaction."""

_PRUNABLE = (WorkflowState.FINISHED, WorkflowState.CANCELLED)
_NAMING_PILOTS: tuple[Any, ...] = (Attempt, Job)


@dataclass(frozen=True)
class Pruned:
    """How many rows went; `workflows` are those whose whole history has gone."""

    workflows: int = 0
    jobs: int = 0
    attempts: int = 0
    pilots: int = 0
    events: int = 0
    requests: int = 0

    def __add__(self, other: "Pruned") -> "Pruned":
        """Both together."""
        names = [field.name for field in fields(self)]
        return Pruned(**{name: getattr(self, name) + getattr(other, name) for name in names})


def prune(
    catalog: Catalog,
    older_than_s: float,
    *,
    share: float = 0.5,
    until: Callable[[], bool] = lambda: False,
) -> Pruned:
    """Prune the workflows that ended longer ago, in small transactions, and old answered requests.

    It works for that `share` of the time at the most, so that others get their turn, and ends
    before all is done where `until` says so. It may be killed at any point and run again, also by
    two at once. Attempts that Prefect doesn't show yet are left for the next time, with their jobs.
    Nothing goes while it isn't sure what time it is.
    """
    total, begun = Pruned(), time.monotonic()
    with catalog.read() as session:
        if not cattime.may_remove(session):
            return total
    for done in _steps(catalog, older_than_s):
        total += done
        if until():
            break
        time.sleep((time.monotonic() - begun) * (1 / share - 1))
        begun = time.monotonic()
    return total


def prunable(session: Session, older_than_s: float) -> Pruned:
    """What `prune` would remove now."""
    old = _old(older_than_s)
    mine = sa.select(col(Task.id)).join(Workflow, col(Workflow.id) == col(Task.workflow_id))
    chosen = mine.where(*old)
    jobs = col(Job.task_id).in_(chosen)
    counts = {
        "workflows": sa.select(sa.func.count()).select_from(Workflow).where(*old),
        "jobs": sa.select(sa.func.count()).select_from(Job).where(jobs, _settled()),
        "attempts": sa.select(sa.func.count())
        .select_from(Attempt)
        .join(Job, col(Job.id) == col(Attempt.job_id))
        .where(jobs, _settled()),
        "pilots": sa.select(sa.func.count())
        .select_from(Pilot)
        .where(col(Pilot.task_id).in_(chosen), col(Pilot.state).in_(FINAL[PilotState])),
        "requests": sa.select(sa.func.count()).select_from(Request).where(*_answered(older_than_s)),
    }
    return Pruned(**{name: session.execute(query).scalar_one() for name, query in counts.items()})


def _steps(catalog: Catalog, older_than_s: float) -> Iterator[Pruned]:
    """Do it, and give what each transaction did."""
    workflow_id = 0
    while True:
        with catalog.read() as session:
            query = sa.select(sa.func.min(col(Workflow.id))).where(
                *_old(older_than_s), col(Workflow.id) > workflow_id
            )
            found = session.execute(query).scalar()
            rows = tasks.of_workflow(session, found) if found else []
        if found is None:
            break
        workflow_id = found
        for task in rows:
            yield _sum_up(catalog, task)
            yield from _all(_prune_jobs, catalog, task.id)
            yield from _all(_prune_pilots, catalog, task.id)
        yield _close(catalog, workflow_id)
    while (done := _prune_requests(catalog, older_than_s)).requests:
        yield done


Step = Callable[[Catalog, int, int], tuple[Pruned, int | None]]
"""Prunes a little of a task, beyond a place; gives where it ended, None where there was nothing."""


def _all(step: Step, catalog: Catalog, task_id: int) -> Iterator[Pruned]:
    at: int | None = -1
    while at is not None:
        done, at = step(catalog, task_id, at)
        yield done


def _old(older_than_s: float) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        col(Workflow.pruned_at).is_(None),
        col(Workflow.ended_at) < now(-older_than_s),
        col(Workflow.state).in_(_PRUNABLE),
    )


def _sum_up(catalog: Catalog, task: TaskInfo) -> Pruned:
    """Before the first of its jobs goes: keep what a task did, and say that they go."""
    with catalog.read() as session:
        known = tasks.counted(session, [task.id]) or tasks.count_jobs(session, [task.id])
        used = tasks.usage(session, [task.id])[task.id]
    counts = known[task.id]
    with catalog.write() as session:
        noted = session.execute(
            sa.update(Task)
            .where(col(Task.id) == task.id, col(Task.used).is_(None))
            .values(counts=dict(counts), used=vars(used))
            .returning(col(Task.id))
        ).scalar()
        if noted is not None:
            words = f"history: {count_of(sum(counts.values()), 'job')}, "
            words += count_of(used.attempts, "attempt")
            _tell(session, Task, task.id, task.state, words)
    return Pruned()


def _tell(session: Session, model: Any, entity_id: int, state: StrEnum, words: str) -> None:
    row = {"entity": model.__tablename__, "entity_id": entity_id, "before": state}
    session.execute(sa.insert(Event), [{**row, "after": PRUNED, "message": words}])


def _settled() -> sa.ColumnElement[bool]:
    """Of jobs: they have ended, and Prefect shows all their attempts."""
    tried: Any = aliased(Attempt)
    # A look-up for each job: with EXISTS, all attempts that aren't shown may be read for each.
    shown = sa.func.min(sa.case((tried.shown, 1), else_=0))
    least = sa.select(sa.func.coalesce(shown, 1)).where(tried.job_id == col(Job.id))
    return sa.and_(col(Job.state).in_(FINAL[JobState]), least.scalar_subquery() == 1)


def _prune_jobs(catalog: Catalog, task_id: int, after: int) -> tuple[Pruned, int | None]:
    """Remove the next jobs of a task beyond an ordinal, with their attempts."""
    with catalog.write() as session:
        rows = session.execute(
            sa.select(col(Job.id), col(Job.ordinal), col(Job.attempt))
            .where(col(Job.task_id) == task_id, col(Job.ordinal) > after, _settled())
            .order_by(col(Job.ordinal))
            .limit(BATCH)
            .with_for_update(of=Job, skip_locked=True)
        ).all()
        if not rows:
            return Pruned(), None
        ids = [row.id for row in rows]
        _keep(session, ids)
        never = [row.id for row in rows if row.attempt == 0]
        if never:
            session.execute(sa.delete(JobInput).where(col(JobInput.job_id).in_(never)))
        attempts = _delete(session, Attempt, col(Attempt.job_id).in_(ids))
        jobs = _delete(session, Job, col(Job.id).in_(ids))
        return Pruned(jobs=jobs, attempts=attempts), rows[-1].ordinal


def _keep(session: Session, job_ids: Sequence[int]) -> None:
    """Write down how these jobs made their files; those that never ran made none."""
    names = ("id", "task_id", "key", "state", "attempt")
    more = ("program", "tool_digest", "node")
    last = sa.and_(col(Attempt.job_id) == col(Job.id), col(Attempt.number) == col(Job.attempt))
    query = (
        sa.select(
            *(getattr(Job, name) for name in names),
            *(getattr(Attempt, name) for name in more),
            col(Job.ended_at),
        )
        .join(Attempt, last, isouter=True)
        .where(col(Job.id).in_(job_ids), col(Job.attempt) > 0)
    )
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    insert = dialect.insert(table_of(PastJob)).from_select([*names, *more, "ended_at"], query)
    session.execute(insert.on_conflict_do_nothing())


def _delete(session: Session, model: Any, where: sa.ColumnElement[bool]) -> int:
    result: Any = session.execute(
        sa.delete(model).where(where), execution_options={"synchronize_session": False}
    )
    return int(result.rowcount)


def _prune_pilots(catalog: Catalog, task_id: int, after: int) -> tuple[Pruned, int | None]:
    """Remove the next pilots of a task that no attempt or job names, with their events."""
    with catalog.write() as session:
        named = [sa.exists().where(model.pilot_id == col(Pilot.id)) for model in _NAMING_PILOTS]
        ids = list(
            session.scalars(
                sa.select(col(Pilot.id))
                .where(
                    col(Pilot.task_id) == task_id,
                    col(Pilot.id) > after,
                    col(Pilot.state).in_(FINAL[PilotState]),
                    *map(sa.not_, named),
                )
                .order_by(col(Pilot.id))
                .limit(BATCH)
                .with_for_update(of=Pilot, skip_locked=True)
            )
        )
        if not ids:
            return Pruned(), None
        mine = sa.and_(col(Event.entity) == Pilot.__tablename__, col(Event.entity_id).in_(ids))
        events = _delete(session, Event, mine)
        return Pruned(pilots=_delete(session, Pilot, col(Pilot.id).in_(ids)), events=events), ids[
            -1
        ]


def _close(catalog: Catalog, workflow_id: int) -> Pruned:
    """Note that a workflow's history has gone, if nothing of it was left for the next time."""
    with catalog.write() as session:
        mine = sa.select(col(Task.id)).where(col(Task.workflow_id) == workflow_id)
        for model in (Job, Pilot):
            left = sa.exists().where(col(model.task_id).in_(mine))
            if session.execute(sa.select(left)).scalar_one():
                return Pruned()
        state = session.execute(
            sa.update(Workflow)
            .where(col(Workflow.id) == workflow_id, col(Workflow.pruned_at).is_(None))
            .values(pruned_at=now())
            .returning(col(Workflow.state))
        ).scalar()
        if state is None:
            return Pruned()
        _tell(session, Workflow, workflow_id, state, "history: see the events of its tasks")
        return Pruned(workflows=1)


def _answered(older_than_s: float) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        col(Request.state) == RequestState.DONE,
        col(Request.ended_at) < now(-older_than_s),
    )


def _prune_requests(catalog: Catalog, older_than_s: float) -> Pruned:
    """Remove requests that were answered long ago, and say how many."""
    with catalog.write() as session:
        some = sa.select(col(Request.id)).where(*_answered(older_than_s)).limit(BATCH)
        ids = list(session.scalars(some.with_for_update(skip_locked=True)))
        if not ids:
            return Pruned()
        count = _delete(session, Request, col(Request.id).in_(ids))
        words = f"{count} answered requests, up to number {max(ids)}"
        _tell(session, Request, max(ids), RequestState.DONE, words)
        return Pruned(requests=count)
