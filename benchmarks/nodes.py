"""Many light pilots on one catalog: what PostgreSQL and PgBouncer spend, and how long they take.

Hundreds of pilots, each with a connection of its own, lease, beat and commit through a pooler; the
payloads sleep. Jobs arrive at a set rate, whatever the pilots reach. Apart from them, the costs of
an advance, a heartbeat and a lease that finds nothing are measured one by one; a last run goes to
PostgreSQL directly. Ends with 1 where a job has not ended once, with its outputs once.
"""

import argparse
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from benchmarks import lightpilot, limit
from benchmarks.lightload import Load, Storages, age, lay_down
from benchmarks.lightpilot import ASK, BEAT, COMMIT, LEASE, POLL, Log, Orders, percentile
from benchmarks.pooler import free_port, pooler
from benchmarks.processes import between, cpu_by_tree
from benchmarks.results import deliver, parser, positive, whole
from benchmarks.stand import scratch
from benchmarks.watch import Watch
from catalog import schema
from catalog.db import Catalog
from catalog.settings import Settings
from flows.services.postgres import Cluster
from flows.shift.idle import quiet_s

CLIENTS = 2
"""Processes that the pilots are spread over, which leave the processor to the servers first."""
PROBES = 2
"""Pilots in a process of their own, which doesn't: how long things take is measured there."""
NICE = 10
OLD_JOBS = 200_000
POLL_S = 2.0

DATABASE = "spdf"
ACTIONS = (LEASE, POLL, ASK, BEAT, COMMIT)


@dataclass(frozen=True)
class Phase:
    """One measurement: `jobs_per_s` offered to so many pilots for `seconds`, after `warm_s`."""

    name: str
    pilots: int
    jobs_per_s: float
    beat_s: float
    poll_s: float
    seconds: float
    warm_s: float = 8.0
    quiet_s: float = 0.0
    pooled: bool = True

    @property
    def payload_s(self) -> float:
        """Half of the pilots' slots are in use at that rate, or less."""
        return min(4.0, 0.5 * self.pilots / self.jobs_per_s) if self.jobs_per_s else 0.0


@dataclass(frozen=True)
class Bench:
    """A cluster and a pooler that run, and a catalog in them."""

    cluster: Cluster
    address: str
    roots: Mapping[str, int]
    catalog: Catalog
    places: Storages


def main() -> int:
    """Measure, print, and write the result where it is asked for."""
    options = parser(__doc__)
    options.add_argument("--pilots", type=whole, default=300)
    options.add_argument("--rate", type=positive, default=15.0, help="jobs offered per second")
    options.add_argument("--seconds", type=positive, default=12.0, help="length of a measurement")
    given = options.parse_args()
    if given.short:
        given.pilots, given.rate, given.seconds = min(given.pilots, 60), 10.0, 7.0
    results: dict[str, Any] = {}
    faults: list[str] = []
    with scratch() as folder:
        xargs = limit.measure_quick(folder)
        with _bench(folder, given) as bench:
            for phase in phases(given):
                results[phase.name], wrong = _measure(bench, phase)
                faults += wrong
    figures = {"pilots": given.pilots, "rate": given.rate, "phases": results}
    return deliver(given, "nodes", figures, limit=xargs.as_json(), faults=faults, show=_show)


def phases(given: argparse.Namespace) -> list[Phase]:
    """What is measured, in order; `check` is of no use to a fit and shows how good it is."""
    settings = Settings(_env_file=None)
    beat_s, count, seconds = settings.heartbeat_s, given.pilots, given.seconds
    load = Phase("load", count, given.rate, beat_s, 0.25, seconds)
    return [
        Phase("advance", 0, 0.0, 0.0, 0.0, seconds / 2, warm_s=1.0),
        Phase("define", 0, given.rate, 0.0, 0.0, seconds / 2, warm_s=1.0),
        # As often as under a load: in a row without a pause they cost a third less.
        Phase("beat", count, 0.0, beat_s, 0.0, 0.8 * seconds),
        Phase("poll", count, 0.0, 0.0, POLL_S, 0.8 * seconds, quiet_s=POLL_S),
        load,
        replace(load, name="check", pilots=count // 2, jobs_per_s=2 * given.rate),
        replace(load, name="direct", pooled=False),
    ]


@contextmanager
def _bench(folder: Path, given: argparse.Namespace) -> Iterator[Bench]:
    """A cluster that syncs to disk, as a site's does, behind a pooler."""
    port = free_port()
    cluster = Cluster(folder / "postgres", port, "spdf", "bench", fast=False)
    cluster.prepare()
    more = ["-c", f"max_connections={given.pilots + 60}", "-c", "log_lock_waits=on"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*cluster.command(), *more], stdout=log, stderr=log, cwd="/")
    try:
        cluster.wait_ready()
        cluster.create_database(DATABASE)
        # A backend's first statements of a kind cost it some 10 ms of reading the system's tables:
        # as few as a machine of this size would have, so that all have done that before.
        size = 4 * (os.cpu_count() or 1)
        with pooler(folder / "pooler", cluster, default_pool_size=size) as (address, pid):
            catalog = Catalog(cluster.url(DATABASE), pool_size=4)
            schema.upgrade(catalog)
            places = lay_down(catalog)
            age(catalog, places, OLD_JOBS)
            roots = {"PostgreSQL": process.pid, "PgBouncer": pid}
            yield Bench(cluster, address, roots, catalog, places)
            catalog.close()
    finally:
        # SIGTERM would wait for all clients.
        process.send_signal(signal.SIGINT)
        process.wait()


