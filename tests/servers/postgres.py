"""A private PostgreSQL cluster for the tests of one session."""

import secrets
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.pgprograms import program
from flows.services.postgres import Cluster
from tests.servers.install import need

PACKAGE = "postgresql"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Cluster]:
    """A cluster that runs, without syncs to disk; its data go with the session.

    Under root it runs as another user, and any pytest that starts takes pytest's own temporary
    directories from all but root: so it has one of its own.
    """
    need(lambda: program("postgres"), PACKAGE)
    with tempfile.TemporaryDirectory(prefix="spdf-postgres-") as directory:
        cluster = Cluster(Path(directory), free_port(), "spdf", secrets.token_hex(8), fast=True)
        cluster.prepare()
        process = start(cluster, Path(directory, "log"))
        try:
            cluster.wait_ready()
            yield cluster
        finally:
            stop(process)


def start(cluster: Cluster, log: Path) -> subprocess.Popen[bytes]:
    """The server as a process of this test's own."""
    with log.open("ab") as stream:
        return subprocess.Popen(cluster.command(), stdout=stream, stderr=stream, cwd="/")


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop a server at once, whatever clients it has."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
