"""Storages know themselves again by a marker, and the catalog has an id to claim them with."""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

oldest_program = "0010"


def upgrade() -> None:
    op.add_column("storage", sa.Column("identity", sa.String(), nullable=True))
    op.add_column("storage", sa.Column("marked_at", sa.DateTime(timezone=True), nullable=True))
    table = op.create_table(
        "catalog_info",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("catalog", sa.String(), nullable=False),
        sa.Column("instance", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_catalog_info"),
    )
    op.bulk_insert(
        table, [{"id": 1, "catalog": secrets.token_hex(16), "instance": secrets.token_hex(16)}]
    )
