"""What a rule's look saw and didn't take, how its looks go, and rules with marker and count."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

oldest_program = "0001"

TEXT = sa.String()
TIME = sa.DateTime(timezone=True)
BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("intake_rule", sa.Column("either", sa.Boolean(), nullable=True))
    empty = sa.Column("close_empty", sa.Boolean(), nullable=False, server_default=sa.false())
    op.add_column("intake_rule", empty)
    op.create_table(
        "intake_look",
        sa.Column("rule_id", BIG, nullable=False, autoincrement=False),
        sa.Column("looked_at", TIME, nullable=True),
        sa.Column("files", BIG, nullable=False),
        sa.Column("refused", BIG, nullable=False),
        sa.Column("error", TEXT, nullable=True),
        sa.Column("error_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("rule_id", name="pk_intake_look"),
        _of("intake_look", "rule_id", "intake_rule"),
    )
    op.create_table(
        "refusal",
        sa.Column("id", BIG, nullable=False),
        sa.Column("rule_id", BIG, nullable=False),
        sa.Column("storage_id", BIG, nullable=False),
        sa.Column("dataset", TEXT, nullable=True),
        sa.Column("path", TEXT, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("size_bytes", BIG, nullable=True),
        sa.Column("mtime_us", BIG, nullable=True),
        sa.Column("found_at", TIME, nullable=False),
        sa.Column("settled_at", TIME, nullable=True),
        sa.Column("settled_by", sa.String(16), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_refusal"),
        _of("refusal", "rule_id", "intake_rule"),
        _of("refusal", "storage_id", "storage"),
    )
    op.create_index("ix_refusal_dataset", "refusal", ["dataset"])
    op.create_index(
        "uq_refusal_open",
        "refusal",
        ["rule_id", "path"],
        unique=True,
        **_rows("settled_at IS NULL"),
    )


def _of(table: str, column: str, other: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"{other}.id"], name=f"fk_{table}_{column}_{other}")


def _rows(words: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(words), "postgresql_where": sa.text(words)}
