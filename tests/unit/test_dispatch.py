"""How many pilots a task is sent."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

from catalog.settings import Settings
from flows.dispatch import MOST_WAITING, Dispatcher, _Need
from flows.shift.idle import quiet_s


@pytest.fixture
def dispatcher() -> Any:
    """One that knows neither catalog nor server."""
    nothing: Any = None
    settings = Settings(api_url="http://site/api", _env_file=None)
    return Dispatcher(nothing, settings, nothing, "run-1")


def need(wanted: int, live: int = 0) -> _Need:
    stage: Any = SimpleNamespace(max_pilots=None, pool="cpu")
    return _Need(1, stage, wanted, live, nodes_online=1000)


def test_pilots_are_asked_for_a_few_at_a_time(dispatcher: Any) -> None:
    assert dispatcher._missing(need(1000)) == MOST_WAITING
    runs = [f"run-{number}" for number in range(MOST_WAITING)]
    dispatcher._asked[1] = dict.fromkeys(runs, time.monotonic())
    assert dispatcher._missing(need(1000)) == 0
    dispatcher._forget(set(runs[:20]))
    assert dispatcher._missing(need(1000, live=20)) == 20


def test_no_more_are_asked_for_than_are_missing(dispatcher: Any) -> None:
    assert dispatcher._missing(need(7)) == 7
    assert dispatcher._missing(need(2000, live=990)) == 10
    assert dispatcher._missing(need(1000, live=1000)) == 0


def test_pilots_that_find_nothing_ask_as_often_together_however_many_they_are() -> None:
    assert [quiet_s(count) for count in (1, 50, 200, 1000)] == [0.005, 0.25, 1.0, 5.0]
