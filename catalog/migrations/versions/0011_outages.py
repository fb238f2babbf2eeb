"""Outages of storages and nodes: who needs them waits, and no job pays for it."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

oldest_program = "0010"

TEXT = sa.String()
TIME = sa.DateTime(timezone=True)
BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "outage",
        sa.Column("id", BIG, nullable=False),
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("storage_id", BIG, nullable=True),
        sa.Column("task_id", BIG, nullable=True),
        sa.Column("node", TEXT, nullable=False),
        sa.Column("code", TEXT, nullable=False),
        sa.Column("message", TEXT, nullable=False),
        sa.Column("writing", sa.Boolean(), nullable=False),
        sa.Column("needed_bytes", BIG, nullable=False),
        sa.Column("wait_s", sa.Float(), nullable=False),
        sa.Column("since", TIME, nullable=False),
        sa.Column("met_at", TIME, nullable=False),
        sa.Column("next_at", TIME, nullable=False),
        sa.Column("ended_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_outage"),
        sa.ForeignKeyConstraint(
            ["storage_id"], ["storage.id"], name="fk_outage_storage_id_storage"
        ),
        sa.ForeignKeyConstraint(["task_id"], ["task.id"], name="fk_outage_task_id_task"),
        sa.UniqueConstraint("subject", name="uq_outage_subject"),
    )
    op.create_index("ix_outage_open", "outage", ["node"], **_rows("ended_at IS NULL"))
    op.create_table(
        "outage_reader",
        sa.Column("outage_id", BIG, nullable=False),
        sa.Column("task_id", BIG, nullable=False),
        sa.PrimaryKeyConstraint("outage_id", "task_id", name="pk_outage_reader"),
        sa.ForeignKeyConstraint(
            ["outage_id"], ["outage.id"], name="fk_outage_reader_outage_id_outage"
        ),
        sa.ForeignKeyConstraint(["task_id"], ["task.id"], name="fk_outage_reader_task_id_task"),
    )


def _rows(words: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(words), "postgresql_where": sa.text(words)}
