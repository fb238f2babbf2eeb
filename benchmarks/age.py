"""Age and size: what a job costs in an empty catalog and in an old one, in a small dataset and in a
large one, and while history is pruned. PostgreSQL, one pilot, no payloads.

The jobs at a dataset's beginning and end are leased and finished by the catalog's functions; those
between pass through the same states inside the database. `reader` holds a snapshot open meanwhile,
as a backup does, so that nothing can be vacuumed. Leases are meant to take less than 5 ms at p99.
Ends with 1 where a job is lost.
"""

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from benchmarks import limit
from benchmarks.database import Database, database
from benchmarks.onepilot import Costs, OnePilot
from benchmarks.past import make_past
from benchmarks.results import deliver, parser, whole
from benchmarks.stand import scratch
from catalog.db import Catalog

JOBS, SHORT_JOBS = 20_000_000, 1_000_000
SIZES, SHORT_SIZES = (10_000, 1_000_000), (10_000, 100_000)
SAMPLE = 3_000
"""Jobs at either end of a dataset that are worked on one group after the other."""
TARGET_MS = 5.0
_READER = "reader"


def main() -> int:
    """Measure, print, and write the result where it is asked for."""
    options = parser(__doc__)
    options.add_argument(
        "--jobs", type=whole, default=JOBS, help="finished jobs of the old catalog"
    )
    given = options.parse_args()
    jobs, sizes = (SHORT_JOBS, SHORT_SIZES) if given.short else (given.jobs, SIZES)
    with scratch() as folder:
        xargs = limit.measure_quick(folder)
        with database(folder) as server:
            lines, faults = _measure(server, jobs, sizes)
    figures = {"finished_jobs": jobs, "target_ms": TARGET_MS, "lines": lines}
    return deliver(given, "age", figures, limit=xargs.as_json(), faults=faults, show=_show)


def _measure(
    server: Database, jobs: int, sizes: Sequence[int]
) -> tuple[list[dict[str, Any]], list[str]]:
    lines: list[dict[str, Any]] = []
    faults: list[str] = []

    def add(name: str, work: OnePilot, line: Mapping[str, Any]) -> None:
        lines.append({"name": name, "files": work.size, **line})
        faults.extend(f"{name}: {fault}" for fault in work.faults())

    young, old = server.catalog("young"), server.catalog("old")
    make_past(old, jobs)
    for name, catalog in (("empty catalog", young), (f"{jobs:,} finished jobs", old)):
        add(name, *_run(server, catalog, "age", sizes[0]))
    add("meanwhile pruning", *_pruning(server, old, sizes[0]))
    for size in sizes[1:]:
        add(f"{size:,} files", *_run(server, young, f"size{size}", size))
        with _reader(young):
            add(f"{size:,} files, {_READER}", *_run(server, young, f"read{size}", size))
    return lines, faults


def _run(
    server: Database, catalog: Catalog, name: str, size: int
) -> tuple[OnePilot, dict[str, Any]]:
    """All of one workflow; gives it and what it cost."""
    work = OnePilot(server, catalog, name, size)
    defined = work.define()
    first = work.work(SAMPLE)
    work.pass_middle(size - SAMPLE)
    turns = work.turns(20)
    last = work.work(size)
    ended = work.end()
    parts = {"define": defined, "first": first, "last": last, "end": ended}
    return work, _line(parts, turns)


def _pruning(server: Database, catalog: Catalog, size: int) -> tuple[OnePilot, dict[str, Any]]:
    """The same work while another process prunes history, by the command."""
    url = catalog.url.render_as_string(hide_password=False)
    command = [sys.executable, "-m", "cli", "catalog", "prune", "--older-than", "30d"]
    work = OnePilot(server, catalog, "prune", size)
    defined = work.define()
    before = _kept(catalog)
    pruner = subprocess.Popen(
        command,
        env={**os.environ, "SPDF_CATALOG_URL": url, "SPDF_DB_POOLER": ""},
        stdout=subprocess.DEVNULL,
    )
    try:
        while _kept(catalog) == before and pruner.poll() is None:
            pass
        before = _kept(catalog)
        first = work.work(SAMPLE)
        gone = _kept(catalog) - before
        if not gone or pruner.poll():
            raise RuntimeError(f"nothing was pruned meanwhile: {' '.join(command)}")
    finally:
        pruner.kill()
        pruner.wait()
    work.pass_middle(size - SAMPLE)
    last = work.work(size)
    parts = {"define": defined, "first": first, "last": last, "end": work.end()}
    line = _line({name: parts[name] for name in ("first", "end")}, Costs())
    return work, line | {"pruned_jobs_per_s": round(gone / first.wall_s, 1)}


