"""What is done now and then besides: lifetimes, marks of storages, and runs that are needed."""

import logging
import time
from collections.abc import Callable

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import PrefectException
from sqlmodel import Session

from catalog import deletion, lifecycle, singletons, uploads, usage
from catalog.db import Catalog
from flows.deletion import DELETION
from flows.upload import UPLOAD, role_name

log = logging.getLogger(__name__)

EVERY_S = 2.0
_SAMPLE_S = 60.0
_AGAIN_S = 120.0
"""A run that was started and did not begin is started again after that."""


class Housework:
    """Takes turns of it."""

    def __init__(self, catalog: Catalog, fence: Callable[[Session], None]) -> None:
        self._catalog, self._fence = catalog, fence
        self._sampled = float("-inf")
        self._released = 0

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
            wanted: dict[str, list[tuple[str, dict[str, int]]]] = {}
            if deletion.is_pending(session) and not singletons.is_held(session, DELETION):
                epoch = singletons.epoch(session, DELETION)
                wanted[f"{DELETION}/{DELETION}"] = [(f"{DELETION}:{epoch}", {})]
            left = [
                (f"{role_name(info.id)}:{singletons.epoch(session, role_name(info.id))}",
                 {"upload": info.id})
                for info in uploads.going(session)
                if not singletons.is_held(session, role_name(info.id))
            ]  # fmt: skip
            if left:
                wanted[f"{UPLOAD}/{UPLOAD}"] = left
        if not wanted:
            return
        try:
            with get_client(sync_client=True) as client:
                for deployment, runs in wanted.items():
                    _start(client, deployment, runs)
        except (httpx.HTTPError, PrefectException) as error:
            log.warning("runs could not be started", extra={"why": str(error)})


def _start(
    client: SyncPrefectClient, deployment: str, runs: list[tuple[str, dict[str, int]]]
) -> None:
    """Start runs once: until one has begun, or has not for long, it is the same."""
    found = client.read_deployment_by_name(deployment)
    bucket = int(time.time() // _AGAIN_S)
    for key, parameters in runs:
        client.create_flow_run_from_deployment(
            found.id, parameters=parameters, idempotency_key=f"{key}:{bucket}"
        )
