"""How much is going on: what an operator asks first."""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import pilots, singletons
from catalog.bulk import table_of
from catalog.clock import now
from catalog.models import (
    IS_OPEN,
    Attempt,
    Dataset,
    File,
    Job,
    Pilot,
    Request,
    Task,
    Template,
    Workflow,
)
from catalog.pilots import LIVE
from catalog.states import AttemptState, JobState, TaskState, WorkflowState

HOLDINGS = (
    "storage", "dataset", "file", "replica", "template", "workflow", "task", "job", "attempt",
    "past_job", "pilot", "node", "request", "event",
)  # fmt: skip
"""Tables whose rows say how much a catalog holds."""


@dataclass(frozen=True)
class Holdings:
    """How many rows there are by table, and how large the whole database is."""

    rows: dict[str, int]
    size_bytes: int


@dataclass(frozen=True)
class Overview:
    """Live pilots, workflows that are not final, and the jobs of tasks that are being worked on."""

    live_pilots: int
    workflows: dict[WorkflowState, int]
    jobs: dict[JobState, int]


def overview(session: Session) -> Overview:
    """Count what is at work now; states that nothing is in are left out."""
    working = (WorkflowState.DEFINED, WorkflowState.IN_PROGRESS, WorkflowState.PAUSED)
    live = session.execute(
        sa.select(sa.func.count()).select_from(Pilot).where(col(Pilot.state).in_(LIVE))
    ).scalar_one()
    by_workflow = session.execute(
        sa.select(col(Workflow.state), sa.func.count())
        .where(col(Workflow.state).in_(working))
        .group_by(col(Workflow.state))
    )
    by_job = session.execute(
        sa.select(col(Job.state), sa.func.count())
        .join(Task, col(Task.id) == col(Job.task_id))
        .where(col(Task.state) == TaskState.IN_PROGRESS, IS_OPEN)
        .group_by(col(Job.state))
    )
    return Overview(
        live, {row[0]: row[1] for row in by_workflow}, {row[0]: row[1] for row in by_job}
    )


def holdings(session: Session) -> Holdings:
    """Count what the catalog holds, in whatever schema: tables that it lacks are left out."""
    connection = session.connection()
    known = sa.inspect(connection).get_table_names()
    rows = {
        name: session.execute(sa.select(sa.func.count()).select_from(sa.table(name))).scalar_one()
        for name in HOLDINGS
        if name in known
    }
    if connection.dialect.name == "postgresql":
        size = "SELECT pg_database_size(current_database())"
    else:
        size = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
    return Holdings(rows, session.execute(sa.text(size)).scalar_one())


def at_work(session: Session, *, is_current: bool = True) -> list[str]:
    """Who works on the catalog now, in words: those whose beat or lease is fresh.

    `is_current` says whether the schema is this program's.
    """
    owned = sa.select(sa.func.count()).where(col(Workflow.lease_until) > now())
    found = {
        "pilots": pilots.beating(session),
        "advanced workflows": session.execute(owned.select_from(Workflow)).scalar_one(),
    }
    roles = sorted(singletons.held(session, names_holders=is_current))
    return [f"{name} ({count})" for name, count in found.items() if count] + roles


def is_in_use(session: Session) -> str | None:
    """What a catalog holds that its storages alone don't make, in words; None for nothing."""
    models = (Dataset, File, Template, Workflow, Request)
    held = [
        str(table_of(model).name)
        for model in models
        if session.execute(sa.select(sa.exists().select_from(model))).scalar_one()
    ]
    return f"it has rows of {', '.join(held)}" if held else None


def attempt_counts(session: Session, workflow_id: int) -> dict[AttemptState, int]:
    """The attempts of a workflow's jobs, counted by state."""
    rows = session.execute(
        sa.select(col(Attempt.state), sa.func.count())
        .join(Job, col(Job.id) == col(Attempt.job_id))
        .join(Task, col(Task.id) == col(Job.task_id))
        .where(col(Task.workflow_id) == workflow_id)
        .group_by(col(Attempt.state))
    )
    return {row[0]: row[1] for row in rows}
