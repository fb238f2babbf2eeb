"""The pool of threads that a pilot's jobs run in."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prefect import task

from flows.taskrunner import SlotTaskRunner


class Crowd:
    """Calls that wait until they are let go, and how many there are at once."""

    def __init__(self) -> None:
        self.inside, self.most = 0, 0
        self._changed = threading.Condition()
        self._let_go = 0

    def call(self) -> None:
        with self._changed:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._let_go > 0, 20)
            self._let_go -= 1
            self.inside -= 1
            self._changed.notify_all()

    def let_go(self, count: int) -> None:
        with self._changed:
            self._let_go += count
            self._changed.notify_all()

    def wait_for(self, inside: int) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self.inside == inside, 20)


@pytest.fixture
def crowd() -> Crowd:
    return Crowd()


@pytest.fixture
def start() -> Iterator[Callable[[int], SlotTaskRunner]]:
    runners: list[SlotTaskRunner] = []

    def begin(threads: int) -> SlotTaskRunner:
        runners.append(SlotTaskRunner(threads).__enter__())
        return runners[-1]

    yield begin
    for runner in runners:
        runner.__exit__(None, None, None)


def submit(runner: SlotTaskRunner, call: Callable[..., Any], count: int) -> list[Any]:
    wrapped = task(call)
    return [runner.submit(wrapped, {}) for _ in range(count)]


def test_as_many_calls_run_at_once_as_there_are_threads(
    start: Callable[[int], SlotTaskRunner], crowd: Crowd
) -> None:
    futures = submit(start(2), crowd.call, 5)
    assert crowd.wait_for(2)
    crowd.let_go(5)
    for future in futures:
        future.result(20)
    assert crowd.most == 2


def test_fewer_threads_go_on_where_it_is_made_smaller_and_more_where_larger(
    start: Callable[[int], SlotTaskRunner], crowd: Crowd
) -> None:
    runner = start(3)
    first = submit(runner, crowd.call, 3)
    assert crowd.wait_for(3)
    runner.resize(1)
    crowd.let_go(3)
    for future in first:
        future.result(20)
    crowd.most = 0
    second = submit(runner, crowd.call, 3)
    crowd.let_go(3)
    for future in second:
        future.result(20)
    assert crowd.most == 1
    runner.resize(4)
    third = submit(runner, crowd.call, 4)
    assert crowd.wait_for(4)
    crowd.let_go(4)
    for future in third:
        future.result(20)


def test_a_call_is_not_left_to_a_thread_that_rests(
    start: Callable[[int], SlotTaskRunner],
) -> None:
    runner = start(4)
    for future in submit(runner, lambda: None, 8):
        future.result(20)
    for size in (3, 2, 1):
        runner.resize(size)
        for _ in range(5):
            # Until all have gone to sleep again, those that rest last.
            time.sleep(0.005)
            (future,) = submit(runner, lambda: None, 1)
            future.result(20)


def test_what_a_call_raises_is_its_result(start: Callable[[int], SlotTaskRunner]) -> None:
    def call() -> None:
        raise ValueError("no")

    runner = start(1)
    (future,) = submit(runner, call, 1)
    with pytest.raises(ValueError, match="no"):
        future.result(20)
    (other,) = submit(runner, lambda: 5, 1)
    assert other.result(20) == 5


def test_what_has_not_begun_is_dropped_at_the_end(
    start: Callable[[int], SlotTaskRunner], crowd: Crowd
) -> None:
    runner = start(1)
    futures = submit(runner, crowd.call, 3)
    assert crowd.wait_for(1)
    ending = threading.Thread(target=runner.__exit__, args=(None, None, None))
    ending.start()
    for future in futures[1:]:
        while not future.wrapped.cancelled():
            pass
    crowd.let_go(1)
    ending.join(20)
    assert not ending.is_alive() and futures[0].wrapped.done()
