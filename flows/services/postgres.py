"""A private PostgreSQL cluster on this machine, from the system's own binaries."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import sqlalchemy as sa
from psycopg import sql

from catalog.errors import Unavailable
from catalog.pgprograms import program

HOST = "127.0.0.1"
_UNPRIVILEGED = ("postgres", "nobody")
"""PostgreSQL refuses to run as root: then it runs as the first of these that exists."""
_DURABLE = {
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "4GB",
    # A new catalog that fills fast soon has statistics, without which large tables are read whole.
    "autovacuum_naptime": "10s",
    "password_encryption": "scram-sha-256",
}
_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@dataclass(frozen=True)
class Cluster:
    """A cluster that listens on loopback alone; `fast` trades durability for speed, for tests."""

    directory: Path
    port: int
    user: str
    password: str = field(repr=False)
    fast: bool = False

    @property
    def data(self) -> Path:
        """The data directory proper."""
        return self.directory / "data"

    def prepare(self) -> None:
        """Make the cluster where there is none; raises `Unavailable` without the programs."""
        program("postgres")
        self.directory.mkdir(parents=True, exist_ok=True)
        account = _account()
        if account is not None:
            _open_way(self.directory)
            os.chown(self.directory, account.pw_uid, account.pw_gid)
        if not (self.data / "PG_VERSION").exists():
            self._make(account)

    def _make(self, account: pwd.struct_passwd | None) -> None:
        shutil.rmtree(self.data, ignore_errors=True)
        with self._password_file(account) as password:
            made = subprocess.run(
                [
                    *_as(account), str(program("initdb")), "--pgdata", str(self.data),
                    "--auth", "scram-sha-256", "--username", self.user, "--pwfile", str(password),
                    "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-instructions",
                ],
                cwd=self.directory,
                capture_output=True,
                text=True,
                check=False,
            )  # fmt: skip
        if made.returncode != 0:
            shutil.rmtree(self.data, ignore_errors=True)
            raise Unavailable(
                f"initdb could not make a cluster in {self.data}: {made.stderr.strip()}"
            )

    @contextmanager
    def _password_file(self, account: pwd.struct_passwd | None) -> Iterator[Path]:
        with tempfile.NamedTemporaryFile("w", dir=self.directory, prefix=".pw-") as file:
            file.write(self.password + "\n")
            file.flush()
            if account is not None:
                os.chown(file.name, account.pw_uid, account.pw_gid)
            yield Path(file.name)

    def command(self) -> list[str]:
        """The server in the foreground; SIGINT stops it fast, SIGTERM waits for its clients."""
        settings = {
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": "",
            **_DURABLE,
            **(_FAST if self.fast else {}),
        }
        line = [*_as(_account()), str(program("postgres")), "-D", str(self.data)]
        for name, value in settings.items():
            line += ["-c", f"{name}={value}"]
        return line

    def url(self, database: str) -> str:
        """SQLAlchemy URL of a database, with the password."""
        made = sa.URL.create("postgresql", self.user, self.password, HOST, self.port, database)
        return made.render_as_string(hide_password=False)

    def wait_ready(self, limit_s: float = 60.0) -> None:
        """Wait until it takes connections; raises `Unavailable` after `limit_s`."""
        until = time.monotonic() + limit_s
        while True:
            try:
                self._connect().close()
                return
            except psycopg.OperationalError as error:
                if time.monotonic() > until:
                    raise Unavailable(
                        f"PostgreSQL on port {self.port} was not ready after {limit_s:.0f} s "
                        f"({str(error).strip()}); see its log."
                    ) from error
            time.sleep(0.1)

    def create_database(self, name: str) -> None:
        """Make a database where there is none."""
        with self._connect() as connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
            if found.fetchone() is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            host=HOST, port=self.port, user=self.user, password=self.password,
            dbname="postgres", autocommit=True, connect_timeout=5,
        )  # fmt: skip


def _account() -> pwd.struct_passwd | None:
    """The account to run as; None for our own."""
    if os.geteuid() != 0:
        return None
    for name in _UNPRIVILEGED:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise Unavailable("PostgreSQL doesn't run as root, and there is no account `nobody`; make one.")


def _as(account: pwd.struct_passwd | None) -> list[str]:
    if account is None:
        return []
    return [
        "setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups",
    ]  # fmt: skip


def _open_way(directory: Path) -> None:
    """Let the account pass through the folders above (not list them), as far as they are ours."""
    for folder in directory.parents:
        mode = folder.stat().st_mode
        if not mode & 0o001:
            folder.chmod(mode | 0o011)
