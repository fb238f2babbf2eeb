"""The Prefect worker of a node: takes one pilot of a task, so that other nodes get the next.

`python -m flows.services.nodeworker` is `prefect worker start` with that difference, and one more:
it asks less often where its pool has many nodes (see `flows.services.pace`). A worker of Prefect
takes all it may at each poll: of a task's pilots, meant to be one for each node, the first node
that asks would get all.
"""

import argparse
import asyncio
import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectException
from prefect.settings import get_current_settings
from prefect.utilities.processutils import command_to_string, setup_signal_handlers_worker
from prefect.workers.base import BaseWorker

from flows.containers import DOCKER, remove_ended
from flows.pools import ensure_control_queues
from flows.queues import CONTROL
from flows.services.pace import Pace
from flows.services.processes import ENGINE

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun, WorkerFlowRunResponse

logger = logging.getLogger(__name__)

PATIENCE_S = 5.0
"""A second pilot of a task is taken where nobody else has wanted it for so long, and for so long
that every node of the pool has been asked twice."""
SWEEP_S = 30.0
KEPT_S = 60.0
"""Time that the worker has to read how a container ended."""

if TYPE_CHECKING:
    _Base = BaseWorker[Any, Any, Any]
else:
    _Base = object


class Spread(_Base):
    """What a worker of a node does differently, for workers of any type."""

    pace = Pace()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._tasks_here: dict[UUID, object] = {}

    async def get_and_submit_flow_runs(self) -> "list[FlowRun]":
        if not self.pace.is_due():
            return []
        taken: list[FlowRun] = await super().get_and_submit_flow_runs()
        return taken

    async def _submit_scheduled_flow_runs(
        self, flow_run_response: "list[WorkerFlowRunResponse]"
    ) -> "list[FlowRun]":
        taken = await super()._submit_scheduled_flow_runs(self._wanted(flow_run_response))
        self._tasks_here |= {run.id: run.parameters.get("task") for run in taken}
        submitted: list[FlowRun] = taken
        return submitted

    def _release_limit_slot(self, flow_run_id: UUID) -> None:
        if self._tasks_here.pop(flow_run_id, None) is not None:
            self.pace.hurry()
        super()._release_limit_slot(flow_run_id)

    def _wanted(
        self, responses: "Sequence[WorkerFlowRunResponse]"
    ) -> "list[WorkerFlowRunResponse]":
        served, wanted = set(self._tasks_here.values()), []
        patience_s = max(PATIENCE_S, 2 * self.pace.period_s)
        for response in responses:
            task = response.flow_run.parameters.get("task")
            if task is None or task not in served or _waits(response.flow_run, patience_s):
                wanted.append(response)
                served.add(task)
        return wanted


def _waits(run: "FlowRun", patience_s: float) -> bool:
    due = run.next_scheduled_start_time or run.expected_start_time
    return due is not None and (datetime.now(UTC) - due).total_seconds() > patience_s


def worker_class(kind: str) -> Any:
    """The worker for pools of type `process` or `docker`."""
    own: dict[str, Any] = {}
    if kind == DOCKER:
        from prefect_docker.worker import DockerWorker as Base
    else:
        from prefect.workers.process import ProcessWorker as Base

        own["job_configuration"] = _engine_first(Base.job_configuration)
    with warnings.catch_warnings():
        # It takes the place of Prefect's own under the same name.
        warnings.simplefilter("ignore", UserWarning)
        return type(f"Spread{Base.__name__}", (Spread, Base), own)


def _engine_first(configuration: Any) -> Any:
    """A configuration whose flow runs start with Prefect's engine.

    Without a command Prefect starts a process that fetches a flow's code first, and only then the
    engine: our flows are installed, and half of a pilot's start would be for nothing.
    """

    class EngineFirst(configuration):  # type: ignore[misc]
        def prepare_for_flow_run(self, *args: Any, **kwargs: Any) -> None:
            mine: Any = self
            if mine.command is None:
                mine.command = command_to_string([sys.executable, "-m", ENGINE])
            super().prepare_for_flow_run(*args, **kwargs)

    return EngineFirst


def _sweep() -> None:
    """Remove ended containers for ever.

    Docker could do it as they end, but then the worker can't read how a pilot ended.
    """
    while True:
        try:
            remove_ended(KEPT_S)
        except Exception:
            logger.exception("ended containers were not removed")
        time.sleep(SWEEP_S)


def _make_queues(names: Sequence[str]) -> None:
    """Make what queues are missing: a version may bring one before `spdf site setup` is run."""
    try:
        with get_client(sync_client=True) as client:
            ensure_control_queues(client, names)
    except (httpx.HTTPError, PrefectException):
        logger.warning("the queues of the worker may be missing", exc_info=True)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def main(words: Sequence[str] | None = None) -> int:
    """Serve a pool until SIGTERM."""
    parser = argparse.ArgumentParser(prog="nodeworker")
    for name in ("type", "pool", "name"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--work-queue", action="append")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--pace", type=Path)
    given = parser.parse_args(words)
    if given.type == DOCKER:
        threading.Thread(target=_sweep, name="sweep", daemon=True).start()
    if given.pool == CONTROL:
        _make_queues(given.work_queue or ())
    setup_signal_handlers_worker(os.getpid(), f"the {given.type} worker", _say)
    settings = get_current_settings().worker
    worker = worker_class(given.type)(
        name=given.name,
        work_pool_name=given.pool,
        work_queues=given.work_queue,
        limit=given.limit,
        prefetch_seconds=settings.prefetch_seconds,
        heartbeat_interval_seconds=int(settings.heartbeat_seconds),
        create_pool_if_not_found=False,
    )
    worker.pace = Pace(given.pace)
    with suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(worker.start(printer=_say))
    return 0


if __name__ == "__main__":
    sys.exit(main())
