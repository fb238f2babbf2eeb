"""The services that `spdf up` starts on this machine: which, and with which environment."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from catalog.settings import Settings
from flows.containers import DOCKER, PROCESS, worker_values
from flows.queues import CONTROL, DATA_QUEUE, DEFAULT_QUEUE, HOUSEKEEPING_QUEUE, WATCHDOG_QUEUE
from flows.server import Server, base_env, server_env, worker_env
from flows.services.pace import BASE_S

BACKEND, SERVER, SETUP, WORKER = "backend", "server", "setup", "worker"
RECORDER, INTAKE = "recorder", "intake"

NODE_WORKER = "flows.services.nodeworker"

# The recorder has a loop of its own, and a lease to renew while the server is away.
_IMPATIENT = {"PREFECT_CLIENT_MAX_RETRIES": "0", "PREFECT_API_REQUEST_TIMEOUT": "10"}


@dataclass(frozen=True)
class Child:
    """One service. Those of kind `setup` run once and must end well before workers start."""

    name: str
    kind: str
    command: tuple[str, ...]
    env: Mapping[str, str]


def services(settings: Settings, server: Server, *, gpu: bool) -> tuple[Child, ...]:
    """All services of this machine's profile, in the order in which they are started."""
    python = sys.executable
    serve = (python, "-m", "flows.services.webserver")
    own = base_env(settings, server)
    workers = workers_of_pool(settings, worker_env(settings, server), CONTROL)
    if settings.local_payloads:
        for pool in ("cpu", "gpu") if gpu else ("cpu",):
            env = worker_env(settings, server)
            workers += workers_of_pool(settings, env, pool, kind=settings.pilots_in)
    return (
        *_backends(settings, own),
        Child("server", SERVER, serve, server_env(settings, server)),
        Child("setup", SETUP, (python, "-m", "flows.deployments"), own),
        Child("recorder", RECORDER, (python, "-m", "flows.recorder"), {**own, **_IMPATIENT}),
        Child("intake", INTAKE, (python, "-m", "flows.intake"), own),
        *workers,
    )


def _backends(settings: Settings, env: Mapping[str, str]) -> tuple[Child, ...]:
    """PostgreSQL and S3, where this machine is a whole site, and the step that makes them ready."""
    if not settings.local_servers:
        return ()
    from flows.services import backends

    servers = [
        Child(name, BACKEND, line, env) for name, line in backends.commands(settings).items()
    ]
    ready = (sys.executable, "-m", "flows.services.backends")
    return (*servers, Child("databases", SETUP, ready, env))


def worker_name(settings: Settings, name: str) -> str:
    """The name under which a worker reports to the server."""
    return f"{name.removeprefix('worker-')}@{settings.node}"


def workers_of_pool(
    settings: Settings,
    env: Mapping[str, str],
    pool: str,
    *,
    kind: str = PROCESS,
    pace: Path | None = None,
) -> list[Child]:
    """The Prefect workers that serve a pool, of type `kind`, on one machine.

    Those for payloads read in the file `pace` how often they shall ask for pilots.
    """
    if kind == DOCKER:
        env = {**env, **worker_values(settings)}
    if pool != CONTROL:
        limit = settings.pilots_at_once
        return [_worker(settings, env, f"worker-{pool}", pool, kind=kind, limit=limit, pace=pace)]
    return [
        _worker(settings, env, "worker-control", pool, queues=(DEFAULT_QUEUE,)),
        _worker(
            settings,
            env,
            "worker-watchdog",
            pool,
            queues=(WATCHDOG_QUEUE, HOUSEKEEPING_QUEUE, DATA_QUEUE),
            query_s=3.0,
        ),
    ]


def _worker(
    settings: Settings,
    env: Mapping[str, str],
    name: str,
    pool: str,
    *,
    kind: str = PROCESS,
    queues: Sequence[str] = (),
    limit: int | None = None,
    query_s: float = BASE_S,
    pace: Path | None = None,
) -> Child:
    command = [
        sys.executable, "-m", NODE_WORKER,
        "--type", kind, "--pool", pool, "--name", worker_name(settings, name),
    ]  # fmt: skip
    for queue in queues:
        command += ["--work-queue", queue]
    if limit:
        command += ["--limit", str(limit)]
    if pace:
        command += ["--pace", str(pace)]
    own = {**env, "PREFECT_WORKER_QUERY_SECONDS": f"{query_s:g}"}
    return Child(name, WORKER, tuple(command), own)
