"""`up`, `down` and `status` of the embedded profile."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from catalog import fulldisk
from catalog.db import get_catalog
from catalog.errors import Conflict, Unavailable
from catalog.schema import upgrade
from catalog.settings import Settings
from flows.containers import DOCKER, check_docker
from flows.server import Server, prefect_home, prepare_server, read_server
from flows.services import children
from flows.services.health import DOWN, Condition, Health, Word, check
from flows.services.processes import ProcessId, end, wait_gone
from flows.services.records import (
    SUPERVISOR,
    Record,
    log_path,
    only_one,
    read_records,
    remove_records,
    run_dir,
)
from flows.services.stopping import FLOW_RUN_SPARE_S, SERVICE_GRACE_S, stop_services
from workers.devices import has_gpu

START_LIMIT_S = 180.0
MOST_RESTARTS = 3
"""A service that ended this often while `up` waits is taken for broken."""
LOG_LINES = 15
_NOT_SHOWN = (SUPERVISOR, children.SETUP)


@dataclass(frozen=True)
class UpInfo:
    """What a user needs to know of a server that is up."""

    ui_url: str
    api_url: str
    user: str
    password: str
    already: bool
    services: tuple[str, ...]

    @property
    def login(self) -> str:
        """What the web page asks for, in one word: `user:password`."""
        return f"{self.user}:{self.password}"


@dataclass(frozen=True)
class ServiceStatus:
    """One service: `pid` is None where it doesn't run.

    `state` is down, starting, unhealthy or healthy; `why` says why it isn't the last.
    """

    name: str
    pid: int | None
    healthy: bool
    restarts: int
    state: str = Word.DOWN.value
    why: str | None = None


@dataclass(frozen=True)
class Status:
    """Whether the embedded profile is up and well, and each of its services.

    `state` is that of the whole: down, starting, unhealthy or healthy.
    """

    up: bool
    supervisor_pid: int | None
    ui_url: str | None
    api_url: str | None
    services: tuple[ServiceStatus, ...] = ()
    problems: tuple[str, ...] = field(default=())
    state: str = Word.DOWN.value


class StartFailed(Unavailable):
    """`up` gave up: names the service that failed, and shows the end of its log."""

    def __init__(self, service: str, why: str, log: Path, lines: str) -> None:
        self.service, self.log, self.lines = service, log, lines
        shown = f"; the end of {log}:\n{lines}" if lines else f"; its log is {log}."
        super().__init__(f"{service} {why}{shown}")


def up(
    settings: Settings,
    *,
    progress: Callable[[str], None] = lambda _waiting_for: None,
    limit_s: float = START_LIMIT_S,
) -> UpInfo:
    """Start the embedded profile and wait until all of it is healthy.

    What a killed supervisor left is stopped first. On failure all that was started is stopped.
    `progress` hears what is being waited for. Raises `StartFailed`,
    `Conflict`, `Unavailable` where pilots are to run in containers and can't.
    """
    if settings.api_url:
        raise Conflict(
            f"{settings.home} is set for the site at {settings.api_url}, which has its own server; "
            "`spdf worker start` makes this machine a node of it."
        )
    if settings.pilots_in == DOCKER:
        check_docker(settings)
    _make_home(settings)
    with only_one(settings):
        server = read_server(settings)
        already = server is not None and _supervisor(settings) is not None
        if server is None or not already:
            _clean_up(settings, server)
            progress("catalog")
            _prepare_data(settings)
            server = prepare_server(settings)
            _start_supervisor(settings)
        try:
            _wait_healthy(settings, server, progress, limit_s)
        except StartFailed:
            if not already:
                _stop(settings, server)
            raise
        names = tuple(r.name for r in read_records(settings).values() if r.kind not in _NOT_SHOWN)
        return UpInfo(server.ui_url, server.api_url, server.user, server.password, already, names)


def down(settings: Settings) -> list[str]:
    """Stop what `up` started, wait until it is gone, and give the names; [] if nothing ran."""
    server = read_server(settings)
    if server is None:
        return []
    with only_one(settings):
        return _stop(settings, server)


def status(settings: Settings) -> Status:
    """How the embedded profile does, without changing anything."""
    server = read_server(settings)
    records = read_records(settings)
    supervisor = _supervisor(settings)
    running = [r for r in records.values() if r.alive and r.name != SUPERVISOR]
    if server is None or (supervisor is None and not running):
        full = tuple(fulldisk.problems(settings))
        return Status(up=False, supervisor_pid=None, ui_url=None, api_url=None, problems=full)
    health = check(settings, server)
    services = tuple(
        _service(record, health.get(record.name, DOWN))
        for record in records.values()
        if record.kind not in _NOT_SHOWN
    )
    problems = [*fulldisk.problems(settings)]
    problems += [] if supervisor else ["the supervisor is gone: run `spdf up` to start anew"]
    problems += [
        f"{s.name} is {s.state}{f': {s.why}' if s.why else ''}; see {log_path(settings, s.name)}"
        for s in services
        if not s.healthy
    ]
    pid = supervisor.pid if supervisor else None
    state = _whole(records, health, supervised=supervisor is not None)
    return Status(
        state is Word.HEALTHY,
        pid,
        server.ui_url,
        server.api_url,
        services,
        tuple(problems),
        state.value,
    )


def _service(record: Record, condition: Condition) -> ServiceStatus:
    word = condition.word
    return ServiceStatus(
        record.name,
        record.pid if record.alive else None,
        word is Word.HEALTHY,
        record.restarts,
        word.value,
        condition.why,
    )


def _whole(records: Mapping[str, Record], health: Health, *, supervised: bool) -> Word:
    """The state of all, the worst of each; what was not started yet waits for the set-up."""
    words = {health.get(r.name, DOWN).word for r in records.values() if r.name != SUPERVISOR}
    if not supervised or words & {Word.UNHEALTHY, Word.DOWN}:
        return Word.UNHEALTHY
    is_laid_down = any(r.kind == children.SETUP for r in records.values())
    return Word.HEALTHY if words == {Word.HEALTHY} and is_laid_down else Word.STARTING


def _supervisor(settings: Settings) -> ProcessId | None:
    record = read_records(settings).get(SUPERVISOR)
    return record.process if record and record.alive else None


def _make_home(settings: Settings) -> None:
    """SPDF_HOME and its folders: what lies there holds logins, so it is the owner's alone."""
    for path in (settings.home, prefect_home(settings), run_dir(settings)):
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o700)
    log_path(settings, "x").parent.mkdir(exist_ok=True, mode=0o700)


