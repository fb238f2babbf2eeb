"""A Prefect task runner over the slots of a pilot.

It calls the task's function in a bounded pool of threads and leaves Prefect's engine of three
events per task run out: what the server shows of jobs is posted by the recorder, from the
catalog. So retries, caching and results of `@prefect.task` have no effect under it.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar
from uuid import UUID, uuid4

from prefect.client.schemas.objects import State
from prefect.futures import PrefectTaskRunFuture
from prefect.states import Completed, Pending
from prefect.task_runners import TaskRunner

R = TypeVar("R")


class SlotFuture(PrefectTaskRunFuture[R]):
    """The future of one call."""

    def __init__(self, task_run_id: UUID, wrapped: "Future[R]") -> None:
        self._task_run_id = task_run_id
        self._final_state = None
        self.wrapped = wrapped

    @property
    def task_run_id(self) -> UUID:
        """An id of this call; the task run that is shown has one made from its attempt."""
        return self._task_run_id

    @property
    def state(self) -> State[Any]:
        """Whether the call has ended, as far as this process knows."""
        return Completed() if self.wrapped.done() else Pending()

    def wait(self, timeout: float | None = None) -> None:
        """Wait for the end of the call, at most `timeout` seconds."""
        try:
            self.wrapped.exception(timeout)
        except TimeoutError:
            return

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> R:
        """What the call returned; raises what it raised."""
        return self.wrapped.result(timeout)

    def add_done_callback(self, fn: Callable[..., Any]) -> None:
        """Call `fn` with this future when the call has ended."""
        self.wrapped.add_done_callback(lambda _: fn(self))


class _Pool:
    """Threads that call functions; how many of them do may change at any time."""

    def __init__(self, threads: int) -> None:
        self._limit = threads
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._lock = threading.Lock()
        self._called = threading.Condition(self._lock)
        self._resized = threading.Condition(self._lock)
        """What those that rest wait for: a call must not be left to one of them."""
        self._closed = False
        self._threads: list[threading.Thread] = []
        self.resize(threads)

    def resize(self, threads: int) -> None:
        """Let so many threads work; those beyond rest once their call has ended."""
        with self._lock:
            self._limit = threads
            while len(self._threads) < threads:
                number = len(self._threads)
                thread = threading.Thread(target=self._work, args=(number,), name=f"slot-{number}")
                self._threads.append(thread)
                thread.start()
            self._wake_all()

    def submit(self, call: Callable[[], Any]) -> "Future[Any]":
        """Have it called soon."""
        future: Future[Any] = Future()
        with self._lock:
            self._calls.append((future, call))
            self._called.notify()
        return future

    def close(self) -> None:
        """Drop what has not begun, and wait for what has."""
        with self._lock:
            self._closed = True
            for future, _ in self._calls:
                future.cancel()
            self._calls.clear()
            self._wake_all()
        for thread in self._threads:
            thread.join()

    def _wake_all(self) -> None:
        self._called.notify_all()
        self._resized.notify_all()

    def _work(self, number: int) -> None:
        while True:
            with self._lock:
                while not self._closed and (number >= self._limit or not self._calls):
                    (self._called if number < self._limit else self._resized).wait()
                if self._closed:
                    return
                future, call = self._calls.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 - whoever asks for the result gets it
                future.set_exception(error)


class SlotTaskRunner(TaskRunner[SlotFuture[Any]]):
    """Runs mapped tasks in `threads` threads; the tokens of the node bound the payloads."""

    def __init__(self, threads: int | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.threads = threads or 4
        self._pool: _Pool | None = None

    def duplicate(self) -> "SlotTaskRunner":
        """Another runner of the same size."""
        return type(self)(self.threads)

    def resize(self, threads: int) -> None:
        """Set the number of threads that work."""
        self.threads = threads
        if self._pool is not None:
            self._pool.resize(threads)

    def submit(
        self,
        task: Any,
        parameters: dict[str, Any],
        wait_for: Iterable[Any] | None = None,
        dependencies: dict[str, set[Any]] | None = None,
    ) -> SlotFuture[Any]:
        """Call the task's function soon; gives its future."""
        if not self._started:
            raise RuntimeError("the task runner must be started before work is submitted")
        if self._pool is None:
            self._pool = _Pool(self.threads)
        return SlotFuture(uuid4(), self._pool.submit(partial(task.fn, **parameters)))

    def __exit__(self, *exc: Any) -> None:
        """Wait for the threads; what has not begun is dropped."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None
        super().__exit__(*exc)
