"""`python -m flows.recorder`: the recorder as a long-lived process."""

import logging
import sys
import threading
import time

import prefect
from prefect.client.orchestration import get_client
from sqlmodel import Session

from catalog import singletons
from catalog.db import Catalog, get_catalog
from catalog.errors import Unavailable
from catalog.settings import Settings, get_settings
from catalog.troubles import Troubles
from flows.leading import (
    LEASE_S,
    LONGEST_BACKOFF_S,
    lead,
    owner_name,
    prepare,
    stop_on_signals,
)
from flows.pulse import Pulse, tell
from flows.recorder.api import TaskRunApi
from flows.recorder.names import RECORDER
from flows.recorder.pace import Pace
from flows.recorder.rounds import Counts, Fence, LostLease, record_once
from flows.recorder.rows import TaskRunRows
from flows.server import server_database

logger = logging.getLogger(__name__)

IDLE_S, BUSY_S = 1.0, 0.2
LAST_ROUNDS_S = 8.0
"""Time that a recorder asked to stop spends on what is still to be shown."""


class Recorder:
    """Takes the recorder's lease and shows attempts until it is asked to stop."""

    def __init__(self, catalog: Catalog, api: TaskRunApi, settings: Settings) -> None:
        self.catalog, self.api = catalog, api
        self.pace = Pace(settings.recorder_unconfirmed, settings.recorder_batch)
        self.owner = owner_name()
        self.stop = threading.Event()
        self._database = server_database(settings)
        self._written: TaskRunRows | None = None
        self._asked = False
        self._pulse = Pulse(settings, RECORDER)
        self._troubles = Troubles(catalog, RECORDER)

    def run(self) -> None:
        """Wait for the lease, record while it is held, and give it back at the end."""
        lead(self.catalog, RECORDER, self.owner, self.stop, self._lead, self._pulse)

    def _lead(self, epoch: int) -> None:
        """Record until asked to stop, and then a little longer; ends at once without the lease."""
        fence = self._fence(epoch)
        backoff_s = 1.0
        until: float | None = None
        while until is None or time.monotonic() < until:
            counts = Counts()
            try:
                with self._pulse.turn("rounds"):
                    with self.catalog.write() as session:
                        fence(session)
                    counts = record_once(self.catalog, self.api, self.pace, fence, self._rows())
                tell(self._pulse, self._troubles, RECORDER)
                wait_s, backoff_s = IDLE_S if counts.idle else BUSY_S, 1.0
            except LostLease:
                logger.warning("recorder lost its lease", extra={"owner": self.owner})
                return
            except Unavailable as error:
                self._asked = False
                logger.warning("recorder waits", extra={"why": str(error), "again_s": backoff_s})
                wait_s, backoff_s = backoff_s, min(2 * backoff_s, LONGEST_BACKOFF_S)
            except Exception:
                logger.exception("a round failed", extra={"again_s": backoff_s})
                wait_s, backoff_s = backoff_s, min(2 * backoff_s, LONGEST_BACKOFF_S)
            if self.stop.is_set():
                until = until or time.monotonic() + LAST_ROUNDS_S
                if counts.idle:
                    break
                time.sleep(BUSY_S)
            else:
                self.stop.wait(wait_s)
        with self.catalog.write() as session:
            singletons.release(session, RECORDER, self.owner, epoch)

    def _rows(self) -> TaskRunRows | None:
        """The way into the server's database, where that is known and of our version of Prefect."""
        if self._database and not self._asked:
            if self._written is not None:
                self._written.close()
                self._written = None
            theirs = self.api.version()
            self._asked = True
            if theirs == prefect.__version__:
                self._written = TaskRunRows(self._database)
            else:
                logger.warning(
                    "all attempts are posted as events: the server's version is another",
                    extra={"server": theirs, "ours": prefect.__version__},
                )
        return self._written

    def _fence(self, epoch: int) -> Fence:
        def fence(session: Session) -> None:
            if not singletons.renew(session, RECORDER, self.owner, epoch, LEASE_S):
                raise LostLease

        return fence


def main() -> int:
    """Record until SIGTERM."""
    settings = get_settings()
    try:
        prepare(settings)
    except Unavailable as error:
        logger.error("no server: %s", error)
        return Unavailable.exit_code
    with get_client(sync_client=True) as client:
        recorder = Recorder(get_catalog(), TaskRunApi(client), settings)
        stop_on_signals(recorder.stop)
        recorder.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
