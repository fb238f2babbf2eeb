"""Keeping processes alive: started, written down, and started anew when they end."""

import logging
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from flows.services import children
from flows.services.children import Child
from flows.services.processes import ProcessId
from flows.services.records import Record

logger = logging.getLogger(__name__)

LONGEST_BACKOFF_S = 30.0
LONGEST_SICK_S = 300.0
"""The longest that a service which gets nowhere, whatever process it has, waits for the next."""
SETTLED_S = 60.0
"""A service that lived this long starts anew without a backoff."""


@dataclass
class Service:
    """A child with what became of it."""

    child: Child
    process: subprocess.Popen[bytes] | None = None
    began: float = 0.0
    not_before: float = 0.0
    quick_ends: int = 0
    restarts: int = 0
    last_exit: int | None = None
    done: bool = False
    sick: int = 0
    """How often in a row it was ended because it got nowhere."""
    ended_at: float | None = None

    @property
    def due(self) -> bool:
        """Whether it is to be started now."""
        return not self.done and self.process is None and time.monotonic() >= self.not_before


class Keeper:
    """The services of one parent process.

    `log` opens what a service writes to; None leaves it with the parent's own output. `note` gets
    what becomes of each.
    """

    def __init__(
        self,
        wanted: Sequence[Child],
        *,
        cwd: Path,
        log: Callable[[str], IO[bytes]] | None = None,
        note: Callable[[Record], None] = lambda _record: None,
    ) -> None:
        self.services = [Service(child) for child in wanted]
        self._cwd, self._log, self._note = cwd, log, note

    def start(self, service: Service) -> None:
        """Start a service in a session of its own."""
        log = self._log(service.child.name) if self._log else None
        try:
            process = subprocess.Popen(
                service.child.command,
                env=dict(service.child.env),
                cwd=self._cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        finally:
            if log is not None:
                log.close()
        service.process, service.began = process, time.monotonic()
        logger.info("service started", extra={"service": service.child.name, "pid": process.pid})
        self._record(service)

    def end_sick(self, service: Service, why: str, number: signal.Signals) -> None:
        """End a service that runs and gets nowhere; it is started anew, ever later."""
        if service.process is None or service.ended_at is not None:
            return
        service.sick += 1
        service.ended_at = time.monotonic()
        logger.warning(
            "unhealthy service is started anew",
            extra={"service": service.child.name, "why": why, "times": service.sick},
        )
        service.process.send_signal(number)

    def kill_unwilling(self, grace_s: float) -> None:
        """Kill those that were asked to end and did not, within that time."""
        for service in self.services:
            ended = service.ended_at
            if service.process and ended is not None and time.monotonic() - ended > grace_s:
                service.process.kill()

    def reap(self) -> None:
        """Learn which services have ended, and plan their next start."""
        for service in self.services:
            if service.process is None or service.process.poll() is None:
                continue
            service.last_exit = service.process.returncode
            service.process = None
            if service.child.kind == children.SETUP and service.last_exit == 0:
                service.done = True
            else:
                _plan_restart(service)
            self._record(service)

    def _record(self, service: Service) -> None:
        identity = ProcessId.of(service.process.pid) if service.process else None
        self._note(
            Record(
                name=service.child.name,
                kind=service.child.kind,
                pid=identity.pid if identity else 0,
                started=identity.started if identity else 0.0,
                restarts=service.restarts,
                last_exit=service.last_exit,
            ),
        )


def _plan_restart(service: Service) -> None:
    lived = time.monotonic() - service.began
    service.quick_ends = 0 if lived > SETTLED_S else service.quick_ends + 1
    backoff = min(2.0 ** (service.quick_ends - 1), LONGEST_BACKOFF_S)
    if service.ended_at is not None:
        backoff = min(2.0**service.sick, LONGEST_SICK_S)
        service.ended_at = None
    service.not_before = time.monotonic() + backoff
    service.restarts += 1
    logger.warning(
        "service ended",
        extra={"service": service.child.name, "exit": service.last_exit, "again_s": backoff},
    )