def _kept(catalog: Catalog) -> int:
    """How many jobs were pruned so far."""
    with catalog.read() as session:
        return int(session.execute(sa.text("SELECT count(*) FROM past_job")).scalar_one())


@contextmanager
def _reader(catalog: Catalog) -> Iterator[None]:
    with catalog.engine.connect() as plain:
        held = plain.execution_options(isolation_level="REPEATABLE READ")
        held.execute(sa.text("SELECT count(*) FROM task"))
        yield


def _line(parts: Mapping[str, Costs], turns: Costs) -> dict[str, Any]:
    work = [parts[name] for name in ("first", "last") if name in parts]
    took: dict[str, list[float]] = {}
    for costs in work:
        for kind, seconds in costs.took_s.items():
            took.setdefault(kind, []).extend(seconds)
    return {
        "jobs_per_s": {n: _rate(parts[n]) for n in ("first", "last") if n in parts},
        "server_ms_per_job": {name: _each(c.server_s, c) for name, c in parts.items()},
        "client_ms_per_job": {name: _each(c.client_s, c) for name, c in parts.items()},
        "ms": {kind: _quantiles(seconds) for kind, seconds in took.items()},
        "turn_ms": {kind: _quantiles(seconds) for kind, seconds in turns.took_s.items()},
    }


def _rate(costs: Costs) -> float:
    return round(costs.jobs / costs.wall_s, 1)


def _each(seconds: float, costs: Costs) -> float:
    return round(1000 * seconds / max(1, costs.jobs), 3)


def _quantiles(seconds: Sequence[float]) -> dict[str, float]:
    hundredths = statistics.quantiles(seconds, n=100)
    return {"p50": round(1000 * hundredths[49], 2), "p99": round(1000 * hundredths[98], 2)}


def _show(result: Mapping[str, Any]) -> None:
    console = Console()
    parts = ("define", "first", "last", "end")
    costs = Table(title="CPU ms per job, database + client, and jobs/s at a dataset's ends")
    for column in ("", "files", *parts, "jobs/s first", "last", "pruned/s"):
        costs.add_column(column, justify="left" if not column else "right")
    times = Table(title=f"ms by transaction, p50 / p99 (leases: {TARGET_MS:g} at p99)")
    kinds = ("lease", "lease: statements", "read inputs", "heartbeat", "commit")
    turns = ("advance", "take back", "count ready", "progress")
    for column in ("", *kinds, *turns):
        times.add_column(column, justify="left" if not column else "right")
    for line in result["lines"]:
        server, client, rates = (
            line[key] for key in ("server_ms_per_job", "client_ms_per_job", "jobs_per_s")
        )
        costs.add_row(
            line["name"], str(line["files"]),
            *(
                f"{server[part]:.3f}+{client[part]:.3f}" if part in server else ""
                for part in parts
            ),
            str(rates["first"]), str(rates.get("last", "")), str(line.get("pruned_jobs_per_s", "")),
        )  # fmt: skip
        times.add_row(
            line["name"],
            *(_pair(line["ms"].get(kind)) for kind in kinds),
            *(_pair(line["turn_ms"].get(kind)) for kind in turns),
        )
    console.print(costs)
    console.print(times)


def _pair(found: Mapping[str, float] | None) -> str:
    return f"{found['p50']:.1f} / {found['p99']:.1f}" if found else ""


if __name__ == "__main__":
    sys.exit(main())
