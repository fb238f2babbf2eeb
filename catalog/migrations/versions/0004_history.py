"""History that can be pruned, and indexes whose use doesn't grow with the age of a catalog."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

oldest_program = "0001"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
TEXT = sa.String()
TIME = sa.DateTime(timezone=True)

BUSY = ("job", "attempt")
"""Tables whose every row is changed several times, and that history makes large."""


def upgrade() -> None:
    op.add_column("workflow", sa.Column("pruned_at", TIME, nullable=True))
    op.create_index("ix_workflow_unpruned", "workflow", ["ended_at"], **_rows("pruned_at IS NULL"))
    op.add_column("task", sa.Column("counts", JSON, nullable=True))
    op.add_column("task", sa.Column("used", JSON, nullable=True))
    op.create_index("ix_task_state", "task", ["state"])
    op.create_index("ix_pilot_state_ended_at", "pilot", ["state", "ended_at"])
    op.drop_index("ix_pilot_state", "pilot")
    op.create_index("ix_pilot_flow_run_id", "pilot", ["flow_run_id"])
    _jobs()
    if op.get_bind().dialect.name == "postgresql":
        _vacuum()
        _forgive()


def _jobs() -> None:
    op.create_table(
        "past_job",
        sa.Column("id", BIG, nullable=False, autoincrement=False),
        sa.Column("task_id", BIG, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("program", TEXT, nullable=True),
        sa.Column("tool_digest", TEXT, nullable=True),
        sa.Column("node", TEXT, nullable=True),
        sa.Column("ended_at", TIME, nullable=True),
        sa.ForeignKeyConstraint(["task_id"], ["task.id"], name="fk_past_job_task_id_task"),
        sa.PrimaryKeyConstraint("id", name="pk_past_job"),
        sa.UniqueConstraint("task_id", "key", name="uq_past_job_task_id_key"),
    )
    # What a job read and made outlives its row.
    for table in ("job_input", "job_output"):
        with op.batch_alter_table(table) as batch:
            batch.drop_constraint(f"fk_{table}_job_id_job", type_="foreignkey")
    op.create_index("ix_job_task_id_ordinal", "job", ["task_id", "ordinal"])
    op.create_index(
        "ix_job_open",
        "job",
        ["task_id", "state", "ordinal"],
        **_rows("state IN ('WAITING', 'READY', 'RUNNING', 'HELD')"),
    )
    op.drop_index("ix_job_lease", "job")
    op.drop_index("ix_job_unpassed", "job")
    op.create_index(
        "ix_job_unpassed",
        "job",
        ["task_id", "passed", "ordinal"],
        **_rows("NOT passed AND state IN ('FINISHED', 'SKIPPED')"),
    )
    op.create_index("ix_job_pilot_id", "job", ["pilot_id"], **_rows("pilot_id IS NOT NULL"))
    op.drop_index("ix_job_running", "job")


def _vacuum() -> None:
    """Let these tables be vacuumed by a hundredth of their rows, and their indexes always.

    By default that is a fifth: of 20 million jobs, the entries of four million that a lease would
    have to pass over in the index.
    """
    for table in BUSY:
        op.execute(
            f"ALTER TABLE {table} SET (autovacuum_vacuum_scale_factor = 0.01, "
            f"autovacuum_vacuum_threshold = 10000, autovacuum_analyze_scale_factor = 0.02, "
            f"autovacuum_analyze_threshold = 10000, vacuum_index_cleanup = on)"
        )


def _forgive() -> None:
    """Take nobody for lost whose heartbeat had to wait for this migration."""
    op.execute("UPDATE pilot SET beat_at = clock_timestamp() WHERE state IN ('ACTIVE', 'DRAINING')")
    op.execute(
        "UPDATE job SET lease_until = clock_timestamp() + interval '60 s' WHERE state = 'RUNNING'"
    )


def _rows(words: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(words), "postgresql_where": sa.text(words)}
