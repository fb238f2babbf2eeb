"""When a copy's bytes were written, as they were read or registered."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

oldest_program = "0010"

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("replica", sa.Column("mtime_us", BIG, nullable=True))
