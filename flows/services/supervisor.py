"""The supervisor: starts the services of the embedded profile and keeps them alive."""

import logging
import os
import shutil
import signal
import sys
import time
from datetime import UTC, datetime
from types import FrameType

from catalog.errors import SpdfError
from catalog.settings import Settings, get_settings
from flows.logs import log_to_stderr
from flows.server import Server, read_server
from flows.services import children
from flows.services.burial import bury_dead_runs
from flows.services.keeper import Keeper
from flows.services.processes import ProcessId
from flows.services.records import SUPERVISOR, Record, log_path, write_record
from flows.services.stopping import stop_services
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
        while not self.stopping:
            self._tick()
            time.sleep(TICK_S)
        stop_services(self.settings, self.server, tick=self.keeper.reap)
        logger.info("supervisor stopped")

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stopping = True

    def _tick(self) -> None:
        """Start what is due and allowed: nothing but the server until it is set up."""
        self.keeper.reap()
        self._bound_logs()
        for service in self.keeper.services:
            if self.stopping:
                return
            if service.due:
                self.keeper.start(service)
            if service.child.kind == children.SETUP and not service.done:
                return
        self._bury()

    def _bury(self) -> None:
        if time.monotonic() - self._graves_checked > BURIAL_S:
            bury_dead_runs(self.server, self._began)
            self._graves_checked = time.monotonic()

    def _bound_logs(self) -> None:
        """Keep each log under twice LOG_BYTES: services hold it open, so it is copied and cut."""
        if time.monotonic() - self._logs_checked < 30:
            return
        self._logs_checked = time.monotonic()
        for path in log_path(self.settings, "x").parent.glob("*.log"):
            if path.stat().st_size > LOG_BYTES:
                shutil.copyfile(path, path.with_suffix(".log.1"))
                os.truncate(path, 0)


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
