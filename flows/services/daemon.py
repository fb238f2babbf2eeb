"""The daemon of a compute node: keeps the Prefect workers of one pool, and the node in order."""

import logging
import os
import signal
import sys
import time
from dataclasses import asdict
from types import FrameType

from sqlalchemy.exc import DBAPIError

from catalog import nodes, pilots
from catalog.db import get_catalog
from catalog.errors import Conflict, Unavailable
from catalog.outage import ride_out
from catalog.settings import Settings
from catalog.states import NodeState
from flows.probing import Prober
from flows.queues import CONTROL
from flows.server import node_env
from flows.services import children, pace
from flows.services.keeper import Keeper
from flows.services.processes import ProcessId, end, marked
from flows.services.records import held
from flows.services.stopping import FLOW_RUN_SPARE_S, SERVICE_GRACE_S, stop_flow_runs
from flows.services.wake import Wake
from workers.devices import capacity, devices
from workers.node import program_version
from workers.orphans import clean_dead

logger = logging.getLogger(__name__)

_TICK_S = 0.25
_CLEAN_S = 5.0
_PACE_S = 30.0


class Daemon:
    """Serves one pool on this node until SIGTERM, SIGINT or a DRAINING mark in the catalog."""

    def __init__(self, settings: Settings, pool: str, kind: str) -> None:
        assert settings.work_dir is not None
        self._settings, self._pool, self._work_dir = settings, pool, settings.work_dir
        self._catalog = get_catalog()
        self.instance = f"{settings.node}:{pool}:{settings.work_dir}"
        self._pace_file = self._work_dir / f"worker-{pool}.pace"
        env = node_env(settings, self.instance) | {"SPDF_SLOTS": str(settings.slots)}
        self._keeper = Keeper(
            children.workers_of_pool(settings, env, pool, kind=kind, pace=self._pace_file),
            cwd=settings.work_dir,
        )
        self._wake = Wake(env, self.instance, self._work_dir / f"worker-{pool}.runs")
        self._stopping: str | None = None
        self._displaced = False
        self._program = program_version()
        self._prober = Prober(self._catalog, settings)
        self._out = False
        self._beaten = self._cleaned = self._paced = 0.0

    def run(self) -> None:
        """Serve; raises `Conflict` where another worker serves the node and pool."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        taken = (
            f"a worker of the pool {self._pool} already uses {self._work_dir}; stop that one, or "
            "give this one another SPDF_WORK_DIR and SPDF_NODE."
        )
        with held(self._work_dir / f"worker-{self._pool}.lock", taken):
            self._adopt()
            self._node_id = ride_out(self._announce, limit_s=self._settings.outage_s)
            logger.info("node online", extra={"node": self._settings.node, "pool": self._pool})
            while self._stopping is None:
                self._tick()
                time.sleep(_TICK_S)
            self._drain(self._stopping)
        if self._displaced:
            raise Conflict(
                f"another worker of the pool {self._pool} has announced itself as the node "
                f"{self._settings.node}; give each node a name of its own in SPDF_NODE."
            )

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        why = f"its worker was told to stop ({signal.strsignal(number)})"
        self._stopping = self._stopping or why

    def _adopt(self) -> None:
        """Take over after a daemon that was killed: its workers go, its flow runs go on."""
        left = [
            p for p, command in marked(self.instance).items() if children.NODE_WORKER in command
        ]
        end(left, grace_s=0, stop=signal.SIGKILL)
        clean_dead(self._work_dir)

    def _announce(self) -> int:
        settings, has = self._settings, capacity(self._settings)
        said = nodes.Announcement(
            name=settings.node,
            pool=self._pool,
            pid=os.getpid(),
            slots=has.cores,
            memory_mib=has.memory_mib,
            devices=tuple(asdict(device) for device in devices(settings)),
            engine=settings.container_engine or None,
            program=self._program,
        )
        with self._catalog.write() as session:
            return nodes.announce(session, said)

    def _tick(self) -> None:
        self._keeper.reap()
        for service in self._keeper.services:
            if service.due:
                self._keeper.start(service)
        now = time.monotonic()
        try:
            if now - self._beaten >= self._settings.heartbeat_s:
                self._beaten = now
                self._beat()
                self._prober.tick()
            if now - self._paced >= _PACE_S or self._out is not self._is_out():
                self._paced = now
                self._set_pace()
            if now - self._cleaned >= _CLEAN_S:
                self._cleaned = now
                clean_dead(self._work_dir)
                self._wake.hold()
        except (DBAPIError, Unavailable) as error:
            logger.warning("catalog or server away", extra={"fault": str(error)})
        except Exception:  # a long-lived loop: a defect must not end the node's service
            logger.exception("defect in the worker")

    def _beat(self) -> None:
        with self._catalog.write() as session:
            state = nodes.beat(session, self._node_id, os.getpid())
        if state is NodeState.DRAINING:
            self._stopping = self._stopping or "an operator asked for it"
        elif state is NodeState.OFFLINE:
            self._stopping, self._displaced = "another worker has its name", True
        if program_version() != self._program:
            self._start_anew()

    def _is_out(self) -> bool:
        """Whether the node can't run anything now, as its last look at itself said."""
        return self._prober.node_is_out

    def _set_pace(self) -> None:
        """Let the worker ask for pilots as often as the number of nodes allows.

        Of a node that is out it asks for none that others may have.
        """
        with self._catalog.read() as session:
            count = nodes.count_online(session, self._pool)
        self._out = self._is_out()
        period_s = pace.period_s(count, self._settings.worker_polls_per_s)
        pace.tell(self._pace_file, pace.NEVER_S if self._out else period_s)

    def _start_anew(self) -> None:
        """Become the program that is installed now; pilots that run go on."""
        logger.info("spdf was upgraded", extra={"before": self._program, "now": program_version()})
        self._catalog.close()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])

    def _drain(self, reason: str) -> None:
        """Start nothing more, let pilots finish or hand back what they hold, and leave."""
        logger.info("draining", extra={"why": reason, "at_most_s": self._settings.drain_s})
        workers = [
            identity
            for service in self._keeper.services
            if service.process and (identity := ProcessId.of(service.process.pid))
        ]
        # A worker that is asked to stop kills its flow runs at once: it is halted until they end.
        for worker in workers:
            worker.send(signal.SIGSTOP)
        # What the catalog says under this name may be another's: then only signals reach our own.
        if self._pool != CONTROL and not self._displaced:
            self._drain_pilots(reason)
        stop_flow_runs(self.instance, self._settings.drain_s + FLOW_RUN_SPARE_S, self._keeper.reap)
        end(workers, grace_s=SERVICE_GRACE_S, tick=self._keeper.reap)
        clean_dead(self._work_dir)
        try:
            with self._catalog.write() as session:
                nodes.leave(session, self._node_id, os.getpid(), reason)
        except DBAPIError as error:
            logger.warning("catalog away at the end", extra={"fault": str(error.orig)})
        logger.info("node offline")

    def _drain_pilots(self, reason: str) -> None:
        """Mark the pilots of this node until none is left, also those that were just starting."""
        settings = self._settings
        until = time.monotonic() + settings.drain_s + 2 * settings.heartbeat_s
        while self._wake.running() and time.monotonic() < until:
            try:
                with self._catalog.write() as session:
                    nodes.drain(session, [self._node_id], reason)
                    mine = pilots.live_on(session, settings.node, self._pool)
                    pilots.drain(session, mine, reason)
            except DBAPIError as error:
                logger.warning("catalog away", extra={"fault": str(error.orig)})
                return
            self._keeper.reap()
            time.sleep(1.0)
