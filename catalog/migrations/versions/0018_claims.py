"""Restores as rows, the beat of a catalog's claims, and when a finding was listed once more."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

oldest_program = "0010"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column(
        "catalog_info", sa.Column("beat", BIG, nullable=False, server_default=sa.text("'0'"))
    )
    op.add_column("finding", sa.Column("seen_at", TIME, nullable=True))
    # Restoring a backup of an earlier schema has made it already.
    if not sa.inspect(op.get_bind()).has_table("restore"):
        op.create_table(
            "restore",
            sa.Column("id", BIG, autoincrement=False, nullable=False),
            sa.Column("at", TIME, nullable=False),
            sa.Column("how", sa.String(), nullable=False),
            sa.Column("aside", sa.String(), nullable=True),
            sa.Column("accepted_at", TIME, nullable=True),
            sa.PrimaryKeyConstraint("id", name="pk_restore"),
        )