def _prepare_data(settings: Settings) -> None:
    """The catalog's tables; a catalog that is a child of ours gets them once it runs."""
    if settings.local_servers:
        from flows.services import backends

        backends.prepare(settings)
    else:
        upgrade(get_catalog())


def _clean_up(settings: Settings, server: Server | None) -> None:
    if server is not None:
        stop_services(settings, server)
    remove_records(settings)


def _start_supervisor(settings: Settings) -> None:
    """Start it detached: it outlives this process and its terminal."""
    with log_path(settings, SUPERVISOR).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.services.supervisor"],
            env={**os.environ, "SPDF_HOME": str(settings.home), **_code_path()},
            cwd=settings.home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    until = time.monotonic() + 15
    while _supervisor(settings) is None:
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            raise _failure(settings, SUPERVISOR, "did not start")
        time.sleep(0.1)
    # It is meant to outlive us: no warning that it still runs when this object goes.
    process.returncode = 0


def _code_path() -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    rest = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([root, rest] if rest else [root])}


def _wait_healthy(
    settings: Settings, server: Server, progress: Callable[[str], None], limit_s: float
) -> None:
    until = time.monotonic() + limit_s
    names = [c.name for c in children.services(settings, server, gpu=has_gpu(settings))]
    while True:
        if _supervisor(settings) is None:
            raise _failure(settings, SUPERVISOR, "died")
        records = read_records(settings)
        for record in records.values():
            if record.restarts >= MOST_RESTARTS and not record.alive:
                why = f"ended {record.restarts} times, last with exit code {record.last_exit}"
                raise _failure(settings, record.name, why)
        missing = _missing(settings, server, names)
        if not missing:
            return
        if time.monotonic() > until:
            raise _failure(settings, missing[0], f"was not healthy after {limit_s:.0f} s")
        progress(missing[0])
        time.sleep(0.25)


def _missing(settings: Settings, server: Server, names: list[str]) -> list[str]:
    health = check(settings, server)
    return [name for name in names if health.get(name, DOWN).word is not Word.HEALTHY]


def _failure(settings: Settings, name: str, why: str) -> StartFailed:
    path = log_path(settings, name)
    try:
        lines = path.read_text(errors="replace").splitlines()[-LOG_LINES:]
    except OSError:
        lines = []
    full = next(fulldisk.problems(settings), None)
    return StartFailed(name, f"{why} ({full.rstrip('.')})" if full else why, path, "\n".join(lines))


def _stop(settings: Settings, server: Server) -> list[str]:
    """By way of the supervisor where it lives, else by its records and the processes' mark."""
    before = [r.name for r in read_records(settings).values() if r.alive]
    supervisor = _supervisor(settings)
    if supervisor is not None:
        limit_s = settings.drain_s + FLOW_RUN_SPARE_S + 5 * SERVICE_GRACE_S
        supervisor.send(signal.SIGTERM)
        if not wait_gone([supervisor], limit_s):
            end([supervisor], grace_s=0, stop=signal.SIGKILL)
    stopped = stop_services(settings, server)
    remove_records(settings)
    return before + [name for name in stopped if name not in before]
