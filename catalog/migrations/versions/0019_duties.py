"""What is to be done with a dataset before it may go by itself."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0019"
down_revision = "0017"
branch_labels = None
depends_on = None

oldest_program = "0010"

TEXT = sa.String()
TIME = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
UNDONE = sa.text("state = 'CLOSED' AND lifetime_s IS NOT NULL AND expires_at IS NULL")

# Who began a workflow wasn't noted: those of templates whose workflows begin by themselves count.
STANDING = """
INSERT INTO duty (dataset_id, template, created_at)
SELECT DISTINCT dataset.id, template.name, dataset.created_at
FROM workflow
JOIN template ON template.id = workflow.template_id
JOIN dataset ON dataset.id = workflow.dataset_id
WHERE template.auto AND dataset.state IN ('OPEN', 'CLOSED')
"""


def upgrade() -> None:
    op.add_column("intake_rule", sa.Column("unmatched", sa.String(16), nullable=True))
    op.add_column("intake_rule", sa.Column("until", JSON, nullable=True))
    op.add_column("intake_rule", sa.Column("shed_percent", sa.Integer(), nullable=True))
    op.add_column("dataset", sa.Column("released_at", TIME, nullable=True))
    # Without a constraint, which SQLite can't add to a table that is there.
    op.add_column("dataset", sa.Column("parted_from", BIG, nullable=True))
    op.create_index(
        "ix_dataset_undone", "dataset", ["id"], sqlite_where=UNDONE, postgresql_where=UNDONE
    )
    op.create_table(
        "duty",
        sa.Column("id", BIG, nullable=False),
        sa.Column("dataset_id", BIG, nullable=False),
        sa.Column("template", TEXT, nullable=False),
        sa.Column("rule_id", BIG, nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_duty"),
        sa.ForeignKeyConstraint(["dataset_id"], ["dataset.id"], name="fk_duty_dataset_id_dataset"),
        sa.ForeignKeyConstraint(
            ["rule_id"], ["intake_rule.id"], name="fk_duty_rule_id_intake_rule"
        ),
        sa.UniqueConstraint("dataset_id", "template", name="uq_duty_dataset_id_template"),
    )
    op.execute(STANDING)
