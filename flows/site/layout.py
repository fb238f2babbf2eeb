"""A site's configuration, written once: addresses, generated logins, and nothing by default."""

import re
import secrets
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from catalog.errors import BadInput, Conflict
from catalog.places import kept_path
from flows.containers import own_image
from flows.server import (
    QUIET_SETTINGS,
    RECORDER_SETTINGS,
    RETENTION_SETTINGS,
    USER,
    project_file,
    write_private,
)
from flows.site import pooler

LOOPBACK = "127.0.0.1"
SETTINGS = "spdf.env"
POSTGRES_PORT, S3_PORT, REDIS_PORT, API_PORT = 5432, 9000, 6379, 4200
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
IMAGES = {
    "POSTGRES_IMAGE": "postgres:17",
    "MINIO_IMAGE": "minio/minio:RELEASE.2025-04-22T22-12-26Z",
    "REDIS_IMAGE": "redis:8",
}
ONCE_SETTINGS = {
    "PREFECT_SERVER_DATABASE_MIGRATE_ON_START": "false",
    "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
}
"""What several processes of a server must not do at once: each that fails at it ends them all. The
tables are made before (see compose.yaml), and spdf uses no blocks."""
REDIS_SETTINGS = {
    "PREFECT_MESSAGING_BROKER": "prefect_redis.messaging",
    "PREFECT_MESSAGING_CACHE": "prefect_redis.messaging",
    "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "prefect_redis.ordering",
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect_redis.lease_storage",
    "PREFECT_SERVER_CONCURRENCY_INITIAL_DEPLOYMENT_LEASE_DURATION": "60",
}
"""What lets the web server and its services be processes, or machines, of their own."""


@dataclass(frozen=True)
class Logins:
    """The generated passwords of one site."""

    postgres: str
    redis: str
    api: str
    s3_access_key: str
    s3_secret_key: str


def generate() -> Logins:
    """New passwords, each of 144 random bits, in letters that URLs and shells leave alone."""
    return Logins(
        postgres=secrets.token_urlsafe(18),
        redis=secrets.token_urlsafe(18),
        api=secrets.token_urlsafe(18),
        s3_access_key=secrets.token_hex(10),
        s3_secret_key=secrets.token_urlsafe(30),
    )


def lay_down(directory: Path, *, host: str = LOOPBACK, image: str | None = None) -> list[Path]:
    """Write a site's configuration into an empty directory; gives the files.

    `host` is where the servers listen and where nodes find them. Raises `Conflict` where the
    directory has something in it, `BadInput` for a host that is none.
    """
    _check_host(host)
    directory = _empty(directory)
    logins = generate()
    made = {
        ".env": _compose(logins, host, image or own_image()),
        "server.env": _server(logins, host),
        "node.env": _node(logins, host),
        "recorder.env": {"SPDF_SERVER_DATABASE_URL": _server_database(logins, host)},
        SETTINGS: _node(logins, host) | {"SPDF_HOME": str(directory)},
    }
    for name, values in made.items():
        write_private(directory / name, _text(values))
    database = pooler.Pooled(host, POSTGRES_PORT, USER, logins.postgres)
    pooler.lay_down(directory, database, host=host)
    (directory / "prefect-database.sql").write_text("CREATE DATABASE prefect;\n")
    shutil.copyfile(project_file("deployments/compose.yaml"), directory / "compose.yaml")
    shutil.copytree(project_file("deployments/systemd"), directory / "systemd")
    return sorted(path for path in directory.rglob("*") if path.is_file())


def lay_down_local(directory: Path, *, s3: bool = True) -> list[Path]:
    """Write the settings of a whole site on this machine, which `spdf up` starts; the files.

    Without `s3` its storages are directories, as of a site that mounts a POSIX file system.
    """
    directory = _empty(directory)
    logins = generate()
    postgres, store = _free_ports(2)
    database = f"{USER}:{logins.postgres}@{LOOPBACK}:{postgres}"
    values = {
        "SPDF_HOME": str(directory),
        "SPDF_LOCAL_SERVERS": "true",
        "SPDF_CATALOG_URL": f"postgresql://{database}/spdf",
        "SPDF_SERVER_DATABASE_URL": f"postgresql+asyncpg://{database}/prefect",
        **({"SPDF_S3_URL": f"http://{LOOPBACK}:{store}", **_s3(logins)} if s3 else {}),
    }
    path = directory / SETTINGS
    write_private(path, _text(values))
    return [path]


def _check_host(host: str) -> None:
    if not _HOST.fullmatch(host):
        raise BadInput(f"--host {host!r} is no IPv4 address or host name; give one.")


def _empty(directory: Path) -> Path:
    directory = kept_path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise Conflict(
            f"{directory} is not empty, and a site's passwords are never overwritten; "
            "name a new directory."
        )
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
    except OSError as error:
        raise BadInput(
            f"{directory} can't be made ({error.strerror}); name a directory that you may write."
        ) from error
    return directory


def _text(values: Mapping[str, str]) -> str:
    return "".join(f"{name}={value}\n" for name, value in values.items())


def _compose(logins: Logins, host: str, image: str) -> dict[str, str]:
    return {
        "SPDF_IMAGE": image,
        "SPDF_HOST": host,
        "SERVER_PROCESSES": "1",
        **IMAGES,
        "POSTGRES_PASSWORD": logins.postgres,
        "REDIS_PASSWORD": logins.redis,
        "S3_ACCESS_KEY": logins.s3_access_key,
        "S3_SECRET_KEY": logins.s3_secret_key,
    }


def _server(logins: Logins, host: str) -> dict[str, str]:
    """Environment of the Prefect server and its services."""
    api = f"http://{host}:{API_PORT}"
    return {
        **QUIET_SETTINGS,
        **RECORDER_SETTINGS,
        **RETENTION_SETTINGS,
        **REDIS_SETTINGS,
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": _server_database(logins, host),
        **ONCE_SETTINGS,
        "PREFECT_SERVER_API_AUTH_STRING": f"{USER}:{logins.api}",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"{api},http://localhost:{API_PORT}",
        "PREFECT_UI_API_URL": f"{api}/api",
        "PREFECT_REDIS_MESSAGING_HOST": host,
        "PREFECT_REDIS_MESSAGING_PORT": f"{REDIS_PORT}",
        "PREFECT_REDIS_MESSAGING_PASSWORD": logins.redis,
        "PREFECT_SERVER_DOCKET_URL": f"redis://:{logins.redis}@{host}:{REDIS_PORT}/1",
    }


def _server_database(logins: Logins, host: str) -> str:
    return f"postgresql+asyncpg://{USER}:{logins.postgres}@{host}:{POSTGRES_PORT}/prefect"


def _node(logins: Logins, host: str) -> dict[str, str]:
    """Settings of the control host's containers, of a compute node, of a user's machine."""
    database = f"{USER}:{logins.postgres}@{host}:{POSTGRES_PORT}"
    return {
        "SPDF_CATALOG_URL": f"postgresql://{database}/spdf",
        "SPDF_API_URL": f"http://{host}:{API_PORT}/api",
        "SPDF_API_AUTH": f"{USER}:{logins.api}",
        "SPDF_S3_URL": f"http://{host}:{S3_PORT}",
        "SPDF_WORK_DIR": "/var/lib/spdf/work",
        **_s3(logins),
    }


def _s3(logins: Logins) -> dict[str, str]:
    return {"SPDF_S3_ACCESS_KEY": logins.s3_access_key, "SPDF_S3_SECRET_KEY": logins.s3_secret_key}


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((LOOPBACK, 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
