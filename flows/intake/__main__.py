"""`python -m flows.intake`: the intake as a long-lived process."""

import logging
import sys
import threading
import time

from sqlmodel import Session

from catalog import cattime, singletons
from catalog.db import Catalog, get_catalog
from catalog.errors import Unavailable
from catalog.requests.processor import Processor, collect_rarely
from catalog.settings import Settings, get_settings
from catalog.troubles import Troubles
from flows.intake import INTAKE
from flows.intake.closing import Closing
from flows.intake.generator import Generator
from flows.intake.housework import Housework
from flows.intake.loops import Loop, Stopped, paced
from flows.intake.spool import Spool
from flows.intake.watches import Watches
from flows.leading import LEASE_S, lead, owner_name, prepare, stop_on_signals
from flows.pulse import Pulse, tell

log = logging.getLogger(__name__)

_BEAT_S = 4.0
_REQUESTS_S, _SPOOL_S = 0.15, 0.25
_SWITCH_S = 0.0005
"""How long one loop may compute while another wants to, as each does after every system call.

At Python's 5 ms loops wait for each other longer than they work. Below this the many that wait
wake up so often that they take a core for nothing.
"""


class Intake:
    """Takes the intake's lease, and works until it is lost or the process is asked to stop."""

    def __init__(self, catalog: Catalog, settings: Settings) -> None:
        self._catalog, self._settings = catalog, settings
        self.owner = owner_name()
        self.stop = threading.Event()
        self._pulse = Pulse(settings, INTAKE)
        self._troubles = Troubles(catalog, INTAKE)

    def run(self) -> None:
        """Wait for the lease, work while it is held, and give it back at the end."""
        lead(self._catalog, INTAKE, self.owner, self.stop, self._lead, self._pulse)

    def _lead(self, epoch: int) -> None:
        over = threading.Event()

        def fence(session: Session) -> None:
            if over.is_set() or not singletons.renew(session, INTAKE, self.owner, epoch, LEASE_S):
                raise Stopped

        def beat() -> float:
            with self._catalog.write() as session:
                fence(session)
                cattime.keep(session)
            tell(self._pulse, self._troubles, INTAKE)
            return _BEAT_S

        processor = Processor(self._catalog, fence)
        assert self._settings.spool is not None
        spool = Spool(self._settings.spool, self._catalog)
        housework = Housework(self._catalog, fence)
        watches = Watches(self._catalog, self._settings.look_s)
        closing = Closing(self._catalog, fence, self._settings.idle_s)
        loops = [
            Loop("beat", beat, over, self._pulse),
            Loop(
                "requests",
                paced(lambda: processor.turn(_REQUESTS_S), _REQUESTS_S),
                over,
                self._pulse,
            ),
            Loop("close", closing.turn, over, self._pulse),
            Loop("housework", housework.turn, over, self._pulse),
            Loop("watch", watches.turn, over, self._pulse),
            Loop("match", Generator(self._catalog, fence).turn, over, self._pulse),
            Loop("spool", paced(spool.look, _SPOOL_S), over, self._pulse),
        ]
        for loop in loops:
            loop.start()
        while not (self.stop.is_set() or over.is_set()):
            time.sleep(0.1)
        lost = not self.stop.is_set()
        over.set()
        for loop in loops:
            loop.join()
        watches.close()
        processor.close()
        if lost:
            log.warning("intake lost its lease", extra={"owner": self.owner})
            return
        with self._catalog.write() as session:
            singletons.release(session, INTAKE, self.owner, epoch)


def main() -> int:
    """Work until SIGTERM."""
    settings = get_settings()
    try:
        prepare(settings)
    except Unavailable as error:
        log.error("no server: %s", error)
        return Unavailable.exit_code
    collect_rarely()
    sys.setswitchinterval(_SWITCH_S)
    intake = Intake(get_catalog(), settings)
    stop_on_signals(intake.stop)
    intake.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
