"""Tables of work: templates, what they become, and what runs it."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from catalog.columns import (
    BigInt,
    Json,
    added,
    created,
    moment,
    reference,
    row_id,
    rows_where,
    state_word,
)
from catalog.refs import Retention
from catalog.states import (
    AttemptState,
    JobState,
    NodeState,
    Phase,
    PilotState,
    TaskState,
    TemplateState,
    WorkflowState,
)

_OPEN = "state IN ('WAITING', 'READY', 'RUNNING', 'HELD')"


def is_open(name: str) -> sa.TextClause:
    """`IS_OPEN` where the table of jobs has another name in a query."""
    return sa.text(f"{name}.{_OPEN}")


IS_OPEN = is_open("job")
"""Condition of jobs that have not ended. Queries say it in these words beside their own, so that
every database sees, whatever their parameters, that the partial index has all they ask for."""

IS_UNPASSED = sa.text("NOT job.passed AND job.state IN ('FINISHED', 'SKIPPED')")
"""Condition of jobs whose followers are to be defined; as `IS_OPEN`."""


class Template(SQLModel, table=True):
    """A packed CWL workflow, its compiled plan, and the datasets that it is for."""

    __table_args__ = (sa.UniqueConstraint("name", "version"),)

    id: int = row_id()
    name: str
    version: int
    state: TemplateState = Field(default=TemplateState.DRAFT, sa_type=state_word(TemplateState))
    mask: str = Field(description="Glob over dataset names.")
    derived: bool = Field(default=False, description="Matches datasets made by workflows too.")
    document: dict[str, Any] = Field(sa_type=Json)
    plan: dict[str, Any] = Field(sa_type=Json)
    digest: str
    auto: bool = added(False, description="Its workflows begin by themselves.")
    intermediate: Retention = added(
        Retention.KEEP,
        sa_type=state_word(Retention),
        description="How long the files between its stages are kept.",
    )
    precedence: int = added(0, description="Where several match a dataset, the highest wins.")
    created_at: datetime = created()
    activated_at: datetime | None = moment()


class Workflow(SQLModel, table=True):
    """One template applied to one input dataset."""

    __table_args__ = (
        sa.UniqueConstraint("template_id", "dataset_id", "number"),
        sa.Index(
            "uq_workflow_once",
            "template_id",
            "dataset_id",
            "inputs_digest",
            unique=True,
            **rows_where("state <> 'CANCELLED' AND NOT again"),
        ),
        sa.Index("ix_workflow_unpruned", "ended_at", **rows_where("pruned_at IS NULL")),
    )

    id: int = row_id()
    template_id: int = reference("template.id")
    dataset_id: int = reference("dataset.id", index=True)
    inputs: dict[str, Any] = Field(sa_type=Json, description="Fixed inputs; Files by file_id.")
    inputs_digest: str
    number: int = Field(default=1, description="The N of `.rN` in output names; 1 shows nothing.")
    again: bool = Field(default=False)
    rank: int = Field(default=0)
    state: WorkflowState = Field(
        default=WorkflowState.DEFINED, sa_type=state_word(WorkflowState), index=True
    )
    reason: str | None = None
    owner: str | None = Field(default=None, description="The run that advances it.")
    epoch: int = Field(default=0, description="Grows with every new owner; fences the old one.")
    lease_until: datetime | None = moment()
    flow_run_id: str | None = Field(default=None, index=True)
    created_at: datetime = created()
    started_at: datetime | None = moment()
    ended_at: datetime | None = moment()
    pruned_at: datetime | None = moment()


class Task(SQLModel, table=True):
    """One stage of a workflow over its input datasets."""

    __table_args__ = (sa.UniqueConstraint("workflow_id", "stage"),)

    id: int = row_id()
    workflow_id: int = reference("workflow.id")
    stage: str
    ordinal: int = Field(description="Position in the plan, from 0.")
    pool: str = Field(description="`cpu` or `gpu`.")
    rank: int = Field(default=0)
    state: TaskState = Field(default=TaskState.DEFINED, sa_type=state_word(TaskState), index=True)
    reason: str | None = None
    roots_defined: int = Field(
        default=0, sa_type=BigInt, description="Jobs (or groups) that the advancer has defined."
    )
    cursor: int = Field(
        default=-1, sa_type=BigInt, description="Last position of the source that was consumed."
    )
    counts: dict[str, int] | None = Field(
        default=None, sa_type=Json, description="Its jobs by state, once none changes any more."
    )
    used: dict[str, Any] | None = Field(
        default=None, sa_type=Json, description="What its attempts used, before they were pruned."
    )
    created_at: datetime = created()
    started_at: datetime | None = moment()
    ended_at: datetime | None = moment()


class Job(SQLModel, table=True):
    """One file (or group) of a task: the unit of work."""

    __table_args__ = (
        sa.UniqueConstraint("task_id", "key"),
        sa.Index("ix_job_task_id_ordinal", "task_id", "ordinal"),
        sa.Index(
            "ix_job_open",
            "task_id",
            "state",
            "ordinal",
            **rows_where(_OPEN),
        ),
        sa.Index(
            "ix_job_unpassed",
            "task_id",
            "passed",
            "ordinal",
            **rows_where("NOT passed AND state IN ('FINISHED', 'SKIPPED')"),
        ),
        sa.Index("ix_job_pilot_id", "pilot_id", **rows_where("pilot_id IS NOT NULL")),
    )

    id: int = row_id()
    task_id: int = reference("task.id")
    key: str
    ordinal: int = Field(sa_type=BigInt, description="Position of the key among its roots, from 0.")
    state: JobState = Field(default=JobState.READY, sa_type=state_word(JobState))
    reason: str | None = None
    error: str | None = Field(default=None, description="An ErrorCode.")
    exit_code: int | None = None
    values: dict[str, Any] | None = Field(
        default=None, sa_type=Json, description="Non-file inputs of this key, by port."
    )
    outputs: dict[str, Any] | None = Field(
        default=None, sa_type=Json, description="Non-file outputs, by port."
    )
    attempt: int = Field(default=0, description="Number of the last attempt; fences completion.")
    failures: int = Field(default=0, description="Attempts that count against `retry`.")
    losses: int = Field(default=0, description="Attempts LOST while in their payload.")
    forgiven: int | None = Field(
        default=None, description="Attempts that count no more: those up to the last release."
    )
    not_before: datetime | None = moment()
    pilot_id: int | None = reference("pilot.id", null=True)
    lease_until: datetime | None = moment()
    passed: bool = Field(default=False, description="What follows it has been defined.")
    created_at: datetime = created()
    ended_at: datetime | None = moment()


class Attempt(SQLModel, table=True):
    """One try of a job: kept as the job's history, shown in Prefect by the recorder."""

    __table_args__ = (
        sa.UniqueConstraint("job_id", "number"),
        sa.Index("ix_attempt_unshown", "id", **rows_where("NOT shown")),
    )

    id: int = row_id()
    job_id: int = reference("job.id")
    number: int
    pilot_id: int = reference("pilot.id", index=True)
    state: AttemptState = Field(default=AttemptState.RUNNING, sa_type=state_word(AttemptState))
    phase: Phase | None = Field(default=None, sa_type=state_word(Phase), nullable=True)
    error: str | None = Field(default=None, description="An ErrorCode.")
    exit_code: int | None = None
    message: str | None = None
    log_tail: str | None = None
    log_file_id: int | None = reference("file.id", null=True)
    tool_digest: str | None = None
    program: str | None = Field(default=None, description="Version of spdf.")
    node: str | None = None
    wall_s: float | None = None
    cpu_s: float | None = None
    peak_rss_bytes: int | None = Field(default=None, sa_type=BigInt)
    bytes_in: int | None = Field(default=None, sa_type=BigInt)
    bytes_out: int | None = Field(default=None, sa_type=BigInt)
    started_at: datetime = created()
    ended_at: datetime | None = moment()
    shown: bool = Field(default=False, description="Prefect was read back to show the end.")
    shown_state: str | None = Field(default=None, description="Last state posted to Prefect.")
    shown_try: int = Field(default=0)
    shown_at: datetime | None = moment()


