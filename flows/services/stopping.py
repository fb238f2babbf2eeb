"""Stopping what runs for an SPDF_HOME, and nothing else: workers first, the server last."""

import os
import signal
import time
from collections.abc import Callable

import psutil

from catalog.settings import Settings
from flows.server import Server
from flows.services import children
from flows.services.processes import ENGINE, ProcessId, children_of, end, marked, wait_gone
from flows.services.records import SUPERVISOR, read_records

FLOW_RUN_SPARE_S = 15.0
SERVICE_GRACE_S = 15.0


def stop_services(
    settings: Settings, server: Server, *, tick: Callable[[], None] = lambda: None
) -> list[str]:
    """Stop the services and the flow runs that they started; gives the names of what ran.

    Flow runs get `drain_s` to hand back their jobs while the server still listens. `tick` is
    called while waiting.
    """
    records = [r for r in read_records(settings).values() if r.kind != SUPERVISOR and r.alive]
    by_kind: dict[str, list[ProcessId]] = {}
    for record in records:
        by_kind.setdefault(record.kind, []).append(record.process)
    workers = by_kind.get(children.WORKER, [])
    # A worker that is asked to stop kills its flow runs at once: they are to hand back first.
    # Until then it must not start others, so it is halted.
    for process in workers:
        process.send(signal.SIGSTOP)
    flow_runs = stop_flow_runs(server.instance, settings.drain_s + FLOW_RUN_SPARE_S, tick)
    end(workers, grace_s=SERVICE_GRACE_S, tick=tick)
    for kind in (children.SETUP, children.INTAKE, children.RECORDER, children.SERVER):
        end(by_kind.get(kind, []), grace_s=SERVICE_GRACE_S, tick=tick)
    # PostgreSQL takes SIGTERM for "wait until all clients have gone".
    end(by_kind.get(children.BACKEND, []), grace_s=SERVICE_GRACE_S, stop=signal.SIGINT, tick=tick)
    end(_strays(server), grace_s=SERVICE_GRACE_S, tick=tick)
    flow_run_names = [f"flow run (pid {pid})" for pid in sorted(p.pid for p in flow_runs)]
    return [record.name for record in records] + flow_run_names


def stop_flow_runs(instance: str, limit_s: float, tick: Callable[[], None]) -> set[ProcessId]:
    """Terminate the flow runs of an instance, also those that a worker was just starting.

    What a flow run leaves running at its end (payloads of a pilot that died) is killed.
    """
    asked: set[ProcessId] = set()
    payloads: set[ProcessId] = set()
    begin = time.monotonic()
    while time.monotonic() < begin + limit_s:
        found = {p for p, command in marked(instance).items() if ENGINE in command}
        payloads |= children_of(found, recursive=True)
        for process in found - asked:
            process.send(signal.SIGTERM)
        asked |= found
        # One that was just started shows its command line a moment later.
        if not found and time.monotonic() > begin + 1.0:
            break
        tick()
        time.sleep(0.5)
    left = {process for process in asked | payloads if process.alive()}
    for process in left:
        process.send(signal.SIGKILL)
    wait_gone(left, 5.0, tick)
    return asked


def _strays(server: Server) -> list[ProcessId]:
    """What carries this SPDF_HOME's mark without a record, but for ourselves and our parents."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [process for process in marked(server.instance) if process.pid not in own]
