"""Which of a pool's pilots the worker of a node takes."""

import inspect
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from prefect.workers.base import BaseWorker

from flows.services.nodeworker import PATIENCE_S, Spread, worker_class


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


@pytest.mark.parametrize("kind", ["process", "docker"])
def test_prefects_worker_still_has_what_is_overridden(kind: str) -> None:
    made = worker_class(kind)
    assert made.type == kind
    assert issubclass(made, BaseWorker)
    submit = inspect.signature(BaseWorker._submit_scheduled_flow_runs)
    assert list(submit.parameters) == ["self", "flow_run_response"]
    assert list(inspect.signature(BaseWorker._release_limit_slot).parameters) == [
        "self", "flow_run_id",
    ]  # fmt: skip
