"""Refusals of one rule are found by an index."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

oldest_program = "0008"


def upgrade() -> None:
    op.create_index("ix_refusal_rule_id", "refusal", ["rule_id", "id"])