class PastJob(SQLModel, table=True):
    """What is kept of a job whose history was pruned: enough to say how its files were made."""

    __tablename__ = "past_job"
    __table_args__ = (sa.UniqueConstraint("task_id", "key"),)

    id: int = Field(primary_key=True, sa_type=BigInt, sa_column_kwargs={"autoincrement": False})
    task_id: int = reference("task.id")
    key: str
    state: JobState = Field(sa_type=state_word(JobState))
    attempt: int = Field(description="Number of its last attempt.")
    program: str | None = Field(default=None, description="Version of spdf that ran it.")
    tool_digest: str | None = None
    node: str | None = None
    ended_at: datetime | None = moment()


class JobInput(SQLModel, table=True):
    """Files that a job reads or, once it is a `PastJob`, has read."""

    __tablename__ = "job_input"
    __table_args__ = (sa.UniqueConstraint("task_id", "port", "file_id"),)

    job_id: int = Field(primary_key=True, sa_type=BigInt)
    port: str = Field(primary_key=True)
    position: int = Field(primary_key=True, sa_type=BigInt)
    file_id: int = reference("file.id", index=True)
    task_id: int = reference("task.id")


class JobOutput(SQLModel, table=True):
    """Files that a job (or `PastJob`) made; `position` orders the files of one port."""

    __tablename__ = "job_output"

    job_id: int = Field(primary_key=True, sa_type=BigInt)
    port: str = Field(primary_key=True)
    position: int = Field(primary_key=True)
    file_id: int = reference("file.id", index=True)


