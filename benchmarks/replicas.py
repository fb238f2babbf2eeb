"""A Prefect server of several processes with Redis between them, as a large site has it."""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks.pooler import free_port
from benchmarks.stand import Stand
from catalog.errors import Unavailable
from flows.services.postgres import HOST

PACKAGE = "redis-server"
DATABASE = "prefect_replicas"
_PROGRAM = Path("/usr/bin/redis-server")
_LIMIT_S = 60.0
_SERVER = (str(Path(sys.executable).with_name("prefect")), "server")


@contextmanager
def replicas(running: Stand, processes: int) -> Iterator[tuple[str, Mapping[str, int]]]:
    """Beside the stand's server, on its PostgreSQL: the API's address, and what runs by name.

    Raises `Unavailable` without Debian's Redis.
    """
    if not _PROGRAM.exists():
        raise Unavailable(f"{_PROGRAM} is not on this machine; install Debian's {PACKAGE}.")
    from catalog.settings import get_settings
    from flows.server import COOKIE, read_server, server_env
    from flows.services.backends import cluster
    from flows.site.layout import ONCE_SETTINGS

    settings = get_settings()
    database, before = cluster(settings), read_server(settings)
    assert before is not None
    database.create_database(DATABASE)
    server = replace(before, port=free_port())
    redis = free_port()
    url = database.url(DATABASE).replace("postgresql:", "postgresql+asyncpg:", 1)
    env = {
        **server_env(settings, server),
        **redis_settings(HOST, redis),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": url,
        **ONCE_SETTINGS,
    }
    # What bears the mark of the stand's services is ended with them.
    env.pop(COOKIE)
    folder = running.folder / "replicas"
    folder.mkdir()
    lines = {
        "redis": [str(_PROGRAM), "--bind", HOST, "--port", str(redis), "--save", ""],
        "server": [*_SERVER, "start", "--host", HOST, "--port", str(server.port), "--no-services",
                   "--workers", str(processes)],
        "services": [*_SERVER, "services", "start"],
    }  # fmt: skip
    roots = {"postgres": running.services()["postgres"]}
    # Processes that make the tables at the same time fail at it.
    tables = [*_SERVER, "database", "upgrade", "--yes"]
    subprocess.run(tables, env=env, cwd=folder, check=True, capture_output=True)
    with ExitStack() as stack:
        for name, line in lines.items():
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            process = subprocess.Popen(line, env=env, cwd=folder, stdout=log, stderr=log)
            stack.callback(_end, process)
            roots[name] = process.pid
            if name == "server":
                _wait(server.api_url, server.auth, folder / "server.log")
        yield server.api_url, roots


def redis_settings(host: str, port: int) -> dict[str, str]:
    """Settings of a server that shares its messages through a Redis without a password."""
    from flows.site.layout import REDIS_SETTINGS

    return {
        **REDIS_SETTINGS,
        "PREFECT_REDIS_MESSAGING_HOST": host,
        "PREFECT_REDIS_MESSAGING_PORT": str(port),
        "PREFECT_SERVER_DOCKET_URL": f"redis://{host}:{port}/1",
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait(url: str, login: str, log: Path) -> None:
    from flows.server import ask

    until = time.monotonic() + _LIMIT_S
    while True:
        try:
            ask(url, login, "GET", "/admin/version")
            return
        except Unavailable:
            if time.monotonic() > until:
                print(log.read_text()[-2000:], file=sys.stderr)
                raise
            time.sleep(0.3)
