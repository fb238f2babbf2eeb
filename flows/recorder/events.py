"""Attempts as the events and logs that Prefect's own engine would send of task runs.

The shape is that of `prefect.utilities.engine.emit_task_run_state_change_event`, which the
server's task-run recorder takes in.
"""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from catalog.attempts_shown import DueAttempt
from catalog.states import AttemptState
from flows.recorder.names import TASK_KEY, event_id, task_run_id

STATES: dict[AttemptState, tuple[str, str]] = {
    AttemptState.RUNNING: ("RUNNING", "Running"),
    AttemptState.FINISHED: ("COMPLETED", "Completed"),
    AttemptState.FAILED: ("FAILED", "Failed"),
    AttemptState.LOST: ("CRASHED", "Crashed"),
    AttemptState.CANCELLED: ("CANCELLED", "Cancelled"),
}
"""Type and name of the Prefect state that shows an attempt's."""

MOST_MESSAGE = 4000
MOST_LOG = 20_000
ERROR_LEVEL = 40


def state_event(attempt: DueAttempt, not_before: datetime | None = None) -> dict[str, Any]:
    """The event that tells of an attempt's present state.

    Its timestamp is the catalog's, plus the try in microseconds: the server refuses one that it
    has had, and ignores what lies before the last. `not_before` is the last that the server has,
    where it is later than that.
    """
    kind, name = STATES[attempt.state]
    run = task_run_id(attempt.flow_run_id, attempt.attempt_id)
    number = attempt.tries + 1
    at = (
        attempt.started_at
        if attempt.ended_at is None
        else max(attempt.ended_at, attempt.started_at)
    )
    if not_before is not None:
        at = max(at, not_before)
    at += timedelta(microseconds=number)
    message = _message(attempt)
    title = f"{attempt.key}#{attempt.number}"
    return {
        "id": str(event_id(run, attempt.state, number)),
        "occurred": at.isoformat(),
        "event": f"prefect.task-run.{name}",
        "resource": {
            "prefect.resource.id": f"prefect.task-run.{run}",
            "prefect.resource.name": title,
            "prefect.run-count": "1",
            "prefect.state-message": message,
            "prefect.state-name": name,
            "prefect.state-timestamp": at.isoformat(),
            "prefect.state-type": kind,
            "prefect.orchestration": "client",
        },
        "related": [
            {
                "prefect.resource.id": f"prefect.flow-run.{attempt.flow_run_id}",
                "prefect.resource.role": "flow-run",
            }
        ],
        "payload": {
            "intended": {"from": "PENDING", "to": kind},
            "initial_state": {"type": "PENDING", "name": "Pending", "message": "",
                              "state_details": {}},
            "validated_state": {"type": kind, "name": name, "message": message,
                                "state_details": {}, "data": None},
            "task_run": _task_run(attempt, title),
        },
    }  # fmt: skip


def _task_run(attempt: DueAttempt, title: str) -> dict[str, Any]:
    """The same keys for every attempt: the server writes rows of one shape in one statement."""
    began = attempt.started_at
    ended = attempt.ended_at
    return {
        "name": title,
        "task_key": TASK_KEY,
        "dynamic_key": str(attempt.attempt_id),
        "tags": [attempt.error] if attempt.error else [],
        "task_inputs": {},
        "run_count": 1,
        "flow_run_run_count": 1,
        "expected_start_time": began.isoformat(),
        "start_time": began.isoformat(),
        "end_time": ended.isoformat() if ended else None,
        "total_run_time": max((ended - began).total_seconds(), 0.0) if ended else 0.0,
    }


def _message(attempt: DueAttempt) -> str:
    if attempt.state is AttemptState.RUNNING:
        return f"on {attempt.node}" if attempt.node else ""
    if attempt.state is AttemptState.FINISHED:
        return "skipped" if attempt.skipped else ""
    parts = [attempt.error or "", attempt.message or ""]
    text = ": ".join(part for part in parts if part)
    if attempt.exit_code is not None:
        text += f" (exit code {attempt.exit_code})"
    return printable(text)[:MOST_MESSAGE]


def log_entry(flow_run_id: str, run: UUID, at: datetime, text: str) -> dict[str, Any]:
    """The end of an attempt's log as a log of its task run."""
    return {
        "name": "payload",
        "level": ERROR_LEVEL,
        "message": printable(text)[-MOST_LOG:],
        "timestamp": at.isoformat(),
        "flow_run_id": flow_run_id,
        "task_run_id": str(run),
    }


def printable(text: str) -> str:
    """Text that JSON and PostgreSQL take: without lone surrogates and NUL."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
