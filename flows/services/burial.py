"""Flow runs whose process is gone: told to the server, so that they hold no slot of a queue.

A worker tells the server when a flow run's process dies; where both die, nobody does, and the
run stays RUNNING for ever. All flow runs of the embedded profile run on this machine, so those
without a process are dead.
"""

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from catalog.errors import Unavailable
from flows.queues import POOLS
from flows.server import Server, call_api
from flows.services.processes import ENGINE, environment_of, running

logger = logging.getLogger(__name__)

GRACE_S = 30.0
"""A run may take this long from its claim to its process, and from its end to its last state."""
FLOW_RUN_ID = "PREFECT__FLOW_RUN_ID"
PAGE = 200


def bury_dead_runs(server: Server, began: datetime) -> int:
    """Set the end of flow runs that have no process; gives how many. The server may be away.

    `began` is when the workers of now were started first: what was under way before is dead
    without any grace.
    """
    try:
        runs = _unended(server, began)
        if not runs:
            return 0
        alive = _running_here()
        dead = [run for run in runs if run["id"] not in alive]
        for run in dead:
            bury(lambda path, body: call_api(server, "POST", path, body), run)
    except Unavailable as error:
        logger.warning("dead flow runs were not looked for", extra={"why": str(error)})
        return 0
    return len(dead)


def _unended(server: Server, began: datetime) -> list[dict[str, Any]]:
    """Flow runs of deployments that are under way for some time, by the server."""
    body = {
        "flow_runs": {
            "state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}},
            "deployment_id": {"is_null_": False},
        },
        "work_pools": {"name": {"any_": list(POOLS)}},
        "sort": "START_TIME_ASC",
        "limit": PAGE,
    }
    moment, grace = datetime.now(UTC), timedelta(seconds=GRACE_S)
    # Services that were started while the clock was ahead didn't begin in a time to come.
    latest = max(began, moment - grace) if began <= moment else moment - grace
    return [
        run
        for run in call_api(server, "POST", "/flow_runs/filter", body)
        if (since := datetime.fromisoformat(run["state"]["timestamp"])) < latest
        # It began while the clock was ahead.
        or since > moment + grace
    ]


def _running_here() -> set[str]:
    """Ids of the flow runs that have a process, whoever started it."""
    return {environment_of(process).get(FLOW_RUN_ID, "") for process in running(command=ENGINE)}


def bury(post: Callable[[str, Any], Any], run: Mapping[str, Any]) -> None:
    """Tell the server the end of a run: CANCELLING was a command, anything else is CRASHED.

    `post` sends a body to a path of its API.
    """
    cancelled = run["state"]["type"] == "CANCELLING"
    state = {
        "type": "CANCELLED" if cancelled else "CRASHED",
        "name": "Cancelled" if cancelled else "Crashed",
        "message": "Its process is gone, and so is the worker that would have told.",
    }
    post(f"/flow_runs/{run['id']}/set_state", {"state": state, "force": True})
    logger.warning("dead flow run", extra={"flow_run": run["id"], "run": run["name"]})
