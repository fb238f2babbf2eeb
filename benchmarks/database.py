"""A PostgreSQL of a benchmark's own, that syncs to disk as a site's does."""

import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import cpu_by_tree
from catalog import schema
from catalog.db import Catalog
from flows.services.postgres import Cluster


@dataclass(frozen=True)
class Database:
    """A running cluster."""

    cluster: Cluster
    pid: int

    def catalog(self, name: str) -> Catalog:
        """A catalog of that name, made where there is none."""
        self.cluster.create_database(name)
        made = Catalog(self.cluster.url(name))
        schema.upgrade(made)
        return made

    def cpu_s(self) -> float:
        """Seconds of CPU that the server's processes used so far."""
        return cpu_by_tree({"server": self.pid})["server"]


@contextmanager
def database(folder: Path) -> Iterator[Database]:
    """A cluster in `folder`, stopped at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    cluster = Cluster(folder / "postgres", port, "spdf", "bench", fast=False)
    cluster.prepare()
    with Path(folder, "postgres.log").open("wb") as log:
        process = subprocess.Popen(cluster.command(), stdout=log, stderr=log, cwd="/")
    try:
        cluster.wait_ready()
        yield Database(cluster, process.pid)
    finally:
        # SIGTERM would wait for all clients.
        process.send_signal(signal.SIGINT)
        process.wait()
