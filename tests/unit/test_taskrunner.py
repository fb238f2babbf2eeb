"""The task runner of a pilot: a mapped task begins a job and gives its future."""

from concurrent.futures import Future

import pytest
from prefect import task, unmapped

from flows.taskrunner import SlotTaskRunner


def test_a_mapped_task_gives_the_futures_that_its_function_gave() -> None:
    begun: list[int] = []
    futures: list[Future[int]] = [Future() for _ in range(3)]

    @task
    def begin(number: int, all_: list[Future[int]]) -> "Future[int]":
        begun.append(number)
        return all_[number]

    with SlotTaskRunner() as runner:
        mapped = runner.map(begin, {"number": [0, 1, 2], "all_": unmapped(futures)})
        assert begun == [0, 1, 2]
        assert not any(one.state.is_completed() for one in mapped)
        for number, future in enumerate(futures):
            future.set_result(number * 10)
        assert [one.result(1) for one in mapped] == [0, 10, 20]
        assert all(one.state.is_completed() for one in mapped)


def test_it_runs_nothing_before_it_is_started() -> None:
    @task
    def begin() -> None:
        return None

    with pytest.raises(RuntimeError, match="must be started"):
        SlotTaskRunner().submit(begin, {})
