"""The supervisor: starts the services of the embedded profile and keeps them alive."""

import logging
import os
import shutil
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from catalog.errors import SpdfError
from catalog.outage import isolated
from catalog.settings import Settings, get_settings
from flows.logs import log_to_stderr
from flows.server import Server, read_server
from flows.services import children
from flows.services.burial import bury_dead_runs
from flows.services.health import Word
from flows.services.keeper import Keeper
from flows.services.processes import ProcessId
from flows.services.records import SUPERVISOR, Record, log_path, write_record
from flows.services.stopping import SERVICE_GRACE_S, stop_services
from flows.services.watcher import Watcher
from workers.devices import has_gpu

logger = logging.getLogger(__name__)

TICK_S = 0.25
BURIAL_S = 10.0
LOG_BYTES = 20 * 2**20


class Supervisor:
    """Runs until SIGTERM or SIGINT, then stops all that it started, the server last."""

    def __init__(self, settings: Settings, server: Server) -> None:
        self.settings, self.server = settings, server
        gpu = has_gpu(settings)
        self.keeper = Keeper(
            children.services(settings, server, gpu=gpu),
            cwd=settings.home,
            log=lambda name: log_path(settings, name).open("ab"),
            note=lambda record: write_record(settings, record),
        )
        self.stopping = False
        self.watcher = Watcher(settings, server)
        self._logs_checked = 0.0
        self._graves_checked = 0.0
        self._began = datetime.now(UTC)

    def run(self) -> None:
        """Start, watch, and stop."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        own = ProcessId.of(os.getpid())
        assert own is not None
        write_record(self.settings, Record(SUPERVISOR, SUPERVISOR, own.pid, own.started))
        logger.info("supervisor started", extra={"home": str(self.settings.home)})
        self.watcher.start()
        while not self.stopping:
            with isolated("errand", "supervision", outage=_never):
                self._tick()
            time.sleep(TICK_S)
        stop_services(self.settings, self.server, tick=self.keeper.reap)
        logger.info("supervisor stopped")

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stopping = True

    def _tick(self) -> None:
        """Start what is due and allowed: nothing but the server until it is set up."""
        self.keeper.reap()
        with isolated("errand", "logs", outage=_never):
            self._bound_logs()
        for service in self.keeper.services:
            if self.stopping:
                return
            if service.due:
                # One that can't be started now (no process, no log file) keeps no other from it.
                with isolated("service", service.child.name, outage=_never):
                    self.keeper.start(service)
            if service.child.kind == children.SETUP and not service.done:
                return
        self._mend()
        with isolated("errand", "burial", outage=_never):
            self._bury()

    def _mend(self) -> None:
        """Start those anew that run and get nowhere."""
        self.keeper.kill_unwilling(SERVICE_GRACE_S)
        for service in self.keeper.services:
            name, process = service.child.name, service.process
            condition = self.watcher.condition(name, process.pid if process else 0)
            if condition.word is Word.HEALTHY:
                service.sick = 0
            if condition.word is Word.UNHEALTHY and condition.is_mendable:
                # A worker that is asked to end takes its flow runs with it; killed, it leaves them.
                is_worker = service.child.kind == children.WORKER
                number = signal.SIGKILL if is_worker else signal.SIGTERM
                self.keeper.end_sick(service, condition.why or "", number)

    def _bury(self) -> None:
        if time.monotonic() - self._graves_checked > BURIAL_S:
            self._graves_checked = time.monotonic()
            bury_dead_runs(self.server, self._began)

    def _bound_logs(self) -> None:
        """Keep each log under twice LOG_BYTES: services hold it open, so it is copied and cut."""
        if time.monotonic() - self._logs_checked < 30:
            return
        self._logs_checked = time.monotonic()
        for path in log_path(self.settings, "x").parent.glob("*.log"):
            with isolated("log", path.name, outage=_never):
                if path.stat().st_size > LOG_BYTES:
                    _cut(path)


def _cut(log: Path) -> None:
    """Begin a log anew; what was in it is kept beside, where there is room."""
    try:
        shutil.copyfile(log, log.with_suffix(".log.1"))
    finally:
        # Also where the copy found no room: a disk that is full gets none by a log that grows.
        os.truncate(log, 0)


def _never(_error: BaseException) -> bool:
    """Nothing is an outage here: who keeps the others alive has nobody to leave it to."""
    return False


def main() -> int:
    """Supervise the services of SPDF_HOME."""
    settings = get_settings()
    log_to_stderr(settings)
    server = read_server(settings)
    if server is None:
        logger.error("no server.json in %s: start with `spdf up`", settings.home)
        return 2
    try:
        Supervisor(settings, server).run()
    except SpdfError:
        logger.exception("supervisor failed")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
