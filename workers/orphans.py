"""Payloads that outlive their pilot: written down when they start, killed when it is dead."""

import fcntl
import json
import logging
import os
import shutil
import signal
import threading
from contextlib import suppress
from pathlib import Path

from workers.cwl.containers import Containers
from workers.cwl.failures import ToolFailure

log = logging.getLogger(__name__)

_PILOT, _PAYLOADS, _HELD, _ENGINE = "pilot.json", "payloads", "held", "engine"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class PayloadLedger:
    """A pilot's own directory and the list of process groups that it started.

    The pilot holds a lock on one file of it as long as it lives, and with its payloads a lock on
    another: locks are seen from every container of a node, process numbers only from their own.
    """

    def __init__(self, work_dir: Path, pilot_id: int) -> None:
        self.directory = work_dir / f"pilot-{pilot_id}"
        self.directory.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(self.directory / _PAYLOADS, flags, 0o600)
        self.held = _lock(self.directory / _HELD)
        """Descriptor that a payload inherits."""
        self._pilot = self._declare()
        self._lock = threading.Lock()

    @classmethod
    def shared(cls, directory: Path, held: int) -> "PayloadLedger":
        """The ledger of a pilot for another process of it, which has inherited `held`."""
        ledger = cls.__new__(cls)
        ledger.directory, ledger.held = directory, held
        ledger._file = os.open(directory / _PAYLOADS, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        ledger._lock = threading.Lock()
        return ledger

    def _declare(self) -> int:
        """Write down who the pilot is; nobody sees the file without its lock."""
        partial = self.directory / f".{_PILOT}"
        partial.write_text(json.dumps({"pid": os.getpid(), "numbers": _numbers()}))
        descriptor = _lock(partial)
        partial.replace(self.directory / _PILOT)
        return descriptor

    def started(self, group: int) -> None:
        """Write a payload's process group down, as soon as it runs."""
        line = f"{group} {start_time(group) or 0}\n".encode()
        with self._lock:
            os.write(self._file, line)

    def uses(self, engine: str) -> None:
        """Write down which engine may run containers of the pilot, before the first of them."""
        partial = self.directory / f".{_ENGINE}"
        partial.write_text(engine)
        partial.replace(self.directory / _ENGINE)

    def close(self) -> None:
        """Remove the directory: nothing of the pilot is left to be cleaned up."""
        shutil.rmtree(self.directory, ignore_errors=True)
        for descriptor in (self._file, self.held, self._pilot):
            os.close(descriptor)


def clean_dead(work_dir: Path) -> int:
    """Kill the payloads of dead pilots of this node and remove their directories; gives how many.

    Safe to be run by many processes at once, in any container that shares the directory. What a
    pilot in another container left running is left to those who can see it.
    """
    count = 0
    for directory in sorted(work_dir.glob("pilot-*")):
        try:
            pilot = _lock(directory / _PILOT, os.O_RDWR)
        except OSError:
            continue
        try:
            count += _clean(directory)
        finally:
            os.close(pilot)
    return count


def _clean(directory: Path) -> bool:
    """Clean up after one dead pilot, whose lock is held; whether that could be done."""
    try:
        here = json.loads((directory / _PILOT).read_text())["numbers"] == _numbers()
        if here:
            _kill_all(directory)
        else:
            os.close(_lock(directory / _HELD))
        _remove_containers(directory)
    except (OSError, ValueError, KeyError):
        return False
    except ToolFailure as fault:
        log.warning("containers of a dead pilot may still run", extra={"fault": str(fault)})
        return False
    shutil.rmtree(directory, ignore_errors=True)
    log.info("cleaned up after a dead pilot", extra={"directory": str(directory)})
    return True


def _lock(path: Path, flags: int = os.O_RDWR | os.O_CREAT) -> int:
    """Lock a file, which ends with the last process that has the descriptor.

    Raises BlockingIOError where another holds it, FileNotFoundError.
    """
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _numbers() -> str:
    """Where process numbers mean what they mean here: this boot, this container."""
    namespace = Path("/proc/self/ns/pid").readlink()
    return f"{_BOOT_ID.read_text().strip()} {namespace}"


def _kill_all(directory: Path) -> None:
    with suppress(FileNotFoundError):
        for line in (directory / _PAYLOADS).read_text().splitlines():
            group, _, started = line.partition(" ")
            _kill(int(group), int(started))


def _remove_containers(directory: Path) -> None:
    """Remove the containers of a pilot: they end neither with it nor with what started them."""
    with suppress(FileNotFoundError):
        engine = (directory / _ENGINE).read_text()
        Containers(engine, str(directory)).remove_all()


def _kill(group: int, started: int) -> None:
    """Kill a group unless its number belongs to others by now.

    While a group has members its number isn't given to a new process: so a leader that is there
    must be the one written down, and one that is gone leaves only its own descendants.
    """
    found = start_time(group)
    if found is None or found == started:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None where there is no such process.

    Field 22 of /proc/<pid>/stat; see proc(5).
    """
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        stat = os.read(descriptor, 4096)
    except ProcessLookupError:
        return None
    finally:
        os.close(descriptor)
    return int(stat.rpartition(b")")[2].split()[19])
