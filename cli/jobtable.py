"""Jobs in a table, as several commands list them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cli.output import show_list

if TYPE_CHECKING:
    from catalog.jobs import JobInfo


def job_row(job: "JobInfo") -> dict[str, Any]:
    """A job as a row."""
    return {
        "job": job.id,
        "stage": job.stage,
        "key": job.key,
        "state": job.state,
        "attempts": job.attempt,
        "error": job.error,
        "exit code": job.exit_code,
        "why": job.reason,
        "ended": job.ended_at,
    }


def show_jobs(found: "Sequence[JobInfo]", as_json: bool, limit: int) -> None:
    """A list of jobs."""
    show_list(found, as_json, job_row, empty="no such jobs.", limit=limit)
