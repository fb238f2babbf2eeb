"""Registering files in a dataset, on a PostgreSQL of its own: rows by COPY beside rows by INSERT.

Prints files per second for each, taken by turns in one run, and their ratio. Ends with 1 where
the catalog doesn't hold what was registered; times are never judged.
"""

import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.limit import measure_quick
from benchmarks.results import deliver, parser, whole
from benchmarks.stand import scratch
from catalog import bulk, datasets, files, schema, storages
from catalog.datasets import Member
from catalog.db import Catalog
from catalog.files import NewFileRow
from flows.services.postgres import Cluster

MODES = {"copy": bulk.COPY_ROWS, "insert": sys.maxsize}
"""From how many rows on COPY is used."""


def main() -> int:
    """Measure and print."""
    options = parser(__doc__)
    options.add_argument("--files", type=whole, default=100_000, help="files in one registration")
    options.add_argument("--rounds", type=whole, default=3)
    given = options.parse_args()
    if given.short:
        given.files, given.rounds = 20_000, 2
    with scratch() as folder:
        limit = measure_quick(folder)
    rates: dict[str, list[float]] = {mode: [] for mode in MODES}
    with _catalog() as catalog:
        with catalog.write() as session:
            storage = storages.add(session, "disk", "local", "input", tempfile.gettempdir())
        for number in range(given.rounds):
            for mode in MODES:
                took = _register(catalog, storage.id, f"{mode}-{number}", mode, given.files)
                rates[mode].append(given.files / took)
        with catalog.read() as session:
            held = sum(usage.files for usage in storages.usage(session))
    medians = {mode: statistics.median(values) for mode, values in rates.items()}
    wanted = given.files * given.rounds * len(MODES)
    figures = {
        "files": given.files,
        "files_per_s": {mode: round(rate, 1) for mode, rate in medians.items()},
        "rounds": {mode: [round(rate, 1) for rate in values] for mode, values in rates.items()},
        "ratio": round(medians["copy"] / medians["insert"], 2),
    }
    faults = [] if held == wanted else [f"the catalog holds {held} files of {wanted}"]
    return deliver(given, "register", figures, limit=limit.as_json(), faults=faults, show=_show)


def _show(result: Mapping[str, Any]) -> None:
    for mode, rate in result["files_per_s"].items():
        rounds = ", ".join(f"{r:.0f}" for r in result["rounds"][mode])
        print(f"{mode:8} {rate:10.0f} files/s   ({rounds})")
    print(f"ratio    {result['ratio']:10.2f}")


def _register(catalog: Catalog, storage_id: int, name: str, mode: str, count: int) -> float:
    """Seconds for one transaction: files, replicas, membership."""
    bulk.COPY_ROWS = MODES[mode]
    rows = [
        NewFileRow("bench", f"{name}/{i:07d}", f"{name}/{i:07d}", i, "adler32:00000001")
        for i in range(count)
    ]
    begun = time.perf_counter()
    with catalog.write() as session:
        dataset_id = datasets.create(session, name)
        ids = files.register(session, storage_id, rows)
        members = [Member(file_id, row.name) for file_id, row in zip(ids, rows, strict=True)]
        datasets.attach(session, dataset_id, members)
    return time.perf_counter() - begun


@contextmanager
def _catalog() -> Iterator[Catalog]:
    """A catalog on a cluster that syncs to disk, as a site's does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with tempfile.TemporaryDirectory(prefix="spdf-bench-") as folder:
        cluster = Cluster(Path(folder), port, "spdf", "bench", fast=False)
        cluster.prepare()
        with Path(folder, "log").open("wb") as log:
            process = subprocess.Popen(cluster.command(), stdout=log, stderr=log, cwd="/")
        try:
            cluster.wait_ready()
            cluster.create_database("bench")
            catalog = Catalog(cluster.url("bench"))
            schema.upgrade(catalog)
            yield catalog
        finally:
            # SIGTERM would wait for all clients.
            process.send_signal(signal.SIGINT)
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
