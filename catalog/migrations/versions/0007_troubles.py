"""What a service can't do for one item, where the item's owner looks."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

oldest_program = "0001"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TEXT = sa.String()
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "trouble",
        sa.Column("source", TEXT, nullable=False),
        sa.Column("entity", TEXT, nullable=False),
        sa.Column("entity_id", BIG, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("error", TEXT, nullable=False),
        sa.Column("since", TIME, nullable=False),
        sa.Column("seen_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("source", "entity", "entity_id", name="pk_trouble"),
    )
    op.create_index("ix_trouble_entity", "trouble", ["entity", "entity_id"])
