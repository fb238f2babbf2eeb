"""Which of a pool's pilots the worker of a node takes."""

import asyncio
import inspect
import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.workers.base import BaseWorker

from flows.services import pace
from flows.services.nodeworker import PATIENCE_S, Spread, worker_class
from flows.services.pace import Pace, period_s


def offered(task: int | None, age_s: float = 0.0) -> Any:
    """A scheduled flow run, as the server offers it."""
    due = datetime.now(UTC) - timedelta(seconds=age_s)
    parameters = {} if task is None else {"task": task}
    run = SimpleNamespace(
        id=uuid4(), parameters=parameters, next_scheduled_start_time=due, expected_start_time=due
    )
    return SimpleNamespace(flow_run=run)


@pytest.fixture
def worker() -> Any:
    """The choice alone, of a worker that serves task 1 already."""
    made: Any = Spread.__new__(Spread)
    made._tasks_here = {uuid4(): 1}
    return made


def test_a_node_takes_one_pilot_of_each_task(worker: Any) -> None:
    two, more, three, control = offered(2), offered(2), offered(3), offered(None)
    assert worker._wanted([offered(1), two, more, three, control]) == [two, three, control]


def test_a_pilot_that_nobody_wants_is_taken_after_a_while(worker: Any) -> None:
    old = offered(1, PATIENCE_S + 1)
    assert worker._wanted([old, offered(1, PATIENCE_S - 2)]) == [old]


def test_patience_grows_with_the_period_of_the_nodes(worker: Any, tmp_path: Path) -> None:
    pace.tell(tmp_path / "pace", 40.0)
    worker.pace = Pace(tmp_path / "pace")
    old = offered(1, 81)
    assert worker._wanted([old, offered(1, PATIENCE_S + 10)]) == [old]


def test_many_nodes_ask_as_often_together_as_some() -> None:
    assert [period_s(nodes, 30.0) for nodes in (1, 30, 300, 3000)] == [1.0, 1.0, 10.0, 100.0]


def test_a_worker_keeps_the_pace_that_it_was_told(tmp_path: Path) -> None:
    kept = Pace(tmp_path / "pace")
    assert all(kept.is_due(now) for now in range(5)), "until it was told one"
    pace.tell(tmp_path / "pace", 10.0)
    asked = [now for now in range(5, 1005) if kept.is_due(now)]
    gaps = [after - before for before, after in pairwise(asked)]
    assert min(gaps) >= 7 and max(gaps) <= 14 and 85 <= len(asked) <= 115
    pace.tell(tmp_path / "pace", 1.0)
    assert all(kept.is_due(now) for now in range(1005, 1010)), "nodes have left"


def test_a_node_whose_pilot_has_ended_asks_for_the_next_at_once(tmp_path: Path) -> None:
    pace.tell(tmp_path / "pace", 100.0)
    kept = Pace(tmp_path / "pace")
    assert kept.is_due(0)
    kept.hurry(20)
    assert [now for now in range(10, 60) if kept.is_due(now)] == list(range(10, 30))


def test_a_shorter_pace_ends_a_longer_wait(tmp_path: Path) -> None:
    pace.tell(tmp_path / "pace", 100.0)
    kept = Pace(tmp_path / "pace")
    assert kept.is_due(0) and not kept.is_due(30)
    pace.tell(tmp_path / "pace", 10.0)
    assert kept.is_due(31)


def test_a_worker_whose_turn_it_is_not_asks_nothing(worker: Any, tmp_path: Path) -> None:
    pace.tell(tmp_path / "pace", 100.0)
    worker.pace = Pace(tmp_path / "pace")
    assert worker.pace.is_due()
    assert asyncio.run(worker.get_and_submit_flow_runs()) == []


@pytest.mark.parametrize("kind", ["process", "docker"])
def test_prefects_worker_still_has_what_is_overridden(kind: str) -> None:
    made = worker_class(kind)
    assert made.type == kind
    assert issubclass(made, BaseWorker)
    assert list(inspect.signature(BaseWorker.get_and_submit_flow_runs).parameters) == ["self"]
    submit = inspect.signature(BaseWorker._submit_scheduled_flow_runs)
    assert list(submit.parameters) == ["self", "flow_run_response"]
    assert list(inspect.signature(BaseWorker._release_limit_slot).parameters) == [
        "self", "flow_run_id",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("configured", "started"),
    [(None, f"{sys.executable} -m prefect.engine"), ("nice prefect", "nice prefect")],
)
def test_flow_runs_start_with_the_engine_itself(configured: str | None, started: str) -> None:
    configuration = worker_class("process").job_configuration(command=configured)
    configuration.prepare_for_flow_run(FlowRun(id=uuid4(), flow_id=uuid4(), name="some"))
    assert configuration.command == started
    # What Prefect's worker goes by: it starts a command as it stands.
    assert configuration._command_configured


def test_a_node_that_is_out_asks_for_nothing_until_it_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "pace"
    pace.tell(path, pace.NEVER_S)
    one = Pace(path)
    one.hurry()
    assert not any(one.is_due() for _ in range(10))
    pace.tell(path, pace.BASE_S)
    assert one.is_due()


def test_a_pace_is_told_on_a_disk_without_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pace"
    pace.tell(path, pace.BASE_S)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        pace.tell(path, pace.NEVER_S)
    assert Pace(path).period_s == pace.NEVER_S
