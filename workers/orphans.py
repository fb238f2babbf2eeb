"""Payloads that outlive their pilot: written down when they start, killed when it is dead."""

import json
import logging
import os
import shutil
import signal
import threading
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

_PILOT, _PAYLOADS = "pilot.json", "payloads"


class PayloadLedger:
    """A pilot's own directory and the list of process groups that it started."""

    def __init__(self, work_dir: Path, pilot_id: int) -> None:
        self.directory = work_dir / f"pilot-{pilot_id}"
        self.directory.mkdir(parents=True, exist_ok=True)
        me = os.getpid()
        partial = self.directory / f".{_PILOT}"
        partial.write_text(json.dumps({"pid": me, "started": start_time(me)}))
        partial.replace(self.directory / _PILOT)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(self.directory / _PAYLOADS, flags, 0o600)
        self._lock = threading.Lock()

    def started(self, group: int) -> None:
        """Write a payload's process group down, as soon as it runs."""
        line = f"{group} {start_time(group) or 0}\n".encode()
        with self._lock:
            os.write(self._file, line)

    def close(self) -> None:
        """Remove the directory: nothing of the pilot is left to be cleaned up."""
        os.close(self._file)
        shutil.rmtree(self.directory, ignore_errors=True)


def clean_dead(work_dir: Path) -> int:
    """Kill the payloads of dead pilots of this node and remove their directories; gives how many.

    Safe to be run by many processes at once: a pilot is dead when its pid is gone or is that of a
    process that started at another time.
    """
    count = 0
    for directory in sorted(work_dir.glob("pilot-*")):
        try:
            pilot = json.loads((directory / _PILOT).read_text())
        except (OSError, ValueError):
            continue
        if pilot["started"] == start_time(pilot["pid"]):
            continue
        with suppress(FileNotFoundError):
            for line in (directory / _PAYLOADS).read_text().splitlines():
                group, _, started = line.partition(" ")
                _kill(int(group), int(started))
        shutil.rmtree(directory, ignore_errors=True)
        log.info("cleaned up after a dead pilot", extra={"directory": str(directory)})
        count += 1
    return count


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
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    return int(stat.rpartition(b")")[2].split()[19])
