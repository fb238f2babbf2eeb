"""Loops: threads that take turns until they are stopped, whatever happens in one."""

import logging
import threading
from collections.abc import Callable

from sqlalchemy.exc import DBAPIError

from catalog.outage import is_away
from flows.leading import LONGEST_BACKOFF_S

log = logging.getLogger(__name__)


class Stopped(Exception):
    """The loops are to end: this process has lost its role, or is asked to stop."""


class Loop(threading.Thread):
    """Calls `turn` again and again; it gives the seconds until the next one.

    A turn that fails is tried again, ever more seldom. `Stopped`, raised by one, ends all loops
    that share `stop`.
    """

    def __init__(self, name: str, turn: Callable[[], float], stop: threading.Event) -> None:
        super().__init__(name=name, daemon=True)
        self._turn, self._stop_event = turn, stop

    def run(self) -> None:
        """Take turns until `stop` is set."""
        backoff_s = 1.0
        while not self._stop_event.is_set():
            try:
                wait_s, backoff_s = self._turn(), 1.0
            except Stopped:
                self._stop_event.set()
                return
            except DBAPIError as error:
                if is_away(error):
                    log.warning("catalog away", extra={"loop": self.name, "why": str(error.orig)})
                else:
                    log.exception("a turn failed", extra={"loop": self.name})
                wait_s, backoff_s = backoff_s, min(2 * backoff_s, LONGEST_BACKOFF_S)
            except Exception:
                log.exception("a turn failed", extra={"loop": self.name, "again_s": backoff_s})
                wait_s, backoff_s = backoff_s, min(2 * backoff_s, LONGEST_BACKOFF_S)
            self._stop_event.wait(wait_s)
