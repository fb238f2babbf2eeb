"""${message}"""

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None

oldest_program = ""
"""The oldest program that can work with this schema: see docs/adr/0006-expand-then-contract.md."""


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}
