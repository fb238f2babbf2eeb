"""What removal needs: whose bytes copies are, grace, what was detached, and why bytes stay."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

oldest_program = "0008"

TEXT = sa.String()
TIME = sa.DateTime(timezone=True)
BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    # NULL in the rows that are there, and in those of programs that don't know it: see `originals`.
    op.add_column("replica", sa.Column("in_place", sa.Boolean(), nullable=True))
    op.add_column("dataset", sa.Column("deleting_at", TIME, nullable=True))
    op.add_column("dataset", sa.Column("grace_until", TIME, nullable=True))
    op.add_column("dataset", sa.Column("originals", sa.String(16), nullable=True))
    words = sa.text("state = 'DELETING' AND grace_until IS NOT NULL")
    where: dict[str, Any] = {"sqlite_where": words, "postgresql_where": words}
    op.create_index("ix_dataset_grace", "dataset", ["grace_until"], **where)
    detached = sa.Column("detached", BIG, nullable=False, server_default=sa.text("'0'"))
    op.add_column("inspection", detached)
    op.create_table(
        "detached",
        sa.Column("id", BIG, nullable=False),
        sa.Column("storage_id", BIG, nullable=False),
        sa.Column("path", TEXT, nullable=False),
        sa.Column("size_bytes", BIG, nullable=False),
        sa.Column("mtime_us", BIG, nullable=False),
        sa.Column("replica_id", BIG, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_detached"),
        sa.UniqueConstraint("storage_id", "path", name="uq_detached_storage_id_path"),
        _of("detached", "storage_id", "storage"),
        _of("detached", "replica_id", "replica"),
    )
    op.create_table(
        "deletion_fault",
        sa.Column("id", BIG, nullable=False),
        sa.Column("dataset_id", BIG, nullable=False),
        sa.Column("storage_id", BIG, nullable=True),
        sa.Column("files", BIG, nullable=False),
        sa.Column("path", TEXT, nullable=True),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("since", TIME, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_deletion_fault"),
        _of("deletion_fault", "dataset_id", "dataset"),
        _of("deletion_fault", "storage_id", "storage"),
    )
    op.create_index("ix_deletion_fault_dataset_id", "deletion_fault", ["dataset_id"])


def _of(table: str, column: str, other: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"{other}.id"], name=f"fk_{table}_{column}_{other}")
