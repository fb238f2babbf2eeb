"""A past for a catalog on PostgreSQL: workflows finished long ago, made inside the database."""

import sqlalchemy as sa

from catalog.db import Catalog

JOBS_OF_ONE = 10_000
"""Jobs of each workflow."""
WITH_FILES = 1_000_000
"""Jobs, from the first, whose files are there, too."""

_BIG = ("job", "attempt")
_WHEN = "now() - interval '100 days'"

_COARSE = (
    f"""INSERT INTO template (id, name, version, state, mask, derived, document, plan, digest,
        created_at)
        VALUES (1, 'old', 1, 'ARCHIVED', 'old-*', false, '{{}}', '{{}}', 'd', {_WHEN})""",
    f"""INSERT INTO storage (id, name, kind, role, url, created_at)
        VALUES (1, 'old', 'local', 'internal', '/old', {_WHEN})""",
    f"""INSERT INTO dataset (id, name, state, derived, next_position, file_count, size_bytes,
        digest, created_at, closed_at)
        SELECT i, 'old-' || i, 'CLOSED', false, :each, :each, 0, 'd', {_WHEN}, {_WHEN}
        FROM generate_series(1, :workflows) i""",
    f"""INSERT INTO dataset (id, name, state, derived, task_id, port, storage_id, next_position,
        file_count, size_bytes, digest, created_at, closed_at)
        SELECT :workflows + i, 'old-' || i || '.old.v1.step.out', 'CLOSED', true, i, 'out', 1, 0,
        :each, 0, 'd', {_WHEN}, {_WHEN} FROM generate_series(1, :workflows) i""",
    f"""INSERT INTO workflow (id, template_id, dataset_id, inputs, inputs_digest, number, again,
        rank, state, epoch, created_at, started_at, ended_at)
        SELECT i, 1, i, '{{}}', 'i', 1, false, 0, 'FINISHED', 1, {_WHEN}, {_WHEN}, {_WHEN}
        FROM generate_series(1, :workflows) i""",
    f"""INSERT INTO task (id, workflow_id, stage, ordinal, pool, rank, state, roots_defined,
        cursor, created_at, started_at, ended_at)
        SELECT i, i, 'step', 0, 'cpu', 0, 'FINISHED', :each, :each, {_WHEN}, {_WHEN}, {_WHEN}
        FROM generate_series(1, :workflows) i""",
    f"""INSERT INTO pilot (id, task_id, pool, state, reason, node, pid, slots, flow_run_id,
        jobs_done, started_at, beat_at, ended_at)
        SELECT i, (i + 1) / 2, 'cpu', 'DONE', 'no jobs left', 'node-' || i % 50, i, 64,
        gen_random_uuid()::text, :each / 2, {_WHEN}, {_WHEN}, {_WHEN}
        FROM generate_series(1, 2 * :workflows) i""",
    f"""INSERT INTO event (at, entity, entity_id, before, after)
        SELECT {_WHEN}, 'pilot', i, NULL, 'ACTIVE' FROM generate_series(1, 2 * :workflows) i""",
)
_JOBS = (
    f"""INSERT INTO job (id, task_id, key, ordinal, state, outputs, attempt, failures, losses,
        passed, created_at, ended_at)
        SELECT i, (i - 1) / :each + 1, 'slice-' || lpad(((i - 1) % :each)::text, 7, '0') || '.raw',
        (i - 1) % :each, 'FINISHED', NULL, 1, 0, 0, true, {_WHEN}, {_WHEN}
        FROM generate_series(cast(:first as bigint), :last) i""",
    f"""INSERT INTO attempt (id, job_id, number, pilot_id, state, phase, exit_code, tool_digest,
        program, node, wall_s, cpu_s, peak_rss_bytes, bytes_in, bytes_out, started_at, ended_at,
        shown, shown_state, shown_try)
        SELECT i, i, 1, 2 * ((i - 1) / :each) + 1 + i % 2, 'FINISHED', 'STAGE_OUT', 0,
        md5(((i - 1) / :each)::text), '0.1', 'node-' || i % 50, 1.5, 1.4, 100000000, 4096, 32,
        {_WHEN}, {_WHEN}, true, 'FINISHED', 1
        FROM generate_series(cast(:first as bigint), :last) i""",
)
_FILES = (
    f"""INSERT INTO file (id, scope, name, size_bytes, checksum, created_at)
        SELECT i, CASE WHEN i % 2 = 1 THEN 'raw' ELSE 'made' END, 'f/' || i, 4096,
        'adler32:' || lpad(to_hex(i), 8, '0'), {_WHEN} FROM generate_series(1, 2 * :files) i""",
    f"""INSERT INTO replica (file_id, storage_id, path, state, created_at)
        SELECT i, 1, 'f/' || i, 'AVAILABLE', {_WHEN} FROM generate_series(1, 2 * :files) i""",
    """INSERT INTO dataset_file (dataset_id, file_id, name, key, position)
        SELECT (i - 1) / :each + 1, 2 * i - 1, 'f' || i, 'f' || i, i % :each
        FROM generate_series(1, :files) i""",
    """INSERT INTO dataset_file (dataset_id, file_id, name, key, position)
        SELECT :workflows + (i - 1) / :each + 1, 2 * i, 'f' || i, 'f' || i, i % :each
        FROM generate_series(1, :files) i""",
    """INSERT INTO job_input (job_id, port, position, file_id, task_id)
        SELECT i, 'x', 0, 2 * i - 1, (i - 1) / :each + 1 FROM generate_series(1, :files) i""",
    """INSERT INTO job_output (job_id, port, position, file_id)
        SELECT i, 'out', 0, 2 * i FROM generate_series(1, :files) i""",
)
_COUNTED = (
    "template", "storage", "dataset", "workflow", "task", "pilot", "job", "attempt", "file",
)  # fmt: skip


