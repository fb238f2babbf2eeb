"""Threads that take work of many lanes in turn."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, wait
from functools import partial

import pytest

from catalog.requests.lanes import Lanes


@pytest.fixture
def single() -> Iterator[Lanes]:
    lanes = Lanes("test", 1)
    yield lanes
    lanes.close()


def test_a_long_lane_holds_up_no_other(single: Lanes) -> None:
    begun, goes_on, done = threading.Event(), threading.Event(), []

    def hold() -> None:
        begun.set()
        assert goes_on.wait(60)

    held = single.submit("long", hold)
    assert begun.wait(60)
    many = [single.submit("long", partial(done.append, f"long {n}")) for n in range(50)]
    others = [single.submit(f"other {n}", partial(done.append, f"other {n}")) for n in range(3)]
    goes_on.set()
    assert not wait([held, *many, *others], 60).not_done
    assert done[:4] == ["long 0", "other 0", "other 1", "other 2"], "each lane in its turn"
    assert done[4:] == [f"long {n}" for n in range(1, 50)], "a lane's own in their order"


def test_so_many_threads_as_there_may_be_work_at_once() -> None:
    lanes, together = Lanes("test", 3), threading.Barrier(3)
    try:
        met = [lanes.submit("one", partial(together.wait, 60)) for _ in range(6)]
        assert sorted(future.result(60) for future in met) == [0, 0, 1, 1, 2, 2]
    finally:
        lanes.close()


def test_one_that_is_idle_is_not_counted_on_by_two() -> None:
    """The first call may be stuck: the second must have a thread of its own."""
    lanes, together = Lanes("test", 2), threading.Barrier(2)
    try:
        assert lanes.submit("one", lambda: 1).result(60) == 1
        end = time.monotonic() + 60
        while not lanes._idle and time.monotonic() < end:
            time.sleep(0.01)
        assert lanes._idle == 1
        met = [lanes.submit(name, partial(together.wait, 20)) for name in ("one", "other")]
        assert sorted(future.result(60) for future in met) == [0, 1]
    finally:
        lanes.close()


def test_an_error_is_its_own_calls(single: Lanes) -> None:
    failing, fine = single.submit("a", lambda: 1 // 0), single.submit("a", lambda: 2)
    with pytest.raises(ZeroDivisionError):
        failing.result(60)
    assert fine.result(60) == 2


def test_what_waits_is_cancelled_at_the_end(single: Lanes) -> None:
    begun, goes_on = threading.Event(), threading.Event()

    def hold() -> str:
        begun.set()
        assert goes_on.wait(60)
        return "held"

    held = single.submit("a", hold)
    assert begun.wait(60)
    waiting = single.submit("b", lambda: "never")
    single.close()
    with pytest.raises(CancelledError):
        waiting.result(60)
    goes_on.set()
    assert held.result(60) == "held", "what is at work ends"
