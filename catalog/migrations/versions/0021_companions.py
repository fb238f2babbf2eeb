"""A file may accompany several: one index that belongs to two files of an output."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0015"
branch_labels = None
depends_on = None

oldest_program = "0010"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "companion",
        sa.Column("file_id", BIG, nullable=False),
        sa.Column("primary_id", BIG, nullable=False),
        sa.PrimaryKeyConstraint("file_id", "primary_id", name="pk_companion"),
        sa.ForeignKeyConstraint(["file_id"], ["file.id"], name="fk_companion_file_id_file"),
        sa.ForeignKeyConstraint(["primary_id"], ["file.id"], name="fk_companion_primary_id_file"),
    )
    op.create_index("ix_companion_primary_id", "companion", ["primary_id"])
