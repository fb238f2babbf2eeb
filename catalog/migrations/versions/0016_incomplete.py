"""Why a dataset lacks what it should have, and that of what ended workflows have left OPEN."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

oldest_program = "0010"

TEXT = sa.String()

LEFT = """
UPDATE dataset SET incomplete = (
    SELECT 'workflow ' || workflow.id || ', which made it, is ' || workflow.state
    FROM task JOIN workflow ON workflow.id = task.workflow_id
    WHERE task.id = dataset.task_id
)
WHERE state = 'OPEN' AND task_id IN (
    SELECT task.id FROM task JOIN workflow ON workflow.id = task.workflow_id
    WHERE workflow.state IN ('FAILED', 'CANCELLED')
)
"""


def upgrade() -> None:
    op.add_column("dataset", sa.Column("incomplete", TEXT, nullable=True))
    op.execute(LEFT)
