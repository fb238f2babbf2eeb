"""Many Prefect workers on one Prefect server: what it spends on a worker, a poll and a flow run.

The workers are those that nodes run, many in one process, on a pool that has nothing to do. Each
holds the connections of a node's worker, sends its heartbeats, and polls at a set period. Flow runs
are played through the API as a worker and a pilot report them. Ends with 1 where the server doesn't
know all workers as online or doesn't show all runs as completed.
"""

import argparse
import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import limit, replicas
from benchmarks.lightpilot import percentile
from benchmarks.prefectload import Server
from benchmarks.results import deliver, parser, positive, whole
from benchmarks.stand import SITE, Stand, scratch, stand

STOPPED = 1_000_000
"""A period that none sees the end of."""
QUICK_S = 4
"""Time between heartbeats where they are what is measured."""

RECORDS = 400
RUNS_AT_REPLICAS = 20

SETTINGS = {"SPDF_LOCAL_PAYLOADS": "false", "SPDF_WATCHDOG_S": "86400"}
"""What runs on the stand beside the server shall be quiet."""


def main() -> int:
    """Measure, print, and write the result where it is asked for."""
    options = parser(__doc__)
    options.add_argument("--workers", type=whole, default=150)
    options.add_argument("--runs", type=whole, default=60, help="flow runs that are played")
    options.add_argument("--seconds", type=positive, default=20.0, help="length of a measurement")
    options.add_argument(
        "--replicas", type=int, default=0, help="only at a server of so many processes, with Redis"
    )
    given = options.parse_args()
    if given.short:
        given.workers, given.runs, given.seconds = min(given.workers, 30), 15, 6.0
    with scratch() as folder:
        xargs = limit.measure_quick(folder)
        with stand(folder, SITE, extra=SETTINGS) as running:
            figures, faults = _measure(running, given)
    return deliver(given, "workers", figures, limit=xargs.as_json(), faults=faults, show=_show)


def _measure(running: Stand, given: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    roots = {
        name: pid for name, pid in running.services().items() if name in ("server", "postgres")
    }
    count = given.workers
    phases: dict[str, Any] = {}
    if given.replicas:
        with replicas.replicas(running, given.replicas) as (url, several):
            bench = Server(several, given.seconds, url)
            _measure_replicas(bench, count, phases)
        settle(phases)
        return {"workers": count, "phases": phases}, bench.faults
    bench = Server(roots, given.seconds)
    bench.lay_down()
    time.sleep(3.0)
    phases["idle"] = bench.watch(workers=0, query_s=0.0)
    phases["runs"] = bench.play(given.runs, workers=0)
    with bench.workers(count, STOPPED, QUICK_S):
        phases["beats"] = bench.watch(workers=count, query_s=0.0)
    with bench.workers(count, STOPPED, STOPPED):
        phases["connected"] = bench.watch(workers=count, query_s=0.0)
        phases["runs beside workers"] = bench.play(given.runs, workers=count)
    for name, number, query_s in (("polls", count, count / 15), ("check", count // 2, count / 60)):
        with bench.workers(number, query_s) as polls:
            phases[name] = bench.watch(workers=number, query_s=query_s, polls=polls)
    settle(phases)
    figures = {"workers": count, "phases": phases, "record_bytes": bench.record_bytes(RECORDS)}
    return figures, bench.faults


def _measure_replicas(bench: Server, count: int, phases: dict[str, Any]) -> None:
    """The same polls at a server of several processes, and what it shows of the workers."""
    bench.lay_down()
    time.sleep(3.0)
    phases["idle"] = bench.watch(workers=0, query_s=0.0)
    query_s = count / 15
    with bench.workers(count, query_s) as polls:
        phases["polls"] = bench.watch(workers=count, query_s=query_s, polls=polls)
    phases["runs"] = bench.play(RUNS_AT_REPLICAS, workers=0)


def settle(phases: Mapping[str, Any]) -> None:
    """Put the number of polls in each window, and how long they took, in place of all polls."""
    for row in phases.values():
        polls, window = row.pop("all_polls", None), row.pop("window", None)
        if polls is None:
            continue
        took = [took for at, took in polls if window[0] <= at < window[1]]
        row["polls"] = len(took)
        row["poll_ms"] = {
            f"p{p}": round(1000 * (percentile(took, p / 100) or 0), 1) for p in (50, 99)
        }


def _show(result: Mapping[str, Any]) -> None:
    table = Table(title="CPU of the Prefect server, ms per second")
    for column in (
        "phase",
        "workers",
        "polls/s",
        "flow runs",
        "server",
        "PostgreSQL",
        "poll p50 / p99 ms",
    ):
        table.add_column(column, justify="left" if column == "phase" else "right")
    for name, row in result["phases"].items():
        seconds, cpu, took = row["seconds"], row["cpu_ms"], row.get("poll_ms")
        table.add_row(
            name, str(row["workers"]), f"{row.get('polls', 0) / seconds:.1f}",
            str(row.get("runs", "")), f"{cpu['server'] / seconds:.0f}",
            f"{cpu['postgres'] / seconds:.0f}", f"{took['p50']} / {took['p99']}" if took else "",
        )  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
