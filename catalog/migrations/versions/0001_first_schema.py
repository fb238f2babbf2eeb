"""The first schema."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

oldest_program = "0001"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
TEXT = sa.String()
TIME = sa.DateTime(timezone=True)
WORD = sa.String(16)
"""A state, kept as its whole word."""


def upgrade() -> None:
    _data()
    _workflows()
    # A dataset names the task that makes it, whose workflow names a dataset: a circle.
    with op.batch_alter_table("dataset") as batch:
        batch.create_foreign_key("fk_dataset_task_id_task", "task", ["task_id"], ["id"])
    _jobs()
    _records()


def _data() -> None:
    op.create_table(
        "storage",
        sa.Column("id", BIG, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("kind", WORD, nullable=False),
        sa.Column("role", WORD, nullable=False),
        sa.Column("url", TEXT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_storage"),
        sa.UniqueConstraint("name", name="uq_storage_name"),
    )
    op.create_table(
        "dataset",
        sa.Column("id", BIG, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("state", WORD, nullable=False),
        sa.Column("derived", sa.Boolean(), nullable=False),
        sa.Column("task_id", BIG, nullable=True),
        sa.Column("port", TEXT, nullable=True),
        sa.Column("storage_id", BIG, nullable=True),
        sa.Column("next_position", BIG, nullable=False),
        sa.Column("file_count", BIG, nullable=True),
        sa.Column("size_bytes", BIG, nullable=True),
        sa.Column("digest", TEXT, nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("closed_at", TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["storage_id"], ["storage.id"], name="fk_dataset_storage_id_storage"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_dataset"),
        sa.UniqueConstraint("name", name="uq_dataset_name"),
    )
    op.create_index("ix_dataset_task_id", "dataset", ["task_id"])
    op.create_table(
        "file",
        sa.Column("id", BIG, nullable=False),
        sa.Column("scope", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("size_bytes", BIG, nullable=False),
        sa.Column("checksum", TEXT, nullable=False),
        sa.Column("primary_id", BIG, nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["primary_id"], ["file.id"], name="fk_file_primary_id_file"),
        sa.PrimaryKeyConstraint("id", name="pk_file"),
        sa.UniqueConstraint("scope", "name", name="uq_file_scope_name"),
    )
    op.create_index("ix_file_primary_id", "file", ["primary_id"])
    op.create_table(
        "replica",
        sa.Column("id", BIG, nullable=False),
        sa.Column("file_id", BIG, nullable=False),
        sa.Column("storage_id", BIG, nullable=False),
        sa.Column("path", TEXT, nullable=False),
        sa.Column("state", WORD, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["file_id"], ["file.id"], name="fk_replica_file_id_file"),
        sa.ForeignKeyConstraint(
            ["storage_id"], ["storage.id"], name="fk_replica_storage_id_storage"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_replica"),
        sa.UniqueConstraint("storage_id", "path", name="uq_replica_storage_id_path"),
    )
    op.create_index("ix_replica_file_id", "replica", ["file_id"])
    op.create_table(
        "dataset_file",
        sa.Column("dataset_id", BIG, nullable=False),
        sa.Column("file_id", BIG, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("position", BIG, nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["dataset.id"], name="fk_dataset_file_dataset_id_dataset"
        ),
        sa.ForeignKeyConstraint(["file_id"], ["file.id"], name="fk_dataset_file_file_id_file"),
        sa.PrimaryKeyConstraint("dataset_id", "file_id", name="pk_dataset_file"),
        sa.UniqueConstraint("dataset_id", "name", name="uq_dataset_file_dataset_id_name"),
    )
    op.create_index("ix_dataset_file_file_id", "dataset_file", ["file_id"])
    op.create_index("ix_dataset_file_order", "dataset_file", ["dataset_id", "position", "name"])


def _workflows() -> None:
    op.create_table(
        "template",
        sa.Column("id", BIG, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("state", WORD, nullable=False),
        sa.Column("mask", TEXT, nullable=False),
        sa.Column("derived", sa.Boolean(), nullable=False),
        sa.Column("document", JSON, nullable=False),
        sa.Column("plan", JSON, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_template"),
        sa.UniqueConstraint("name", "version", name="uq_template_name_version"),
    )
    op.create_table(
        "workflow",
        sa.Column("id", BIG, nullable=False),
        sa.Column("template_id", BIG, nullable=False),
        sa.Column("dataset_id", BIG, nullable=False),
        sa.Column("inputs", JSON, nullable=False),
        sa.Column("inputs_digest", TEXT, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("again", sa.Boolean(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("state", WORD, nullable=False),
        sa.Column("reason", TEXT, nullable=True),
        sa.Column("owner", TEXT, nullable=True),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("lease_until", TIME, nullable=True),
        sa.Column("flow_run_id", TEXT, nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("started_at", TIME, nullable=True),
        sa.Column("ended_at", TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["dataset.id"], name="fk_workflow_dataset_id_dataset"
        ),
        sa.ForeignKeyConstraint(
            ["template_id"], ["template.id"], name="fk_workflow_template_id_template"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_workflow"),
        sa.UniqueConstraint(
            "template_id", "dataset_id", "number", name="uq_workflow_template_id_dataset_id_number"
        ),
    )
    op.create_index("ix_workflow_dataset_id", "workflow", ["dataset_id"])
    op.create_index("ix_workflow_flow_run_id", "workflow", ["flow_run_id"])
    op.create_index("ix_workflow_state", "workflow", ["state"])
    op.create_index(
        "uq_workflow_once",
        "workflow",
        ["template_id", "dataset_id", "inputs_digest"],
        unique=True,
        sqlite_where=sa.text("state <> 'CANCELLED' AND NOT again"),
        postgresql_where=sa.text("state <> 'CANCELLED' AND NOT again"),
    )
    op.create_table(
        "task",
        sa.Column("id", BIG, nullable=False),
        sa.Column("workflow_id", BIG, nullable=False),
        sa.Column("stage", TEXT, nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("pool", TEXT, nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("state", WORD, nullable=False),
        sa.Column("reason", TEXT, nullable=True),
        sa.Column("roots_defined", BIG, nullable=False),
        sa.Column("cursor", BIG, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("started_at", TIME, nullable=True),
        sa.Column("ended_at", TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["workflow_id"], ["workflow.id"], name="fk_task_workflow_id_workflow"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_task"),
        sa.UniqueConstraint("workflow_id", "stage", name="uq_task_workflow_id_stage"),
    )


def _jobs() -> None:
    op.create_table(
        "pilot",
        sa.Column("id", BIG, nullable=False),
        sa.Column("task_id", BIG, nullable=False),
        sa.Column("pool", TEXT, nullable=False),
        sa.Column("state", WORD, nullable=False),
        sa.Column("reason", TEXT, nullable=True),
        sa.Column("node", TEXT, nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("flow_run_id", TEXT, nullable=True),
        sa.Column("jobs_done", sa.Integer(), nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("beat_at", TIME, nullable=False),
        sa.Column("ended_at", TIME, nullable=True),
        sa.ForeignKeyConstraint(["task_id"], ["task.id"], name="fk_pilot_task_id_task"),
        sa.PrimaryKeyConstraint("id", name="pk_pilot"),
    )
    op.create_index("ix_pilot_state", "pilot", ["state"])
    op.create_index("ix_pilot_task_id", "pilot", ["task_id"])
    op.create_table(
        "job",
        sa.Column("id", BIG, nullable=False),
        sa.Column("task_id", BIG, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("ordinal", BIG, nullable=False),
        sa.Column("state", WORD, nullable=False),
        sa.Column("reason", TEXT, nullable=True),
        sa.Column("error", TEXT, nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("values", JSON, nullable=True),
        sa.Column("outputs", JSON, nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("losses", sa.Integer(), nullable=False),
        sa.Column("not_before", TIME, nullable=True),
        sa.Column("pilot_id", BIG, nullable=True),
        sa.Column("lease_until", TIME, nullable=True),
        sa.Column("passed", sa.Boolean(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("ended_at", TIME, nullable=True),
        sa.ForeignKeyConstraint(["pilot_id"], ["pilot.id"], name="fk_job_pilot_id_pilot"),
        sa.ForeignKeyConstraint(["task_id"], ["task.id"], name="fk_job_task_id_task"),
        sa.PrimaryKeyConstraint("id", name="pk_job"),
        sa.UniqueConstraint("task_id", "key", name="uq_job_task_id_key"),
    )
    op.create_index("ix_job_lease", "job", ["task_id", "state", "ordinal"])
    op.create_index(
        "ix_job_running",
        "job",
        ["pilot_id"],
        sqlite_where=sa.text("state = 'RUNNING'"),
        postgresql_where=sa.text("state = 'RUNNING'"),
    )
    op.create_index(
        "ix_job_unpassed",
        "job",
        ["task_id", "ordinal"],
        sqlite_where=sa.text("NOT passed AND state IN ('FINISHED', 'SKIPPED')"),
        postgresql_where=sa.text("NOT passed AND state IN ('FINISHED', 'SKIPPED')"),
    )
    op.create_table(
        "attempt",
        sa.Column("id", BIG, nullable=False),
        sa.Column("job_id", BIG, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("pilot_id", BIG, nullable=False),
        sa.Column("state", WORD, nullable=False),
        sa.Column("phase", WORD, nullable=True),
        sa.Column("error", TEXT, nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("message", TEXT, nullable=True),
        sa.Column("log_tail", TEXT, nullable=True),
        sa.Column("log_file_id", BIG, nullable=True),
        sa.Column("tool_digest", TEXT, nullable=True),
        sa.Column("program", TEXT, nullable=True),
        sa.Column("node", TEXT, nullable=True),
        sa.Column("wall_s", sa.Float(), nullable=True),
        sa.Column("cpu_s", sa.Float(), nullable=True),
        sa.Column("peak_rss_bytes", BIG, nullable=True),
        sa.Column("bytes_in", BIG, nullable=True),
        sa.Column("bytes_out", BIG, nullable=True),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("ended_at", TIME, nullable=True),
        sa.Column("shown", sa.Boolean(), nullable=False),
        sa.Column("shown_state", TEXT, nullable=True),
        sa.Column("shown_try", sa.Integer(), nullable=False),
        sa.Column("shown_at", TIME, nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_attempt_job_id_job"),
        sa.ForeignKeyConstraint(["log_file_id"], ["file.id"], name="fk_attempt_log_file_id_file"),
        sa.ForeignKeyConstraint(["pilot_id"], ["pilot.id"], name="fk_attempt_pilot_id_pilot"),
        sa.PrimaryKeyConstraint("id", name="pk_attempt"),
        sa.UniqueConstraint("job_id", "number", name="uq_attempt_job_id_number"),
    )
    op.create_index("ix_attempt_pilot_id", "attempt", ["pilot_id"])
    op.create_index(
        "ix_attempt_unshown",
        "attempt",
        ["id"],
        sqlite_where=sa.text("NOT shown"),
        postgresql_where=sa.text("NOT shown"),
    )
    op.create_table(
        "job_input",
        sa.Column("job_id", BIG, nullable=False),
        sa.Column("port", TEXT, nullable=False),
        sa.Column("position", BIG, nullable=False),
        sa.Column("file_id", BIG, nullable=False),
        sa.Column("task_id", BIG, nullable=False),
        sa.ForeignKeyConstraint(["file_id"], ["file.id"], name="fk_job_input_file_id_file"),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_job_input_job_id_job"),
        sa.ForeignKeyConstraint(["task_id"], ["task.id"], name="fk_job_input_task_id_task"),
        sa.PrimaryKeyConstraint("job_id", "port", "position", name="pk_job_input"),
        sa.UniqueConstraint("task_id", "port", "file_id", name="uq_job_input_task_id_port_file_id"),
    )
    op.create_index("ix_job_input_file_id", "job_input", ["file_id"])
    op.create_table(
        "job_output",
        sa.Column("job_id", BIG, nullable=False),
        sa.Column("port", TEXT, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("file_id", BIG, nullable=False),
        sa.ForeignKeyConstraint(["file_id"], ["file.id"], name="fk_job_output_file_id_file"),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_job_output_job_id_job"),
        sa.PrimaryKeyConstraint("job_id", "port", "position", name="pk_job_output"),
    )
    op.create_index("ix_job_output_file_id", "job_output", ["file_id"])


def _records() -> None:
    op.create_table(
        "request",
        sa.Column("id", BIG, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("payload", JSON, nullable=False),
        sa.Column("state", WORD, nullable=False),
        sa.Column("reply", JSON, nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("ended_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_request"),
        sa.UniqueConstraint("key", name="uq_request_key"),
    )
    op.create_index("ix_request_state", "request", ["state"])
    op.create_table(
        "event",
        sa.Column("id", BIG, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("entity", TEXT, nullable=False),
        sa.Column("entity_id", BIG, nullable=False),
        sa.Column("before", TEXT, nullable=True),
        sa.Column("after", TEXT, nullable=False),
        sa.Column("message", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_event"),
    )
    op.create_index("ix_event_entity", "event", ["entity", "entity_id"])
    op.create_table(
        "singleton",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("owner", TEXT, nullable=True),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("lease_until", TIME, nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_singleton"),
    )
