"""The embedded Prefect server: its address, its login, and the settings it runs under."""

import base64
import json
import os
import secrets
import socket
import sysconfig
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Any

from catalog.errors import Unavailable
from catalog.places import sqlite_url
from catalog.settings import Settings

HOST = "127.0.0.1"
USER = "spdf"
COOKIE = "SPDF_SUPERVISED"
"""Environment variable that marks the processes of one SPDF_HOME."""

RECORDER_SETTINGS = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TRIGGERS_READ_BATCH_SIZE": "100",
}
"""What lets a server record task runs in bulk; a site's server needs them too."""

RETENTION_SETTINGS = {
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(30 * 86400),
    "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": "P2D",
}
"""Days that flow runs (30) and events (2) are kept: the catalog has the history."""

RECOVERY_SETTINGS = {
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
        "prefect.server.concurrency.lease_storage.filesystem"
    ),
    "PREFECT_SERVER_CONCURRENCY_INITIAL_DEPLOYMENT_LEASE_DURATION": "60",
    "PREFECT_SERVER_SERVICES_SCHEDULER_MAX_RUNS": "5",
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "30",
}
"""What a process held when it was killed is free again in a minute, also after a restart of the
server (by default leases are kept in memory, and one that is lost holds its slot for ever)."""

WORKER_SETTINGS = {
    "PREFECT_WORKER_HEARTBEAT_SECONDS": "10",
    "PREFECT_WORKER_CANCELLATION_POLL_SECONDS": "10",
}
NODE_SETTINGS = {**WORKER_SETTINGS, "PREFECT_WORKER_HEARTBEAT_SECONDS": "30"}
"""A heartbeat costs the server as much as some commits, and the catalog has those of a site's
nodes, too."""

QUIET_SETTINGS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
}
"""Nothing is sent to anywhere outside this machine."""


@dataclass(frozen=True)
class Server:
    """Where the embedded server answers, and the login that it asks for."""

    port: int
    user: str
    password: str
    instance: str
    """Random mark of this SPDF_HOME, in the environment of all that was started for it."""

    @property
    def api_url(self) -> str:
        """Address of the REST API."""
        return f"http://{HOST}:{self.port}/api"

    @property
    def ui_url(self) -> str:
        """Address of the web page."""
        return f"http://{HOST}:{self.port}"

    @property
    def auth(self) -> str:
        """The login as one word: what the web page asks for."""
        return f"{self.user}:{self.password}"


def prefect_home(settings: Settings) -> Path:
    """Prefect's own state of the embedded profile."""
    return settings.home / "prefect"


def read_server(settings: Settings) -> Server | None:
    """The server that `up` laid down for this SPDF_HOME; None before the first `up`."""
    try:
        values = json.loads(_server_file(settings).read_text())
        return Server(**values)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        return None


def prepare_server(settings: Settings) -> Server:
    """The server to start: the login and port of last time, where the port is still free."""
    before = read_server(settings)
    server = Server(
        port=_choose_port(settings.api_port, before.port if before else 0),
        user=USER,
        password=before.password if before else secrets.token_urlsafe(18),
        instance=before.instance if before else secrets.token_hex(8),
    )
    write_private(_server_file(settings), json.dumps(server.__dict__, indent=2) + "\n")
    write_private(settings.home / "login", server.auth + "\n")
    return server


def write_private(path: Path, text: str) -> None:
    """Replace a file whole, readable by its owner alone."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    new.replace(path)


def base_env(settings: Settings, server: Server) -> dict[str, str]:
    """Environment of every child: this process's, without its Prefect settings, and with ours."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    return {
        **kept,
        **_python_path(kept),
        **QUIET_SETTINGS,
        "SPDF_HOME": str(settings.home),
        "PREFECT_HOME": str(prefect_home(settings)),
        "PREFECT_API_URL": server.api_url,
        "PREFECT_API_AUTH_STRING": server.auth,
        "PREFECT_CLI_PROMPT": "false",
        "PREFECT_CLI_COLORS": "false",
        "PYTHONUNBUFFERED": "1",
        COOKIE: server.instance,
    }


def server_env(settings: Settings, server: Server) -> dict[str, str]:
    """Environment of the server process."""
    origins = f"http://{HOST}:{server.port},http://localhost:{server.port}"
    return {
        **base_env(settings, server),
        **RECORDER_SETTINGS,
        **RETENTION_SETTINGS,
        **RECOVERY_SETTINGS,
        "PREFECT_SERVER_API_AUTH_STRING": server.auth,
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": str(server.port),
        "PREFECT_UI_API_URL": server.api_url,
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": origins,
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": server_database(settings),
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
    }