def _measure(bench: Bench, phase: Phase) -> tuple[dict[str, Any], list[str]]:
    """Run a phase; gives its figures, and what is wrong with what it left in the catalog."""
    load = Load(bench.catalog, bench.places, f"light-{phase.name}-1")
    bytes_before = _size_bytes(bench.catalog)
    begin = time.time() + phase.warm_s
    from_ = begin + (2 * phase.payload_s + 2.0 if phase.jobs_per_s else 0.0)
    until = from_ + phase.seconds
    with ProcessPoolExecutor(CLIENTS + 1, mp_context=multiprocessing.get_context("spawn")) as pool:
        groups = [
            pool.submit(lightpilot.work, one) for one in _orders(bench, phase, load, begin, until)
        ]
        load.feed(0.0, begin)
        load.feed(phase.jobs_per_s, from_)
        before, advanced, defined = cpu_by_tree(bench.roots), load.advances, load.count
        with Watch(bench.cluster.url(DATABASE)) as watch:
            load.feed(phase.jobs_per_s, until)
        used = between(before, cpu_by_tree(bench.roots))
        counts = {"advances": load.advances - advanced, "defined": load.count - defined}
        while not all(group.done() for group in groups):
            load.settle()
            time.sleep(0.5)
        logs = [group.result() for group in groups]
    faults = [fault for log in logs for fault in log.faults]
    if phase.jobs_per_s and phase.pilots:
        faults += load.close()
    figures = _figures(phase, logs, from_, until) | watch.figures()
    cpu = {name: round(1000 * seconds, 1) for name, seconds in used.items()}
    grown = _size_bytes(bench.catalog) - bytes_before
    return {
        **figures,
        "counts": {**figures["counts"], **counts},
        "cpu_ms": cpu,
        "bytes_per_job": round(grown / load.count) if load.count else 0,
    }, faults


def _size_bytes(catalog: Catalog) -> int:
    with catalog.read() as session:
        size = session.execute(sa.text("SELECT pg_database_size(current_database())"))
        return int(size.scalar_one())


def _orders(bench: Bench, phase: Phase, load: Load, begin: float, until: float) -> list[Orders]:
    """What each process of clients does."""
    if not phase.pilots:
        return []
    settings = Settings(_env_file=None)
    whole = Orders(
        url=bench.cluster.url(DATABASE),
        pooler=bench.address if phase.pooled else "",
        task_id=load.task_id,
        outputs=load.outputs(),
        pilots=phase.pilots,
        slots=1,
        payload_s=phase.payload_s,
        beat_s=phase.beat_s,
        poll_s=phase.poll_s,
        quiet_s=phase.quiet_s or quiet_s(phase.pilots),
        lease_s=settings.lease_s,
        begin=begin,
        nice=0,
        until=until,
    )
    shares = [len(range(i, phase.pilots - PROBES, CLIENTS)) for i in range(CLIENTS)]
    clients = [replace(whole, pilots=share, nice=NICE) for share in shares]
    return [replace(whole, pilots=PROBES), *clients]


def _figures(phase: Phase, logs: Sequence[Log], from_: float, until: float) -> dict[str, Any]:
    seen = [done for log in logs for done in log.done if from_ <= done[1] < until]
    counts = Counter(name for name, *_ in seen)
    took = {
        action: [s for name, at, s, _ in logs[0].done if name == action and from_ <= at < until]
        for action in ACTIONS
        if logs
    }
    ended = sum(count for name, _, _, count in seen if name == COMMIT)
    return {
        "pilots": phase.pilots,
        "offered_jobs_per_s": phase.jobs_per_s,
        "jobs_per_s": round(ended / phase.seconds, 1),
        "beat_s": phase.beat_s,
        "quiet_s": phase.quiet_s or quiet_s(phase.pilots),
        "seconds": phase.seconds,
        "pooled": phase.pooled,
        "counts": {"jobs": ended, **{action: counts[action] for action in ACTIONS}},
        "ms": {
            action: {f"p{p}": round(1000 * (percentile(values, p / 100) or 0), 1) for p in (50, 99)}
            for action, values in took.items()
            if values
        },
    }


def _show(result: Mapping[str, Any]) -> None:
    console = Console(width=130)
    table = Table(title=f"{result['pilots']} pilots and fewer, CPU in ms per second")
    columns = ("phase", "pilots", "jobs/s offered", "reached", "beats", "leases", "polls", "asks")
    for column in (*columns, "PostgreSQL", "PgBouncer", "connections", "lock waits"):
        table.add_column(column, justify="left" if column == "phase" else "right")
    for name, row in result["phases"].items():
        counts, seconds = row["counts"], row["seconds"]
        cpu = [f"{ms / seconds:.0f}" for ms in row["cpu_ms"].values()]
        table.add_row(
            name, str(row["pilots"]), f"{row['offered_jobs_per_s']:g}", f"{row['jobs_per_s']:g}",
            *(f"{counts[action] / seconds:.1f}/s" for action in (BEAT, LEASE, POLL, ASK)), *cpu,
            str(row["connections"]), str(row["waited_for_locks"]),
        )  # fmt: skip
    console.print(table)
    times = Table(title="milliseconds that the probes among the pilots wait, p50 / p99")
    for column in ("phase", *ACTIONS):
        times.add_column(column, justify="left" if column == "phase" else "right")
    for name, row in result["phases"].items():
        if row["ms"]:
            cells = (row["ms"].get(action) for action in ACTIONS)
            times.add_row(name, *(f"{c['p50']} / {c['p99']}" if c else "" for c in cells))
    console.print(times)


if __name__ == "__main__":
    sys.exit(main())
