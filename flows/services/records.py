"""What runs for an SPDF_HOME, written down in `SPDF_HOME/run`, one file per service."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from catalog.errors import Conflict
from catalog.settings import Settings
from flows.server import write_private
from flows.services.processes import ProcessId

SUPERVISOR = "supervisor"


@dataclass(frozen=True)
class Record:
    """A service as its supervisor last saw it. `pid` is 0 while it waits to be started."""

    name: str
    kind: str
    pid: int
    started: float
    restarts: int = 0
    last_exit: int | None = None

    @property
    def process(self) -> ProcessId:
        """The process that was started for it."""
        return ProcessId(self.pid, self.started)

    @property
    def alive(self) -> bool:
        """Whether that very process still runs."""
        return self.pid > 0 and self.process.alive()


def run_dir(settings: Settings) -> Path:
    """Where records stand."""
    return settings.home / "run"


def log_path(settings: Settings, name: str) -> Path:
    """The log of a service."""
    return settings.home / "log" / f"{name}.log"


def write_record(settings: Settings, record: Record) -> None:
    """Replace a service's record."""
    write_private(run_dir(settings) / f"{record.name}.json", json.dumps(asdict(record)) + "\n")


def read_records(settings: Settings) -> dict[str, Record]:
    """All records, by name; one that can't be read is left out."""
    records = {}
    for path in sorted(run_dir(settings).glob("*.json")):
        try:
            record = Record(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            continue
        records[record.name] = record
    return records


def remove_records(settings: Settings) -> None:
    """Forget all services."""
    for path in run_dir(settings).glob("*.json"):
        path.unlink(missing_ok=True)


@contextmanager
def only_one(settings: Settings) -> Iterator[None]:
    """Keep a second `up` or `down` of the same SPDF_HOME out; raises `Conflict`."""
    run_dir(settings).mkdir(parents=True, exist_ok=True)
    taken = f"another `spdf up` or `spdf down` is at work on {settings.home}; wait for it."
    with held(run_dir(settings) / "lock", taken):
        yield


@contextmanager
def held(path: Path, taken: str) -> Iterator[None]:
    """Hold a lock on a file; raises `Conflict(taken)` where another process does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(taken) from None
        yield
    finally:
        os.close(descriptor)
