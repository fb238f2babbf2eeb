"""Which programs can work with the schema."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

oldest_program = "0001"


def upgrade() -> None:
    table = op.create_table(
        "schema_info",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("oldest_program", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_schema_info"),
    )
    op.bulk_insert(table, [{"id": 1, "oldest_program": oldest_program}])
