"""Datasets that are filled from outside have sources, which end one by one."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

oldest_program = "0010"

TEXT = sa.String()
TIME = sa.DateTime(timezone=True)
BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# OPEN datasets have the rule for a source that made them, be it removed by now, if it has an end.
STANDING = """
INSERT INTO source (dataset_id, rule_id, files, created_at)
SELECT dataset.id, dataset.rule_id,
    (SELECT count(*) FROM dataset_file WHERE dataset_file.dataset_id = dataset.id),
    dataset.created_at
FROM dataset JOIN intake_rule ON intake_rule.id = dataset.rule_id
WHERE dataset.state = 'OPEN' AND (
    intake_rule.end_pattern IS NOT NULL
    OR intake_rule.close_count IS NOT NULL
    OR intake_rule.quiet_s IS NOT NULL
)
"""


def upgrade() -> None:
    op.add_column("intake_rule", _added("version", sa.Integer(), sa.text("'1'")))
    op.add_column("intake_rule", _added("end_for_all", sa.Boolean(), sa.false()))
    op.add_column("intake_rule", sa.Column("refused_after_s", sa.Float(), nullable=True))
    op.add_column("intake_rule", _added("with_storage", sa.Boolean(), sa.false()))
    op.create_table(
        "source",
        sa.Column("id", BIG, nullable=False),
        sa.Column("dataset_id", BIG, nullable=False),
        sa.Column("rule_id", BIG, nullable=True),
        sa.Column("sender", TEXT, nullable=True),
        _added("files", BIG, sa.text("'0'")),
        _added("late", BIG, sa.text("'0'")),
        _added("quiet_for_s", sa.Float(), sa.text("'0'")),
        sa.Column("expects", BIG, nullable=True),
        sa.Column("until", TIME, nullable=True),
        _added("told", sa.Boolean(), sa.false()),
        sa.Column("ended_by", sa.String(16), nullable=True),
        sa.Column("ended_at", TIME, nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_source"),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["dataset.id"], name="fk_source_dataset_id_dataset"
        ),
        sa.ForeignKeyConstraint(
            ["rule_id"], ["intake_rule.id"], name="fk_source_rule_id_intake_rule"
        ),
        sa.UniqueConstraint("dataset_id", "rule_id", name="uq_source_dataset_id_rule_id"),
        sa.UniqueConstraint("dataset_id", "sender", name="uq_source_dataset_id_sender"),
        # An id stands in events and answers: none is used again.
        sqlite_autoincrement=True,
    )
    op.create_index("ix_source_rule_id", "source", ["rule_id"], **_rows("ended_by IS NULL"))
    op.create_index(
        "ix_refusal_dismissed", "refusal", ["rule_id"], **_rows("settled_by = 'DISMISSED'")
    )
    op.execute(STANDING)


def _added(name: str, kind: Any, default: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False, server_default=default)


def _rows(words: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(words), "postgresql_where": sa.text(words)}