class Pilot(SQLModel, table=True):
    """A process on a compute node that leases jobs of one task and maps them."""

    __table_args__ = (sa.Index("ix_pilot_state_ended_at", "state", "ended_at"),)

    id: int = row_id()
    task_id: int = reference("task.id", index=True)
    pool: str
    state: PilotState = Field(default=PilotState.ACTIVE, sa_type=state_word(PilotState))
    reason: str | None = None
    node: str
    pid: int
    slots: int
    flow_run_id: str | None = Field(default=None, index=True)
    jobs_done: int = Field(default=0)
    started_at: datetime = created()
    beat_at: datetime = created()
    ended_at: datetime | None = moment()


class Node(SQLModel, table=True):
    """A compute node, as its worker for one pool announced it."""

    __table_args__ = (sa.UniqueConstraint("name", "pool"),)

    id: int = row_id()
    name: str
    pool: str
    state: NodeState = Field(default=NodeState.ONLINE, sa_type=state_word(NodeState))
    reason: str | None = None
    pid: int = Field(description="The worker's process.")
    slots: int
    memory_mib: int = Field(sa_type=BigInt)
    devices: list[dict[str, Any]] = Field(
        sa_type=Json, description="number, name, uuid, memory_mib"
    )
    engine: str | None = Field(default=None, description="`docker` or `podman`.")
    program: str = Field(description="Version of spdf.")
    started_at: datetime = created()
    beat_at: datetime = created()
    ended_at: datetime | None = moment()
    clock_off_s: float | None = Field(
        default=None, description="How far its clock was ahead of the database's at the last beat."
    )


class Outage(SQLModel, table=True):
    """A storage, a node, or what a node lacks for a task: who needs it isn't leased any job.

    `node` is the node that sees it so; empty: all do. `ended_at` is set when a look finds it well;
    one that comes back soon is looked at as seldom as before.
    """

    __table_args__ = (
        sa.UniqueConstraint("subject"),
        sa.Index("ix_outage_open", "node", **rows_where("ended_at IS NULL")),
    )

    id: int = row_id()
    subject: str = Field(description="What it is of, in one word: there is one row for each.")
    storage_id: int | None = reference("storage.id", null=True)
    task_id: int | None = reference("task.id", null=True)
    node: str
    code: str = Field(description="An ErrorCode.")
    message: str
    writing: bool = Field(description="A look must write: it was met by who wrote.")
    needed_bytes: int = Field(default=0, sa_type=BigInt, description="Room that was not there.")
    wait_s: float = Field(description="From one look to the next.")
    since: datetime = created()
    met_at: datetime = created()
    next_at: datetime = created()
    ended_at: datetime | None = moment()


class OutageReader(SQLModel, table=True):
    """A task that was found to read from a storage while it is out."""

    __tablename__ = "outage_reader"

    outage_id: int = Field(foreign_key="outage.id", primary_key=True, sa_type=BigInt)
    task_id: int = Field(foreign_key="task.id", primary_key=True, sa_type=BigInt)
