"""Payloads of dead pilots. Their reapers end them; those that are dead, too, were written down."""

import errno
import fcntl
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path

from workers.cwl.containers import Containers
from workers.cwl.failures import ToolFailure
from workers.cwl.left import read_left
from workers.reaper import Process, end_session, look
from workers.workspace import remove_tree

log = logging.getLogger(__name__)

_PILOT, _PAYLOADS, _HELD, _ENGINE = "pilot.json", "payloads", "held", "engine"
_MOST_BYTES = 64 << 20
"""Of a pilot's own files, which its payloads may have written to."""
_END_S, _PAUSE_S = 2.0, 0.01
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class PayloadLedger:
    """A pilot's own directory and the list of its reapers.

    The pilot holds a lock on one file of it as long as it lives, and with its payloads and their
    reapers a lock on another: locks are seen from every container of a node, process numbers only
    from their own.
    """

    def __init__(self, work_dir: Path, pilot_id: int) -> None:
        self.directory = work_dir / f"pilot-{pilot_id}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        with ExitStack() as undo:
            undo.callback(remove_tree, self.directory)
            self.directory.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.directory / _PAYLOADS, flags, 0o600)
            undo.callback(os.close, self._file)
            self.held = _lock(self.directory / _HELD)
            """Descriptor that a payload inherits; its reaper keeps it until all has ended."""
            undo.callback(os.close, self.held)
            self._pilot = self._declare()
            undo.pop_all()
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

    def started(self, pid: int) -> None:
        """Write a reaper down, before anything runs below it. Raises `OSError`."""
        found = look(pid)
        # A line that a full disk has cut short must not run into this one.
        line = f"\n{pid} {found.started if found else 0}\n".encode()
        with self._lock:
            written = os.write(self._file, line)
        if written < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.directory / _PAYLOADS))

    def uses(self, engine: str) -> None:
        """Write down which engine may run containers of the pilot, before the first of them."""
        partial = self.directory / f".{_ENGINE}"
        partial.write_text(engine)
        partial.replace(self.directory / _ENGINE)

    def close(self) -> None:
        """Remove the directory: nothing of the pilot is left to be cleaned up."""
        remove_tree(self.directory)
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
        here = json.loads(read_left(directory / _PILOT, _MOST_BYTES))["numbers"] == _numbers()
        if here:
            _end_all(directory)
        os.close(_lock(directory / _HELD))
        _remove_containers(directory)
    except (OSError, ValueError, KeyError):
        return False
    except ToolFailure as fault:
        log.warning("containers of a dead pilot may still run", extra={"fault": str(fault)})
        return False
    remove_tree(directory)
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


def _end_all(directory: Path) -> None:
    """Wait for reapers to end their payloads, and end what those leave that are dead.

    A reaper leads a session, and while that has members its number isn't given to a new process:
    so one that is there must be the one written down, and one that is gone leaves only what ran
    below it. What left the session has inherited the lock, unless it closed all descriptors.
    """
    with suppress(FileNotFoundError):
        known = _reapers(directory)
        deadline = time.monotonic() + _END_S
        while _is_held(directory) and time.monotonic() < deadline:
            _end_sessions(known)
            if not living_reapers(directory):
                _kill_holders(directory / _HELD)
            time.sleep(_PAUSE_S)
        _end_sessions(known)


def living_reapers(directory: Path) -> dict[int, Process]:
    """The reapers of a pilot that live, by number. Raises FileNotFoundError without their list."""
    known = _reapers(directory)
    found = {pid: look(pid) for pid in known}
    return {pid: one for pid, one in found.items() if one and one.started == known[pid]}


def _reapers(directory: Path) -> dict[int, int]:
    """All reapers that a pilot ever had, and when they started."""
    lines = map(bytes.split, read_left(directory / _PAYLOADS, _MOST_BYTES).splitlines())
    # Below one whose line was cut short nothing has run.
    return {int(line[0]): int(line[1]) for line in lines if len(line) == 2}


def _end_sessions(known: Iterable[int]) -> None:
    for pid in known:
        if look(pid) is None:
            end_session(pid, _END_S)


def _is_held(directory: Path) -> bool:
    try:
        os.close(_lock(directory / _HELD))
    except BlockingIOError:
        return True
    return False


def _kill_holders(path: Path) -> None:
    """Kill all processes that have a file open, as far as that can be seen."""
    name = str(path.resolve())
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if str(link.readlink()) == name:
                os.kill(int(link.parts[2]), signal.SIGKILL)


def _remove_containers(directory: Path) -> None:
    """Remove the containers of a pilot: they end neither with it nor with what started them."""
    with suppress(FileNotFoundError):
        engine = read_left(directory / _ENGINE, _MOST_BYTES).decode()
        Containers(engine, str(directory)).remove_all()
