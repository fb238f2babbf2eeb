"""What data management needs: requests in lanes, usage of storages, datasets that expire."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

oldest_program = "0001"

TEXT = sa.String()
TIME = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _requests()
    _intake()
    _datasets()
    _storages()
    _uploads()
    _inspections()


def _requests() -> None:
    op.add_column("request", sa.Column("lane", TEXT, nullable=False, server_default=sa.text("''")))
    op.add_column(
        "request", sa.Column("files", sa.Integer(), nullable=False, server_default=sa.text("'0'"))
    )
    op.add_column("request", sa.Column("begun_at", TIME, nullable=True))
    op.create_index("ix_request_state_id", "request", ["state", "id"])
    op.drop_index("ix_request_state", "request")
    op.create_index(
        "ix_request_begun",
        "request",
        ["lane"],
        **_rows("state = 'QUEUED' AND begun_at IS NOT NULL"),
    )


def _intake() -> None:
    op.create_table(
        "intake_rule",
        sa.Column("id", BIG, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("storage_id", BIG, nullable=False),
        sa.Column("prefix", TEXT, nullable=False),
        sa.Column("pattern", TEXT, nullable=False),
        sa.Column("dataset", TEXT, nullable=False),
        sa.Column("end_pattern", TEXT, nullable=True),
        sa.Column("close_count", BIG, nullable=True),
        sa.Column("quiet_s", sa.Float(), nullable=True),
        sa.Column("stable_s", sa.Float(), nullable=False),
        sa.Column("lifetime_s", sa.Float(), nullable=True),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_intake_rule"),
        sa.UniqueConstraint("name", name="uq_intake_rule_name"),
        _of("intake_rule", "storage_id", "storage"),
    )
    auto = sa.Column("auto", sa.Boolean(), nullable=False, server_default=sa.false())
    op.add_column("template", auto)
    first = sa.Column("precedence", sa.Integer(), nullable=False, server_default=sa.text("'0'"))
    op.add_column("template", first)
    op.add_column("template", sa.Column("activated_at", TIME, nullable=True))
    kept = sa.Column("intermediate", sa.String(16), nullable=False, server_default="keep")
    op.add_column("template", kept)


def _datasets() -> None:
    # In words that both databases take: alembic would make SQLite's table anew.
    kind = "BIGINT" if op.get_bind().dialect.name == "postgresql" else "INTEGER"
    op.execute(
        f"ALTER TABLE dataset ADD COLUMN rule_id {kind} "
        "CONSTRAINT fk_dataset_rule_id_intake_rule REFERENCES intake_rule (id)"
    )
    op.add_column("dataset", sa.Column("filled_at", TIME, nullable=True))
    op.add_column("dataset", sa.Column("matched_at", TIME, nullable=True))
    op.create_index(
        "ix_dataset_unmatched", "dataset", ["state", "closed_at"], **_rows("matched_at IS NULL")
    )
    op.create_index("ix_dataset_rule_id", "dataset", ["rule_id"], **_rows("state = 'OPEN'"))
    op.add_column("dataset", sa.Column("lifetime_s", sa.Float(), nullable=True))
    op.add_column("dataset", sa.Column("pin", TEXT, nullable=True))
    op.add_column("dataset", sa.Column("expires_at", TIME, nullable=True))
    op.add_column("dataset", sa.Column("retention", sa.String(16), nullable=True))
    op.add_column("dataset", sa.Column("readers", JSON, nullable=True))
    op.create_index(
        "ix_dataset_retained",
        "dataset",
        ["id"],
        **_rows("state = 'CLOSED' AND retention IS NOT NULL"),
    )
    op.create_index("ix_dataset_expires_at", "dataset", ["expires_at"], **_rows("state = 'CLOSED'"))
    op.create_index("ix_dataset_deleting", "dataset", ["id"], **_rows("state = 'DELETING'"))


def _storages() -> None:
    op.add_column("storage", sa.Column("quota_bytes", BIG, nullable=True))
    for name, percent in (("high_percent", "90"), ("low_percent", "80")):
        column = sa.Column(
            name, sa.Integer(), nullable=False, server_default=sa.text(f"'{percent}'")
        )
        op.add_column("storage", column)
    op.add_column("storage", sa.Column("pressed_at", TIME, nullable=True))
    op.create_table(
        "storage_total",
        sa.Column("storage_id", BIG, nullable=False, autoincrement=False),
        sa.Column("files", BIG, nullable=False),
        sa.Column("size_bytes", BIG, nullable=False),
        sa.PrimaryKeyConstraint("storage_id", name="pk_storage_total"),
        _of("storage_total", "storage_id", "storage"),
    )
    op.create_table(
        "storage_delta",
        sa.Column("id", BIG, nullable=False),
        sa.Column("storage_id", BIG, nullable=False),
        sa.Column("files", BIG, nullable=False),
        sa.Column("size_bytes", BIG, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_storage_delta"),
        _of("storage_delta", "storage_id", "storage"),
    )
    op.create_table(
        "storage_sample",
        sa.Column("storage_id", BIG, nullable=False, autoincrement=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("files", BIG, nullable=False),
        sa.Column("size_bytes", BIG, nullable=False),
        sa.PrimaryKeyConstraint("storage_id", "at", name="pk_storage_sample"),
        _of("storage_sample", "storage_id", "storage"),
    )
    op.execute(
        "INSERT INTO storage_total (storage_id, files, size_bytes) "
        "SELECT s.id, count(f.id), coalesce(sum(f.size_bytes), 0) FROM storage s "
        "LEFT JOIN replica r ON r.storage_id = s.id AND r.state NOT IN ('MISSING', 'DELETED') "
        "LEFT JOIN file f ON f.id = r.file_id GROUP BY s.id"
    )


def _uploads() -> None:
    op.create_table(
        "upload",
        sa.Column("id", BIG, nullable=False),
        sa.Column("dataset_id", BIG, nullable=False),
        sa.Column("storage_id", BIG, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", TEXT, nullable=True),
        sa.Column("files", BIG, nullable=False),
        sa.Column("size_bytes", BIG, nullable=False),
        sa.Column("files_done", BIG, nullable=False),
        sa.Column("bytes_done", BIG, nullable=False),
        sa.Column("after_id", BIG, nullable=False),
        sa.Column("flow_run_id", TEXT, nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("started_at", TIME, nullable=True),
        sa.Column("ended_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_upload"),
        _of("upload", "dataset_id", "dataset"),
        _of("upload", "storage_id", "storage"),
    )
    op.create_index("ix_upload_dataset_id", "upload", ["dataset_id"])
    op.create_index("ix_upload_state", "upload", ["state"])
    op.create_index(
        "uq_upload_going",
        "upload",
        ["dataset_id", "storage_id"],
        unique=True,
        **_rows("state IN ('QUEUED', 'RUNNING')"),
    )


def _inspections() -> None:
    op.create_table(
        "inspection",
        sa.Column("id", BIG, nullable=False),
        sa.Column("storage_id", BIG, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", TEXT, nullable=True),
        sa.Column("sample_percent", sa.Float(), nullable=False),
        *(
            sa.Column(name, BIG, nullable=False)
            for name in ("replicas", "objects", "missing", "corrupt", "dark")
        ),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("ended_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_inspection"),
        _of("inspection", "storage_id", "storage"),
    )
    op.create_table(
        "finding",
        sa.Column("id", BIG, nullable=False),
        sa.Column("inspection_id", BIG, nullable=False),
        sa.Column("storage_id", BIG, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("path", TEXT, nullable=False),
        sa.Column("replica_id", BIG, nullable=True),
        sa.Column("size_bytes", BIG, nullable=False),
        sa.Column("message", TEXT, nullable=False),
        sa.Column("found_at", TIME, nullable=False),
        sa.Column("settled_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_finding"),
        _of("finding", "inspection_id", "inspection"),
        _of("finding", "storage_id", "storage"),
        _of("finding", "replica_id", "replica"),
    )
    op.create_index("ix_finding_inspection_id", "finding", ["inspection_id"])
    op.create_index(
        "uq_finding_open",
        "finding",
        ["storage_id", "path", "kind"],
        unique=True,
        **_rows("state IN ('FOUND', 'MARKED', 'QUARANTINED')"),
    )


def _of(table: str, column: str, other: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"{other}.id"], name=f"fk_{table}_{column}_{other}")


def _rows(words: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(words), "postgresql_where": sa.text(words)}
