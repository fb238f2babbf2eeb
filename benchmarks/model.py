"""How many nodes, jobs per second and files a site carries, by a model fitted to measured costs.

Reads what nodes.py, workers.py and chain.py wrote to benchmarks/results; what is missing is run in
its short form. Prints the costs, how far the model is from runs that took no part in the fit, what
each station is busy with at several sizes, and what has to be added in which order.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.capacity import (
    STATIONS,
    Load,
    Site,
    bytes_per_day,
    connections,
    node_saturation,
    saturation,
    utilisation,
)
from benchmarks.fit import Fit, checks, fit
from benchmarks.results import RESULTS, SHORT, deliver, parser

SOURCES = ("nodes", "workers", "chain")
SIZES = tuple((nodes, rate) for nodes in (10, 100, 1000, 3000) for rate in (30.0, 300.0))
GOAL = Load(nodes=1000, jobs_per_s=30.0)
RESERVE = 10
WITHOUT_BOUNDS = {
    "worker_polls_per_s": float("inf"),
    "worker_beat_s": 10.0,
    "lease_polls_per_s": float("inf"),
}
"""As it would be with each node and each pilot asking as often as one alone does."""

STEPS: tuple[tuple[str, Site, Mapping[str, float]], ...] = (
    ("each node and pilot asks as if alone", Site(), WITHOUT_BOUNDS),
    ("one of each", Site(), {}),
    ("+ a second process of the Prefect server", Site(servers=2), {}),
    ("+ four processes of the Prefect server", Site(servers=4), {}),
    ("+ 16 cores for each database", Site(16.0, 16.0, servers=4), {}),
    ("+ a second catalog, with half of the nodes", Site(16.0, 16.0, servers=4, partitions=2), {}),
)
"""What a site has, and what its programs do differently, the simplest first."""


def main() -> int:
    """Fit, predict, print, and write the result where it is asked for."""
    given = parser(__doc__).parse_args()
    sources = {name: _result(SHORT if given.short else RESULTS, name) for name in SOURCES}
    found = fit(sources["nodes"], sources["workers"], sources["chain"])
    faults = [
        f"{name}.json has {len(source['faults'])} faults"
        for name, source in sources.items()
        if source["faults"]
    ]
    figures = {
        "from": {name: _origin(source) for name, source in sources.items()},
        "costs": {name: round(value, 4) for name, value in asdict(found.costs).items()},
        "idle_share": round(found.idle_share, 3),
        "checks": checks(found, sources["nodes"], sources["workers"]),
        "sizes": [_row(found, Load(nodes, rate), Site()) for nodes, rate in SIZES],
        "steps": _steps(found),
    }
    limit = sources["nodes"]["limit"]
    return deliver(given, "model", figures, limit=limit, faults=faults, show=_show)


def _result(folder: Path, name: str) -> Mapping[str, Any]:
    path = folder / f"{name}.json"
    if not path.exists():
        line = [sys.executable, "-m", f"benchmarks.{name}", "--short", "--write", str(path)]
        subprocess.run(line, check=False, stdout=sys.stderr)
    read: Mapping[str, Any] = json.loads(path.read_text())
    return read


def _origin(source: Mapping[str, Any]) -> dict[str, Any]:
    return {name: source[name] for name in ("measured_at", "short")} | {
        "cpu": source["machine"]["cpu"]
    }


def _row(found: Fit, load: Load, site: Site) -> dict[str, Any]:
    """What a site does under a load, where more jobs end, and where more nodes do."""
    load = replace(load, idle_share=found.idle_share)
    jobs, nodes = saturation(found.costs, load, site), node_saturation(found.costs, load, site)
    return {
        "nodes": load.nodes,
        "jobs_per_s": load.jobs_per_s,
        "utilisation": {
            name: round(used, 3) for name, used in utilisation(found.costs, load, site).items()
        },
        "most_jobs_per_s": round(jobs.jobs_per_s, 1),
        "first_by_jobs": jobs.station,
        "most_nodes": int(nodes.jobs_per_s),
        "first_by_nodes": nodes.station,
        "connections": connections(load),
        "gb_per_day": {
            name: round(count / 1e9, 2) for name, count in bytes_per_day(found.costs, load).items()
        },
    }


def _steps(found: Fit) -> list[dict[str, Any]]:
    """Sites, each with more than the one before, until the goal is reached with its reserve."""
    rows = []
    for name, site, changes in STEPS:
        row = _row(found, replace(GOAL, **changes), site)  # type: ignore[arg-type]
        reserve = row["most_jobs_per_s"] / GOAL.jobs_per_s
        rows.append({"site": name, "reserve": round(reserve, 1), **row})
        if reserve >= RESERVE:
            break
    return rows


def _show(result: Mapping[str, Any]) -> None:
    console = Console(width=170)
    costs = Table(title="costs, CPU ms")
    costs.add_column("of")
    costs.add_column("ms", justify="right")
    for name, value in result["costs"].items():
        costs.add_row(name.replace("_", " "), f"{value:g}")
    console.print(costs)
    checked = Table(title="the model beside runs that took no part in the fit, CPU ms per second")
    for column in ("station", "model", "measured", "ratio"):
        checked.add_column(column, justify="left" if column == "station" else "right")
    for row in result["checks"]:
        values = (row["model_ms_per_s"], row["measured_ms_per_s"], row["ratio"])
        checked.add_row(row["station"], *(str(value) for value in values))
    console.print(checked)
    console.print(_table("one of each, 8 cores for each database", result["sizes"]))
    title = (
        f"{GOAL.nodes} nodes and {GOAL.jobs_per_s:g} jobs/s, until {RESERVE} times are in reserve"
    )
    console.print(_table(title, result["steps"]))


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(title=title)
    columns = ("nodes", "jobs/s", *STATIONS, "most jobs/s", "ends first", "most nodes")
    for column in ("site", *columns) if "site" in rows[0] else columns:
        table.add_column(column, justify="left" if column in ("site", "ends first") else "right")
    for row in rows:
        used = [f"{100 * row['utilisation'][name]:.0f} %" for name in STATIONS]
        cells = [str(row["nodes"]), f"{row['jobs_per_s']:g}", *used, f"{row['most_jobs_per_s']:g}"]
        first = [row["site"]] if "site" in row else []
        table.add_row(*first, *cells, row["first_by_jobs"], str(row["most_nodes"]))
    return table


if __name__ == "__main__":
    sys.exit(main())
