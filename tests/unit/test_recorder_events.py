"""Attempts as Prefect's events: ids, times and words."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from prefect.server.events.schemas.events import Event
from prefect.server.services.task_run_recorder import task_run_from_event

from catalog.attempts_shown import DueAttempt
from catalog.states import AttemptState
from flows.recorder.events import MOST_LOG, STATES, log_entry, printable, state_event
from flows.recorder.names import task_run_id
from flows.recorder.pace import Pace

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
ENDED = BEGAN + timedelta(seconds=5)
FAILED = DueAttempt(
    attempt_id=7, number=2, state=AttemptState.FAILED, key="raw.bin", stage="decode",
    flow_run_id=str(uuid4()), started_at=BEGAN, ended_at=ENDED, tries=0, skipped=False,
    error="PAYLOAD_FAILED", exit_code=3, message="no luck", node="n1",
)  # fmt: skip


def test_the_servers_recorder_reads_what_was_meant() -> None:
    run = task_run_from_event(Event.model_validate(state_event(FAILED)).receive())
    assert run.id == task_run_id(FAILED.flow_run_id, 7)
    assert run.flow_run_id == UUID(FAILED.flow_run_id)
    assert run.name == "raw.bin#2"
    assert run.state is not None
    assert (run.state.type, run.state.name) == ("FAILED", "Failed")
    assert run.state.message == "PAYLOAD_FAILED: no luck (exit code 3)"
    assert (run.start_time, run.end_time) == (BEGAN, ENDED)


@pytest.mark.parametrize("state", list(AttemptState))
def test_every_state_has_a_state_in_prefect(state: AttemptState) -> None:
    attempt = replace(FAILED, state=state)
    assert state_event(attempt)["payload"]["validated_state"]["type"] == STATES[state][0]


def test_another_try_has_another_id_and_a_later_time_for_the_same_task_run() -> None:
    first, second = state_event(FAILED), state_event(replace(FAILED, tries=1))
    assert first == state_event(FAILED)
    assert first["id"] != second["id"]
    assert first["occurred"] < second["occurred"]
    assert first["resource"]["prefect.resource.id"] == second["resource"]["prefect.resource.id"]
    late = ENDED + timedelta(hours=1)
    assert datetime.fromisoformat(state_event(FAILED, late)["occurred"]) > late


def test_an_end_lies_after_the_running_state_even_within_one_tick_of_the_clock() -> None:
    running = replace(FAILED, state=AttemptState.RUNNING, ended_at=None)
    ended = replace(FAILED, ended_at=BEGAN, tries=1)
    assert state_event(running)["occurred"] < state_event(ended)["occurred"]


def test_the_same_attempt_number_under_two_flow_runs_is_two_task_runs() -> None:
    assert task_run_id(str(uuid4()), 7) != task_run_id(str(uuid4()), 7)


def test_skipped_is_said() -> None:
    skipped = replace(FAILED, state=AttemptState.FINISHED, skipped=True, error=None)
    assert state_event(skipped)["payload"]["validated_state"]["message"] == "skipped"


def test_text_that_no_database_takes_is_mended() -> None:
    assert printable("a\0b\udcff") == "a\N{REPLACEMENT CHARACTER}b?"
    entry = log_entry(FAILED.flow_run_id, uuid4(), ENDED, "x" * MOST_LOG + "end")
    assert len(entry["message"]) == MOST_LOG and entry["message"].endswith("end")


def test_the_pace_falls_when_posts_get_lost_and_recovers_up_to_its_bound() -> None:
    pace = Pace(most=2000, batch=100)
    assert pace.window == 2000
    pace.lost()
    assert pace.window == 1000
    for _ in range(30):
        pace.arrived()
    assert pace.window == 2000
    for _ in range(20):
        pace.lost()
    assert pace.window == 100
    assert pace.grace(1) < pace.grace(3) <= pace.grace(99) == 300.0
