"""What is done now and then besides: lifetimes, marks of storages, and runs that are needed."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectException
from sqlmodel import Session

from catalog import datasets, deletion, lifecycle, singletons, uploads, usage
from catalog.db import Catalog
from flows.deletion import DELETION
from flows.upload import UPLOAD, role_name

log = logging.getLogger(__name__)

EVERY_S = 2.0
_SAMPLE_S = 60.0
BEGIN_S, LONGEST_S = 20.0, 600.0
"""A run takes its role within the first time; the same errand waits up to the second."""


class Housework:
    """Takes turns of it."""

    def __init__(self, catalog: Catalog, fence: Callable[[Session], None]) -> None:
        self._catalog, self._fence = catalog, fence
        self._sampled = float("-inf")
        self._released = 0
        self._again = Again()

    def turn(self) -> float:
        """Do what is due; gives the seconds until the next turn."""
        with self._catalog.write() as session:
            self._fence(session)
            gone = deletion.expire(session)
            released, self._released = lifecycle.release(session, self._released)
            usage.fold(session)
            changed = usage.press(session)
            if time.monotonic() - self._sampled >= _SAMPLE_S:
                usage.sample(session)
                self._sampled = time.monotonic()
        for name in gone:
            log.info("dataset expired", extra={"dataset": name})
        for name in released:
            log.info("dataset released", extra={"dataset": name})
        for name, word in changed.items():
            log.warning("storage passed a mark", extra={"storage": name, "now": word})
        self._start_runs()
        return EVERY_S

    def _start_runs(self) -> None:
        """Start the flow runs that have something to do, and don't go on."""
        with self._catalog.read() as session:
            wanted = [
                errand
                for errand in _errands(session)
                if not singletons.is_held(session, errand.role)
            ]
        due = self._again.due(wanted)
        if not due:
            return
        try:
            with get_client(sync_client=True) as client:
                for errand in due:
                    found = client.read_deployment_by_name(f"{errand.flow}/{errand.flow}")
                    client.create_flow_run_from_deployment(found.id, parameters=errand.parameters)
                    self._again.started(errand)
        except (httpx.HTTPError, PrefectException) as error:
            log.warning("runs could not be started", extra={"why": str(error)})


@dataclass(frozen=True)
class Errand:
    """What a flow run is needed for; `progress` is another one once it got anywhere."""

    flow: str
    role: str
    progress: tuple[int, ...]
    upload: int | None = None

    @property
    def parameters(self) -> dict[str, int]:
        """Of its flow run."""
        return {} if self.upload is None else {"upload": self.upload}


def _errands(session: Session) -> list[Errand]:
    deleting = datasets.deleting(session)
    found = []
    if deleting:
        found.append(Errand(DELETION, DELETION, tuple(info.id for info in deleting)))
    for info in uploads.going(session):
        found.append(Errand(UPLOAD, role_name(info.id), (info.files_done,), info.id))
    return found


class Again:
    """When a run is started again for the same errand: at once if it got further, else ever later.

    So a storage that is away for a night doesn't fill Prefect with runs that fail.
    """

    def __init__(self) -> None:
        self._last: dict[str, tuple[tuple[int, ...], float, float]] = {}

    def due(self, wanted: Sequence[Errand]) -> list[Errand]:
        """Those whose run is to be started now; what isn't wanted any more is forgotten."""
        roles = {errand.role for errand in wanted}
        self._last = {role: last for role, last in self._last.items() if role in roles}
        return [errand for errand in wanted if self._is_due(errand)]

    def _is_due(self, errand: Errand) -> bool:
        progress, at, wait_s = self._last.get(errand.role, ((), 0.0, 0.0))
        waited_s = time.monotonic() - at
        return waited_s >= (wait_s if progress == errand.progress else min(wait_s, BEGIN_S))

    def started(self, errand: Errand) -> None:
        """A run was started for it."""
        progress, _, wait_s = self._last.get(errand.role, ((), 0.0, 0.0))
        next_s = min(2 * wait_s, LONGEST_S) if progress == errand.progress else BEGIN_S
        self._last[errand.role] = errand.progress, time.monotonic(), max(next_s, BEGIN_S)
