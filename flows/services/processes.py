"""Processes by identity: a pid together with its start time, so that a reused pid is no match."""

import os
import signal
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from flows.server import COOKIE

ENGINE = "prefect.engine"
"""What the command line of a flow run's process holds."""


@dataclass(frozen=True)
class ProcessId:
    """One process of this machine, now and for ever."""

    pid: int
    started: float
    """Clock ticks since boot where /proc is; else seconds since the epoch."""

    @classmethod
    def of(cls, pid: int) -> "ProcessId | None":
        """The process that has this pid now; None where there is none."""
        started = _start_time(pid)
        return None if started is None else cls(pid, started)

    def alive(self) -> bool:
        """Whether it still runs; a zombie doesn't."""
        return _start_time(self.pid) == self.started

    def age_s(self) -> float:
        """For how long it runs, whatever the clock was set to meanwhile."""
        if Path("/proc/self/stat").exists():
            ticks = os.sysconf("SC_CLK_TCK")
            return time.clock_gettime(time.CLOCK_BOOTTIME) - self.started / ticks
        return time.time() - self.started

    def send(self, number: signal.Signals) -> bool:
        """Signal it, if it still runs; whether it was there."""
        if not self.alive():
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True


def children_of(parents: Iterable[ProcessId], *, recursive: bool = False) -> set[ProcessId]:
    """The processes that these have started."""
    found: set[ProcessId] = set()
    for parent in parents:
        if not parent.alive():
            continue
        try:
            children = psutil.Process(parent.pid).children(recursive=recursive)
        except psutil.Error:
            continue
        found.update(child for child in map(ProcessId.of, (c.pid for c in children)) if child)
    return found


def marked(instance: str) -> dict[ProcessId, str]:
    """This user's processes that carry the mark of an SPDF_HOME, with their command lines."""
    found = {}
    for process in psutil.process_iter():
        identity = ProcessId.of(process.pid)
        if identity and environment_of(identity).get(COOKIE) == instance:
            try:
                found[identity] = " ".join(process.cmdline())
            except psutil.Error:
                continue
    return found


def running(*, command: str) -> set[ProcessId]:
    """Processes whose command line holds `command`."""
    found = set()
    for process in psutil.process_iter():
        try:
            matches = command in " ".join(process.cmdline())
        except psutil.Error:
            continue
        identity = ProcessId.of(process.pid) if matches else None
        if identity is not None:
            found.add(identity)
    return found


def environment_of(process: ProcessId) -> dict[str, str]:
    """What a process was started with; empty where that may not be read."""
    try:
        return dict(psutil.Process(process.pid).environ())
    except (OSError, psutil.Error):
        return {}


def end(
    processes: Collection[ProcessId],
    *,
    grace_s: float,
    stop: signal.Signals = signal.SIGTERM,
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Ask processes to stop, wait up to `grace_s`, and kill what is left, with its descendants."""
    for process in processes:
        process.send(stop)
        process.send(signal.SIGCONT)
    if not wait_gone(processes, grace_s, tick):
        left = [process for process in processes if process.alive()]
        doomed = children_of(left, recursive=True) | set(left)
        for process in doomed:
            process.send(signal.SIGKILL)
        wait_gone(doomed, 5.0, tick)


def wait_gone(
    processes: Collection[ProcessId], limit_s: float, tick: Callable[[], None] = lambda: None
) -> bool:
    """Wait until none of them runs; False if some still do after `limit_s`."""
    until = time.monotonic() + limit_s
    while any(process.alive() for process in processes):
        if time.monotonic() > until:
            return False
        tick()
        time.sleep(0.1)
    return True


def _start_time(pid: int) -> float | None:
    """When the process began; None if it is gone or a zombie.

    Taken from /proc where there is one: psutil's time moves when the system's clock is set.
    """
    if Path("/proc/self/stat").exists():
        try:
            text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except OSError:
            return None
        fields = text.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else float(fields[19])
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None
