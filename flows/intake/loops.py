"""Loops: threads that take turns until they are stopped, whatever happens in one."""

import logging
import threading
import time
from collections.abc import Callable

from sqlalchemy.exc import DBAPIError

from catalog import fulldisk
from catalog.outage import Over, is_away
from flows.leading import LONGEST_BACKOFF_S
from flows.pulse import Pulse

log = logging.getLogger(__name__)


class Stopped(Over):
    """The loops are to end: this process has lost its role, or is asked to stop."""


class Loop(threading.Thread):
    """Calls `turn` again and again; it gives the seconds until the next one.

    A turn that fails is tried again, ever more seldom. `Stopped`, raised by one, ends all loops
    that share `stop`. `pulse` hears of each turn.
    """

    def __init__(
        self, name: str, turn: Callable[[], float], stop: threading.Event, pulse: Pulse
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._turn, self._stop_event, self._pulse = turn, stop, pulse

    def run(self) -> None:
        """Take turns until `stop` is set."""
        backoff_s = 1.0
        while not self._stop_event.is_set():
            try:
                with self._pulse.turn(self.name):
                    wait_s = self._turn()
                backoff_s = 1.0
            except Stopped:
                self._stop_event.set()
                return
            except DBAPIError as error:
                if is_away(error):
                    why = fulldisk.told(error) or str(error.orig)
                    log.warning("catalog away", extra={"loop": self.name, "why": why})
                else:
                    log.exception("a turn failed", extra={"loop": self.name})
                wait_s, backoff_s = backoff_s, min(2 * backoff_s, LONGEST_BACKOFF_S)
            except Exception:
                log.exception("a turn failed", extra={"loop": self.name, "again_s": backoff_s})
                wait_s, backoff_s = backoff_s, min(2 * backoff_s, LONGEST_BACKOFF_S)
            self._stop_event.wait(wait_s)


def paced(turn: Callable[[], object], every_s: float) -> Callable[[], float]:
    """Turns that begin `every_s` apart, or at once where one took longer.

    What comes one by one is then done together: a transaction for each would keep others from
    theirs.
    """

    def take() -> float:
        begun = time.monotonic()
        turn()
        return max(0.0, begun + every_s - time.monotonic())

    return take
