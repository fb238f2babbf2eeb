"""A Prefect task runner over the processes of a pilot.

It calls the task's function, which gives the future of its result, and leaves Prefect's engine of
three events per task run out: what the server shows of jobs is posted by the recorder, from the
catalog. So retries, caching and results of `@prefect.task` have no effect under it.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import Future
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


class SlotTaskRunner(TaskRunner[SlotFuture[Any]]):
    """Runs mapped tasks whose function begins a job and gives its future.

    The tokens of the node bound what runs at once.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def duplicate(self) -> "SlotTaskRunner":
        """Another runner."""
        return type(self)()

    def submit(
        self,
        task: Any,
        parameters: dict[str, Any],
        wait_for: Iterable[Any] | None = None,
        dependencies: dict[str, set[Any]] | None = None,
    ) -> SlotFuture[Any]:
        """Call the task's function; gives the future that it gave."""
        if not self._started:
            raise RuntimeError("the task runner must be started before work is submitted")
        return SlotFuture(uuid4(), task.fn(**parameters))
