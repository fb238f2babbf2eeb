"""The services that `spdf up` starts on this machine: which, and with which environment."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from catalog.settings import Settings
from flows.server import Server, base_env, server_env, worker_env

BACKEND, SERVER, SETUP, WORKER, RECORDER = "backend", "server", "setup", "worker", "recorder"


# The recorder has a loop of its own, and a lease to renew while the server is away.
_IMPATIENT = {"PREFECT_CLIENT_MAX_RETRIES": "0", "PREFECT_API_REQUEST_TIMEOUT": "10"}


@dataclass(frozen=True)
class Child:
    """One service. Those of kind `setup` run once and must end well before workers start."""

    name: str
    kind: str
    command: tuple[str, ...]
    env: Mapping[str, str]


def has_gpu() -> bool:
    """Whether this machine has an NVIDIA device."""
    return any(Path("/dev").glob("nvidia[0-9]*"))


def services(settings: Settings, server: Server, *, gpu: bool) -> tuple[Child, ...]:
    """All services of this machine's profile, in the order in which they are started."""
    python = sys.executable
    serve = (python, "-m", "flows.services.webserver")
    own = base_env(settings, server)
    workers = [
        _worker(settings, server, "worker-control", "control", queue="default"),
        _worker(settings, server, "worker-watchdog", "control", queue="watchdog", query_s=3.0),
        _worker(settings, server, "worker-cpu", "cpu", limit=settings.slots + 2),
    ]
    if gpu:
        workers.append(_worker(settings, server, "worker-gpu", "gpu", limit=settings.slots + 2))
    return (
        *_backends(settings, own),
        Child("server", SERVER, serve, server_env(settings, server)),
        Child("setup", SETUP, (python, "-m", "flows.deployments"), own),
        Child("recorder", RECORDER, (python, "-m", "flows.recorder"), {**own, **_IMPATIENT}),
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


def _worker(
    settings: Settings,
    server: Server,
    name: str,
    pool: str,
    *,
    queue: str | None = None,
    limit: int | None = None,
    query_s: float = 1.0,
) -> Child:
    command = [
        sys.executable, "-m", "prefect", "worker", "start",
        "--type", "process", "--pool", pool, "--name", worker_name(settings, name),
        "--install-policy", "never", "--no-create-pool-if-not-found",
    ]  # fmt: skip
    if queue:
        command += ["--work-queue", queue]
    if limit:
        command += ["--limit", str(limit)]
    return Child(name, WORKER, tuple(command), worker_env(settings, server, query_s=query_s))
