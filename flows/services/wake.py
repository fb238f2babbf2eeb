"""The flow runs of a node's worker: those whose process died are told to the server.

A worker tells the server when a flow run's process dies; where both die, nobody does, and the run
stays RUNNING for ever. So a node remembers, on its disk, which runs it has seen at work.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.server import ask, write_private
from flows.services.burial import FLOW_RUN_ID, bury
from flows.services.processes import ENGINE, environment_of, marked

logger = logging.getLogger(__name__)

_LOOKS = 6
"""A run's process is gone for so many looks before it counts as dead: its worker may be telling."""
_FINAL = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})


class Wake:
    """Flow runs that were seen on this node, in `path`; `env` names the server and its login."""

    def __init__(self, env: Mapping[str, str], instance: str, path: Path) -> None:
        self._url = env.get("PREFECT_API_URL", "")
        self._login = env.get("PREFECT_API_AUTH_STRING", "")
        self._instance, self._path = instance, path
        self._missed = dict.fromkeys(_read(path), 0)

    def running(self) -> set[str]:
        """Ids of the flow runs of this worker that have a process."""
        found = {
            environment_of(process).get(FLOW_RUN_ID, "")
            for process, command in marked(self._instance).items()
            if ENGINE in command
        }
        return found - {""}

    def hold(self) -> int:
        """Look once; gives how many dead runs were told. Raises `Unavailable`."""
        alive, before = self.running(), set(self._missed)
        for run_id in before - alive:
            self._missed[run_id] += 1
        self._missed |= dict.fromkeys(alive, 0)
        count = 0
        for run_id in [r for r, looks in self._missed.items() if looks >= _LOOKS]:
            count += self._settle(run_id)
            del self._missed[run_id]
        if set(self._missed) != before:
            write_private(self._path, json.dumps(sorted(self._missed)) + "\n")
        return count

    def _settle(self, run_id: str) -> int:
        run: Any = ask(self._url, self._login, "GET", f"/flow_runs/{run_id}")
        if run is None or run["state"]["type"] in _FINAL:
            return 0
        bury(lambda path, body: ask(self._url, self._login, "POST", path, body), run)
        return 1


def _read(path: Path) -> list[str]:
    try:
        return [str(run_id) for run_id in json.loads(path.read_text())]
    except (OSError, ValueError):
        return []
