"""A PgBouncer of a program's own, with the configuration that a site gets."""

import os
import pwd
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from catalog.errors import Unavailable
from flows.services.postgres import HOST, Cluster
from flows.site.pooler import CONFIGURATION, Pooled, lay_down

PACKAGE = "pgbouncer"
_PROGRAM = Path("/usr/sbin/pgbouncer")
_LIMIT_S = 20.0


def program() -> Path:
    """The program; raises `Unavailable`, naming Debian's package."""
    if not _PROGRAM.exists():
        raise Unavailable(f"{_PROGRAM} is not on this machine; install Debian's {PACKAGE}.")
    return _PROGRAM


@contextmanager
def pooler(
    directory: Path, cluster: Cluster, *, any_database: bool = False, **more: object
) -> Iterator[tuple[str, int]]:
    """A pooler before the cluster: its address, host:port, and its process.

    It serves the database `spdf`, or whichever a client asks for. `more` are settings of its own.
    """
    directory.mkdir(mode=0o755)
    port = free_port()
    database = Pooled(HOST, cluster.port, cluster.user, cluster.password)
    configuration, users = lay_down(directory, database, host=HOST, port=port)
    text = configuration.read_text()
    if any_database:
        text = text.replace("\nspdf = ", "\n* = ")
    configuration.write_text(text + "".join(f"{name} = {value}\n" for name, value in more.items()))
    line = [str(program()), CONFIGURATION]
    if os.geteuid() == 0:
        # It refuses to run as root.
        account = pwd.getpwnam("nobody")
        directory.parent.chmod(directory.parent.stat().st_mode | 0o011)
        for path in (directory, configuration, users):
            os.chown(path, account.pw_uid, account.pw_gid)
        line = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}",
                "--clear-groups", *line]  # fmt: skip
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(line, cwd=directory, stdout=log, stderr=log)
    try:
        _wait(process, port, directory / "log")
        yield f"{HOST}:{port}", process.pid
    finally:
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + _LIMIT_S
    while True:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
            return
        except OSError as error:
            if process.poll() is not None or time.monotonic() > until:
                said = log.read_text().strip()
                raise Unavailable(f"PgBouncer did not start: {said}") from error
        time.sleep(0.05)


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
