"""The pulse of a service: what each of its loops does, in a file that others read.

A loop that turns without getting anywhere looks alive from outside: it has a pid and holds its
role. So a service writes `SPDF_HOME/run/NAME.pulse` every few seconds: of each loop when a turn
went through last, how many have failed since then and why, and since when the present one lasts.
Times are of the machine's monotonic clock, which all its processes share.
"""

import json
import logging
import os
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from catalog.outage import Over, is_outage, sentence
from catalog.settings import Settings
from catalog.troubles import Of, Troubles

log = logging.getLogger(__name__)

WRITTEN_S = 2.0
FAILS_S, FAILS = 30.0, 3
"""A loop is unhealthy once so many turns in a row have failed, for so long."""
STALLED_S = 900.0
"""A turn that lasts so long is stuck."""
SILENT_S = 60.0
"""A service that has not written for so long does nothing at all."""


@dataclass(frozen=True)
class Loop:
    """One loop: its last turn that went through, and what became of those after it."""

    ok_at: float
    failures: int = 0
    failing_since: float | None = None
    why: str | None = None
    outage: bool = False
    begun_at: float | None = None

    def trouble(self, at: float) -> str | None:
        """Why the loop gets nowhere, in words; None where it does."""
        since = self.failing_since
        if since is not None and self.failures >= FAILS and at - since >= FAILS_S:
            return f"failed {self.failures} times in {at - since:.0f} s: {self.why}"
        if self.begun_at is not None and at - self.begun_at >= STALLED_S:
            return f"has not ended a turn for {at - self.begun_at:.0f} s"
        return None


@dataclass(frozen=True)
class Beat:
    """What a service has written: by which process, when, and each loop by its name."""

    pid: int
    at: float
    loops: Mapping[str, Loop]

    def trouble(self, at: float) -> tuple[str, bool] | None:
        """Why the service gets nowhere, and whether a new process might; None where it does.

        A catalog or server that is away isn't mended by a new process.
        """
        if at - self.at >= SILENT_S:
            return f"has shown no sign of life for {at - self.at:.0f} s", True
        for name, loop in sorted(self.loops.items()):
            if (why := loop.trouble(at)) is not None:
                return f"its loop `{name}` {why}", not loop.outage
        return None


class Pulse:
    """Writes the pulse of this process; what can't be written never stops a loop."""

    def __init__(self, settings: Settings, name: str) -> None:
        self._path = pulse_path(settings, name)
        self._loops: dict[str, Loop] = {}
        self._lock = threading.Lock()

    @contextmanager
    def turn(self, loop: str) -> Iterator[None]:
        """A turn of a loop; its error is noted, and raised as it came."""
        before = self._begin(loop)
        try:
            yield
        except Over:
            self._end(loop, Loop(time.monotonic()))
            raise
        except Exception as error:
            now = time.monotonic()
            self._end(
                loop,
                Loop(
                    before.ok_at,
                    before.failures + 1,
                    now if before.failing_since is None else before.failing_since,
                    sentence(error),
                    is_outage(error),
                ),
            )
            raise
        else:
            self._end(loop, Loop(time.monotonic()))

    def forget(self) -> None:
        """The loops have ended: this process waits for its role again."""
        with self._lock:
            self._loops.clear()

    def loops(self) -> dict[str, Loop]:
        """Each loop as it is now."""
        with self._lock:
            return dict(self._loops)

    def keep_writing(self) -> None:
        """Write every few seconds, from a thread of its own: silence then means a dead process."""
        threading.Thread(target=self._keep_writing, name="pulse", daemon=True).start()

    def _keep_writing(self) -> None:
        while True:
            self.write()
            time.sleep(WRITTEN_S)

    def write(self) -> None:
        """Write what is so now."""
        beat = Beat(os.getpid(), time.monotonic(), self.loops())
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            part = self._path.with_suffix(".part")
            part.write_text(json.dumps(asdict(beat)))
            part.replace(self._path)
        except OSError as error:
            log.warning("the pulse can't be written", extra={"why": str(error)})

    def _begin(self, loop: str) -> Loop:
        with self._lock:
            known = self._loops.get(loop) or Loop(time.monotonic())
            self._loops[loop] = replace(known, begun_at=time.monotonic())
            return known

    def _end(self, loop: str, told: Loop) -> None:
        with self._lock:
            self._loops[loop] = told


def pulse_path(settings: Settings, name: str) -> Path:
    """Where a service writes its pulse."""
    return settings.home / "run" / f"{name}.pulse"


def read_pulse(settings: Settings, name: str, pid: int) -> Beat | None:
    """What that very process has written; None where it has written nothing yet."""
    try:
        found = json.loads(pulse_path(settings, name).read_text())
        loops = {loop: Loop(**told) for loop, told in found["loops"].items()}
        beat = Beat(found["pid"], found["at"], loops)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return beat if beat.pid == pid else None


def tell(pulse: Pulse, troubles: Troubles, service: str) -> None:
    """Note as rows which loops of this process get nowhere, for those who don't see its file."""
    for name, loop in pulse.loops().items():
        number = zlib.crc32(name.encode())
        if loop.trouble(time.monotonic()) is None:
            troubles.over(Of.SERVICE, number)
        else:
            told = f"its loop `{name}` gets nowhere: {loop.why or 'its turn does not end'}"
            troubles.note(Of.SERVICE, number, service, told)