def server_database(settings: Settings) -> str:
    """Address of the server's database; empty where it isn't known (a site's server)."""
    given = settings.server_database_url.get_secret_value()
    if given or settings.api_url:
        return given
    return sqlite_url(prefect_home(settings) / "prefect.db", "sqlite+aiosqlite")


def worker_env(settings: Settings, server: Server) -> dict[str, str]:
    """Environment of a worker and of the flow runs that it starts."""
    return {**base_env(settings, server), **WORKER_SETTINGS}


def node_env(settings: Settings, instance: str) -> dict[str, str]:
    """Environment of a worker on a node of a site; `instance` marks what is started for it.

    Raises `Unavailable` where no server is named.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    own = {key: value for key, value in os.environ.items() if key.startswith("PREFECT_API_")}
    return {
        **kept,
        **_python_path(kept),
        **(own if not settings.api_url else {}),
        **client_env(settings),
        **NODE_SETTINGS,
        "PREFECT_CLI_PROMPT": "false",
        "PREFECT_CLI_COLORS": "false",
        "PYTHONUNBUFFERED": "1",
        COOKIE: instance,
    }


def client_env(settings: Settings) -> dict[str, str]:
    """Environment for a process that talks to the server: embedded, or the site's own.

    A site's is named by `SPDF_API_URL` and `SPDF_API_AUTH`, or by Prefect's own `PREFECT_API_URL`
    of the environment, which is taken as it is. Raises `Unavailable` where there is none.
    """
    own = {**QUIET_SETTINGS, "SPDF_HOME": str(settings.home)}
    if settings.api_url:
        login = settings.api_auth.get_secret_value()
        site = {"PREFECT_API_URL": settings.api_url, "PREFECT_HOME": str(prefect_home(settings))}
        return {**own, **site, **({"PREFECT_API_AUTH_STRING": login} if login else {})}
    server = read_server(settings)
    if server is None:
        if os.environ.get("PREFECT_API_URL"):
            return own
        raise Unavailable(
            f"there is no server for {settings.home}; start one with `spdf up`, "
            "or name your site's in SPDF_API_URL."
        )
    return {
        **own,
        "PREFECT_HOME": str(prefect_home(settings)),
        "PREFECT_API_URL": server.api_url,
        "PREFECT_API_AUTH_STRING": server.auth,
    }


def configure_client(settings: Settings) -> None:
    """Point this process at the server; call it before anything imports Prefect."""
    os.environ.update(client_env(settings))


def call_api(
    server: Server, method: str, path: str, body: Any = None, *, wait_s: float = 5.0
) -> Any:
    """One request to the embedded server, without Prefect's client; raises `Unavailable`."""
    return ask(server.api_url, server.auth, method, path, body, wait_s=wait_s)


def ask(
    url: str, login: str, method: str, path: str, body: Any = None, *, wait_s: float = 5.0
) -> Any:
    """One request to a Prefect API; gives what its JSON says, None for what isn't there.

    Raises `Unavailable` where it doesn't answer, or refuses.
    """
    headers = {"Content-Type": "application/json"}
    if login:
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    request = urllib.request.Request(
        url + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers=headers,
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=wait_s) as answer:
            return json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == HTTPStatus.NOT_FOUND:
            return None
        refused = error.code == HTTPStatus.UNAUTHORIZED
        why = "refuses the login" if refused else f"answered {error.code} to {method} {path}"
        raise Unavailable(f"the server at {url} {why}.") from error
    except (OSError, HTTPException, ValueError, OverflowError) as error:
        raise Unavailable(f"the server at {url} doesn't answer: {error}.") from error


def project_file(name: str) -> Path:
    """A file that comes with spdf but is no code, in a checkout or an installation."""
    import sys

    places = (Path(__file__).parents[1], Path(sys.prefix) / "share" / "spdf")
    for place in places:
        if (place / name).exists():
            return place / name
    raise Unavailable(f"{name} is not installed: looked in {places[0]} and {places[1]}.")


def _server_file(settings: Settings) -> Path:
    return settings.home / "server.json"


def _choose_port(wanted: int, before: int) -> int:
    if wanted:
        if not _is_free(wanted):
            raise Unavailable(
                f"port {wanted} is taken by another program; free it or set SPDF_API_PORT."
            )
        return wanted
    if before and _is_free(before):
        return before
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _python_path(environment: Mapping[str, str]) -> dict[str, str]:
    """Flow runs start in a temporary directory: a checkout that isn't installed must be named."""
    root = str(Path(__file__).parents[1])
    if root in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        return {}
    rest = [part for part in environment.get("PYTHONPATH", "").split(os.pathsep) if part]
    return {"PYTHONPATH": os.pathsep.join([root, *(part for part in rest if part != root)])}
