"""What became of a workflow: its stages and its failed jobs, from the catalog alone."""

from typing import Any

from catalog import jobs, tasks
from catalog.db import Catalog
from catalog.jobs import JobInfo
from catalog.states import JobState


def summary_rows(catalog: Catalog, workflow_id: int) -> list[dict[str, Any]]:
    """The table of stages: files in, out, skipped, failed, attempts, wall and CPU seconds."""
    with catalog.read() as session:
        rows = tasks.progress(session, workflow_id)
        used = tasks.usage(session, [row.task.id for row in rows])
    return [
        {
            "stage": row.task.stage,
            "state": str(row.task.state),
            "jobs": row.total,
            "finished": row.jobs.get(JobState.FINISHED, 0),
            "skipped": row.jobs.get(JobState.SKIPPED, 0),
            "failed": row.jobs.get(JobState.FAILED, 0),
            "files out": used[row.task.id].files_out,
            "attempts": used[row.task.id].attempts,
            "wall s": round(used[row.task.id].wall_s, 2),
            "CPU s": round(used[row.task.id].cpu_s, 2),
            "bytes in": used[row.task.id].bytes_in,
            "bytes out": used[row.task.id].bytes_out,
        }
        for row in rows
    ]


def failed_jobs(catalog: Catalog, workflow_id: int, limit: int = 5) -> list[JobInfo]:
    """The first jobs of a workflow that failed or are held, by stage and order."""
    with catalog.read() as session:
        return jobs.list_jobs(
            session,
            workflow_id=workflow_id,
            states=(JobState.FAILED, JobState.HELD),
            limit=limit,
        )
