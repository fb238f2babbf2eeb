"""Watching services in a thread of its own: to ask a server that hangs takes seconds."""

import threading
import time

from catalog.outage import isolated
from catalog.settings import Settings
from flows.server import Server
from flows.services.health import Condition, Word, check
from flows.services.records import read_records

EVERY_S = 5.0
PATIENCE_S = 60.0
"""A service must be found unhealthy for so long before it is started anew."""


class Watcher:
    """Knows how each service does, and for how long it has done so."""

    def __init__(self, settings: Settings, server: Server) -> None:
        self._settings, self._server = settings, server
        self._found: dict[str, tuple[int, Condition, float]] = {}

    def start(self) -> None:
        """Begin to look, for as long as the process lives."""
        threading.Thread(target=self._run, name="watcher", daemon=True).start()

    def _run(self) -> None:
        while True:
            with isolated("errand", "health", outage=lambda _error: False):
                self.look()
            time.sleep(EVERY_S)

    def look(self) -> None:
        """Look once."""
        pids = {name: record.pid for name, record in read_records(self._settings).items()}
        health = check(self._settings, self._server)
        found = {}
        for name, condition in health.items():
            pid = pids.get(name, 0)
            before = self._found.get(name)
            same = before is not None and before[0] == pid and before[1].word is condition.word
            since = before[2] if before and same else time.monotonic()
            found[name] = pid, condition, since
        self._found = found

    def condition(self, name: str, pid: int) -> Condition:
        """How a service does; one that is unhealthy since just now may yet be starting.

        So may one whose process is another than that which was looked at.
        """
        known = self._found.get(name)
        if known is None or known[0] != pid:
            return Condition(Word.STARTING)
        _, condition, since = known
        if condition.word is Word.UNHEALTHY and time.monotonic() - since < PATIENCE_S:
            return Condition(Word.STARTING)
        return condition
