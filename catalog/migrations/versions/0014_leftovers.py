"""Files that stay when a dataset of the intake is deleted aren't taken for its name again."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

oldest_program = "0010"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "leftover",
        sa.Column("id", BIG, nullable=False),
        sa.Column("storage_id", BIG, nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("dataset", sa.String(), nullable=False),
        sa.Column("size_bytes", BIG, nullable=False),
        sa.Column("mtime_us", BIG, nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_leftover"),
        sa.UniqueConstraint(
            "storage_id", "path", "dataset", name="uq_leftover_storage_id_path_dataset"
        ),
        sa.ForeignKeyConstraint(
            ["storage_id"], ["storage.id"], name="fk_leftover_storage_id_storage"
        ),
    )
    op.create_index("ix_leftover_dataset", "leftover", ["dataset"])
