"""The heartbeat: keeps the leases of a pilot, and learns which it has lost."""

import logging
import threading
import time

from sqlalchemy.exc import DBAPIError

from catalog import attempts
from catalog.db import Catalog
from catalog.states import PilotState
from flows.shift.hand import Hand

log = logging.getLogger(__name__)


class Heart(threading.Thread):
    """A thread that renews all leases of a pilot; payloads of lost ones are killed."""

    def __init__(
        self, catalog: Catalog, hand: Hand, pilot_id: int, *, beat_s: float, lease_s: float
    ) -> None:
        super().__init__(name="heart", daemon=True)
        self._catalog, self._hand, self._pilot_id = catalog, hand, pilot_id
        self._beat_s, self._lease_s = beat_s, lease_s
        self._renewed = time.monotonic()
        self._end = threading.Event()
        self.state = PilotState.ACTIVE

    @property
    def may_lease(self) -> bool:
        """Whether the pilot is wanted and its last renewal recent enough to take more on."""
        margin_s = min(2 * self._beat_s, self._lease_s / 2)
        fresh = time.monotonic() - self._renewed < self._lease_s - margin_s
        return fresh and self.state is PilotState.ACTIVE

    def stop(self) -> None:
        """End the thread after the beat in progress."""
        self._end.set()

    def run(self) -> None:
        """Beat until stopped."""
        while not self._end.wait(self._beat_s):
            try:
                self.beat()
            except DBAPIError as error:
                log.warning("no heartbeat", extra={"fault": str(error.orig)})
            except Exception:  # a long-lived loop: a defect must not stop the heart unseen
                log.exception("defect in the heartbeat")

    def beat(self) -> None:
        """Renew, read the pilot's state, and stop jobs that are no longer ours."""
        mine = self._hand.all()
        phases = self._hand.new_phases()
        with self._catalog.write() as session:
            beat = attempts.heartbeat(session, self._pilot_id, self._lease_s, phases)
        self._renewed = time.monotonic()
        self._hand.told(phases)
        self.state = beat.state
        for job in mine:
            # One handed back meanwhile may be ours again, under the same number: a word to stop it
            # would reach the new lease.
            if job.spec.job_id not in beat.held and job in self._hand:
                job.abandon()
                job.halt()
