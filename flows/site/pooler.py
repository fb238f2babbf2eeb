"""The configuration of PgBouncer, which lets many nodes share a few connections to PostgreSQL."""

from dataclasses import dataclass
from pathlib import Path

from flows.server import project_file, write_private

CONFIGURATION, USERS = "pgbouncer.ini", "pgbouncer-users.txt"
PORT = 6432


@dataclass(frozen=True)
class Pooled:
    """The database behind a pooler, with the login that both ask for."""

    host: str
    port: int
    user: str
    password: str


def lay_down(directory: Path, database: Pooled, *, host: str, port: int = PORT) -> list[Path]:
    """Write what a pooler at `host` reads, with the users' file; gives the files."""
    text = project_file(f"deployments/{CONFIGURATION}").read_text()
    for name, value in {
        "@POSTGRES_HOST@": database.host,
        "@POSTGRES_PORT@": str(database.port),
        "@HOST@": host,
        "@PORT@": str(port),
        "@USERS@": USERS,
    }.items():
        text = text.replace(name, value)
    files = directory / CONFIGURATION, directory / USERS
    write_private(files[0], text)
    write_private(files[1], f'"{database.user}" "{database.password}"\n')
    return list(files)
