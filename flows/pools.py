"""Work pools and their queues, laid down idempotently."""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.filters import WorkQueueFilter, WorkQueueFilterName
from prefect.client.schemas.objects import WorkQueue
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from catalog.errors import Conflict
from flows.containers import DOCKER, PROCESS, pass_settings
from flows.queues import CONTROL, CONTROL_QUEUES, CPU, DEFAULT_QUEUE, GPU
from flows.server import project_file

DESCRIPTIONS = {
    CONTROL: "Orchestration: workflows, watchdog and housekeeping. Runs no payloads.",
    CPU: "Pilots for stages that need no GPU.",
    GPU: "Pilots for stages that need a GPU.",
}


def ensure_pools(
    client: SyncPrefectClient,
    *,
    gpu: bool,
    pilots_in: str = PROCESS,
    values: Mapping[str, Any] | None = None,
) -> tuple[str, ...]:
    """Make or bring up to date the pools and the queues of `control`; gives the pools' names.

    `pilots_in` is the type of the pools for payloads, `process` or `docker`, and `values` are
    those of their variables. A limit that an operator has set on the queue is left as it is.
    Raises `Conflict` for a pool of another type.
    """
    names = (CONTROL, CPU, GPU) if gpu else (CONTROL, CPU)
    _ensure_pool(client, CONTROL, PROCESS, base_job_template(CONTROL))
    for name in names[1:]:
        _ensure_pool(client, name, pilots_in, base_job_template(name, pilots_in, values))
    ensure_control_queues(client, CONTROL_QUEUES)
    for name in names[1:]:
        _ensure_queue(client, name, DEFAULT_QUEUE, priority=MOST_RANK + 1)
    return names


def ensure_control_queues(client: SyncPrefectClient, names: Iterable[str]) -> None:
    """Make or bring up to date these queues of `control`.

    A worker that asks for runs of several queues gets none while one of them is missing.
    """
    for name in names:
        priority, limit = CONTROL_QUEUES[name]
        _ensure_queue(client, CONTROL, name, priority=priority, limit=limit)


MOST_RANK = 99
"""Ranks beyond it, either way, count as it."""


def queue_of_rank(client: SyncPrefectClient, pool: str, rank: int) -> str:
    """The queue of a pool that serves a rank, made where there is none; gives its name.

    A higher rank is a smaller number in Prefect, and 1 is served first.
    """
    rank = max(-MOST_RANK, min(MOST_RANK, rank))
    if rank == 0:
        return DEFAULT_QUEUE
    name = f"rank-{rank:+d}"
    if _find_queue(client, pool, name) is None:
        try:
            client.create_work_queue(name=name, work_pool_name=pool, priority=MOST_RANK + 1 - rank)
        except ObjectAlreadyExists:
            pass
    return name


def base_job_template(
    pool: str, kind: str = PROCESS, values: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """How the workers of a pool start a flow run: as a process, or in a container.

    `values` are what its variables are where a deployment says nothing else.
    """
    ending = "" if kind == PROCESS else f"-{kind}"
    path = project_file(f"deployments/pool-{pool}{ending}.json")
    template: dict[str, Any] = json.loads(path.read_text())
    for name, value in (values or {}).items():
        template["variables"]["properties"][name]["default"] = value
    if kind == DOCKER:
        pass_settings(template)
    return template


def _ensure_pool(client: SyncPrefectClient, name: str, kind: str, template: dict[str, Any]) -> None:
    try:
        found = client.read_work_pool(name)
    except ObjectNotFound:
        wanted = WorkPoolCreate(
            name=name,
            type=kind,
            description=DESCRIPTIONS[name],
            base_job_template=template,
        )
        try:
            client.create_work_pool(wanted)
        except ObjectAlreadyExists:
            pass
        return
    if found.type != kind:
        raise Conflict(
            f"the pool {name} is of type {found.type}, and SPDF_PILOTS_IN asks for {kind}; "
            "a pool's type can't change: delete it in Prefect when it has no runs."
        )
    if found.base_job_template != template:
        client.update_work_pool(name, WorkPoolUpdate(base_job_template=template))


def _ensure_queue(
    client: SyncPrefectClient, pool: str, name: str, *, priority: int, limit: int | None = None
) -> None:
    """A queue of a pool, of that priority: 1 is served first."""
    queue = _find_queue(client, pool, name)
    if queue is None:
        with suppress(ObjectAlreadyExists):
            client.create_work_queue(
                name=name, work_pool_name=pool, priority=priority, concurrency_limit=limit
            )
        return
    kept = limit if queue.concurrency_limit is None else queue.concurrency_limit
    if (queue.priority, queue.concurrency_limit) != (priority, kept):
        client.update_work_queue(queue.id, priority=priority, concurrency_limit=kept)


def _find_queue(client: SyncPrefectClient, pool: str, name: str) -> WorkQueue | None:
    named = WorkQueueFilter(name=WorkQueueFilterName(any_=[name]))
    found: list[WorkQueue] = client.read_work_queues(work_pool_name=pool, work_queue_filter=named)
    return found[0] if found else None
