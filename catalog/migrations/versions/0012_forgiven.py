"""What a job had behind it when it was released counts no more."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

oldest_program = "0010"


def upgrade() -> None:
    op.add_column("job", sa.Column("forgiven", sa.Integer(), nullable=True))
