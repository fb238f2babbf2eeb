"""Many Prefect workers in one process, the same that nodes run, on a pool that gives them nothing.

`python -m benchmarks.manyworkers POOL COUNT PREFIX` with the environment of a node's worker. Prints
a line when all are there, and at the end of its input what each poll took, as JSON.
"""

import asyncio
import json
import logging
import random
import sys
import time
import warnings
from typing import Any

from prefect.settings import get_current_settings

from flows.services.nodeworker import worker_class

SPREAD_S = 3.0


def main() -> int:
    """Run them until the end of the input."""
    pool, count, prefix = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    logging.getLogger("prefect").setLevel(logging.ERROR)
    asyncio.run(_serve(pool, count, prefix))
    return 0


async def _serve(pool: str, count: int, prefix: str) -> None:
    polls: list[tuple[float, float]] = []
    seconds = get_current_settings().worker.heartbeat_seconds
    timed = _timed(polls)
    workers = [
        timed(
            name=f"{prefix}-{number}",
            work_pool_name=pool,
            limit=4,
            heartbeat_interval_seconds=int(seconds),
            create_pool_if_not_found=False,
        )
        for number in range(count)
    ]
    tasks = [asyncio.create_task(_start(worker)) for worker in workers]
    while not all(worker.is_setup for worker in workers):
        for task in tasks:
            if task.done():
                task.result()
        await asyncio.sleep(0.1)
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    print(json.dumps(polls), flush=True)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _start(worker: Any) -> None:
    await asyncio.sleep(random.uniform(0, SPREAD_S))
    await worker.start(printer=lambda _: None)


def _timed(polls: list[tuple[float, float]]) -> Any:
    """The worker of a node, which notes when each poll ended and how long it took."""

    with warnings.catch_warnings():
        # It takes the place of the node's worker under the same name, as that did of Prefect's.
        warnings.simplefilter("ignore", UserWarning)

        class Timed(worker_class("process")):  # type: ignore[misc]
            async def _get_scheduled_flow_runs(self) -> Any:
                begun = time.perf_counter()
                found = await super()._get_scheduled_flow_runs()
                polls.append((time.time(), time.perf_counter() - begun))
                return found

    return Timed


if __name__ == "__main__":
    sys.exit(main())
