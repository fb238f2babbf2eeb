"""What time it is: how far the database's clock is off, by its last sample, and those of nodes."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

oldest_program = "0010"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("node", sa.Column("clock_off_s", sa.Float(), nullable=True))
    op.add_column("singleton", sa.Column("holder", sa.String(), nullable=True))
    table = op.create_table(
        "catalog_clock",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("skew_s", sa.Float(), nullable=False),
        sa.Column("wall_s", sa.Float(), nullable=False),
        sa.Column("boot_s", sa.Float(), nullable=False),
        sa.Column("boot", sa.String(), nullable=False),
        sa.Column("beats", BIG, nullable=False),
        sa.Column("waits_s", sa.Float(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("back_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("most_s", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_catalog_clock"),
    )
    op.bulk_insert(
        table,
        [
            {
                "id": 1, "skew_s": 0.0, "wall_s": 0.0, "boot_s": 0.0, "boot": "",
                "beats": 0, "waits_s": 0.0, "most_s": 0.0,
            }
        ],
    )  # fmt: skip