def make_past(catalog: Catalog, jobs: int) -> None:
    """Put so many finished jobs into an empty catalog, a multiple of `JOBS_OF_ONE`."""
    numbers = {
        "each": JOBS_OF_ONE,
        "workflows": jobs // JOBS_OF_ONE,
        "files": min(jobs, WITH_FILES),
    }
    with catalog.engine.connect() as plain:
        connection = plain.execution_options(isolation_level="AUTOCOMMIT")
        # No checks of foreign keys, and indexes made at once: it would take hours.
        connection.execute(sa.text("SET session_replication_role = replica"))
        connection.execute(sa.text("SET maintenance_work_mem = '1GB'"))
        connection.execute(sa.text("SET synchronous_commit = off"))
        again = _drop_indexes(connection)
        for statement in (*_COARSE, *_FILES):
            connection.execute(sa.text(statement), numbers)
        for first in range(1, jobs + 1, 1_000_000):
            part = {"each": JOBS_OF_ONE, "first": first, "last": min(first + 999_999, jobs)}
            for statement in _JOBS:
                connection.execute(sa.text(statement), part)
        for statement in again:
            connection.execute(sa.text(statement))
        for table in _COUNTED:
            connection.execute(
                sa.text(f"SELECT setval('{table}_id_seq', (SELECT max(id) FROM {table}))")
            )
        connection.execute(sa.text("VACUUM (ANALYZE)"))
        connection.execute(sa.text("RESET session_replication_role"))
        connection.execute(sa.text("RESET synchronous_commit"))


def _drop_indexes(connection: sa.Connection) -> list[str]:
    """Drop the indexes of the large tables but their primary keys; gives how to make them again."""
    again = []
    for table in _BIG:
        unique = connection.execute(
            sa.text(
                "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint "
                f"WHERE conrelid = '{table}'::regclass AND contype = 'u'"
            )
        ).all()
        for name, words in unique:
            connection.execute(sa.text(f"ALTER TABLE {table} DROP CONSTRAINT {name}"))
            again.append(f"ALTER TABLE {table} ADD CONSTRAINT {name} {words}")
        plain = connection.execute(
            sa.text(
                f"SELECT indexname, indexdef FROM pg_indexes WHERE tablename = '{table}' "
                f"AND indexname <> 'pk_{table}'"
            )
        ).all()
        for name, words in plain:
            connection.execute(sa.text(f"DROP INDEX {name}"))
            again.append(words)
    return again
