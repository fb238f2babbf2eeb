"""The few requests of Prefect's API that the recorder needs."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient

from catalog.errors import Unavailable

PAGE = 200
"""The server's own limit on what one answer holds."""

_BUSY = frozenset({401, 403, 408, 425, 429})


class Refused(Exception):
    """The server says that what was posted is wrong: posting it again won't help."""


@dataclass(frozen=True)
class ShownState:
    """What the server shows of a task run: a state's type and its time."""

    type: str
    at: datetime


class TaskRunApi:
    """Posts events and logs, and reads back. Raises `Unavailable` while the server is away."""

    def __init__(self, client: SyncPrefectClient) -> None:
        self._client = client

    def existing_flow_runs(self, ids: Collection[str]) -> set[str]:
        """Those of the flow runs that the server has."""
        found: set[str] = set()
        wanted = sorted(ids)
        for start in range(0, len(wanted), PAGE):
            body = {"flow_runs": {"id": {"any_": wanted[start : start + PAGE]}}, "limit": PAGE}
            found.update(run["id"] for run in self._post("/flow_runs/filter", body))
        return found

    def post_events(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Post events in one request; raises `Refused`."""
        self._post("/events", list(events))

    def count_in_state(self, ids: Collection[UUID], state_type: str) -> int:
        """How many of the task runs are in a state of that type."""
        body = {
            "task_runs": {
                "id": {"any_": [str(i) for i in ids]},
                "state": {"type": {"any_": [state_type]}},
            }
        }
        return int(self._post("/task_runs/count", body))

    def read_states(self, ids: Sequence[UUID]) -> dict[UUID, ShownState]:
        """The states of those of the task runs that the server has."""
        states = {}
        for start in range(0, len(ids), PAGE):
            chunk = [str(i) for i in ids[start : start + PAGE]]
            body = {"task_runs": {"id": {"any_": chunk}}, "limit": PAGE}
            for run in self._post("/task_runs/filter", body):
                state = run["state"] or {"type": "", "timestamp": run["created"]}
                at = datetime.fromisoformat(state["timestamp"])
                states[UUID(run["id"])] = ShownState(state["type"], at)
        return states

    def with_logs(self, ids: Collection[UUID]) -> set[UUID]:
        """Those of the task runs that have logs."""
        body = {"logs": {"task_run_id": {"any_": [str(i) for i in ids]}}, "limit": PAGE}
        return {UUID(entry["task_run_id"]) for entry in self._post("/logs/filter", body)}

    def post_logs(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Post log lines in one request; raises `Refused`."""
        self._post("/logs/", list(entries))

    def version(self) -> str:
        """The server's version of Prefect."""
        return str(self._ask("GET", "/admin/version"))

    def _post(self, path: str, body: Any) -> Any:
        return self._ask("POST", path, body)

    def _ask(self, method: Literal["GET", "POST"], path: str, body: Any = None) -> Any:
        try:
            # The routes that the client's types name leave some of these out.
            answer = self._client.request(method, path, json=body)  # type: ignore[arg-type]
        except httpx.HTTPStatusError as error:
            code = error.response.status_code
            if 400 <= code < 500 and code not in _BUSY:
                raise Refused(f"{code} to {method} {path}: {error.response.text[:300]}") from error
            raise Unavailable(f"the Prefect server answered {code} to {method} {path}.") from error
        except httpx.HTTPError as error:
            raise Unavailable(f"the Prefect server doesn't answer: {error!r}.") from error
        return answer.json() if answer.content else None
