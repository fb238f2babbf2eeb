"""Latency: from a file registered to its first payload, to the end of its chain, and of the demo.

Files are registered one at a time in an OPEN dataset whose workflow of three stages is under way
with its pilots up: at a steady rate, then singly after pauses. Each payload writes down when it
began, by the machine's clock. What an idle workflow costs is measured in a pause, and with the
embedded profile `spdf demo --down` is run in a new home. Ends with 1 where a file is missing or
there twice, a state is wrong, or Prefect shows something else than the catalog.
"""

import itertools
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import demo, limit, twostage
from benchmarks.processes import between, cpu_by_tree
from benchmarks.results import deliver, parser, positive
from benchmarks.stand import EMBEDDED, PROFILES, Stand, scratch, stand

TEMPLATE = Path(__file__).with_name("stamps.cwl")
DATASET = "latency-1"
STAGES = 3
END_S = 60.0
"""How long a file's chain is waited for."""
SETTLE_S = 5.0
"""Rest between the last file and the measure of an idle workflow."""


@dataclass(frozen=True)
class Plan:
    """What is done: a rate for so many seconds, single files after pauses, and an idle time."""

    rate: float
    steady_s: float
    pauses_s: tuple[float, ...]
    idle_s: float


SHORT = Plan(2.0, 15.0, (1.0, 3.0, 7.0), 15.0)
LONG = Plan(2.0, 60.0, (0.3, 1.0, 1.7, 3.1, 5.3, 8.9, 14.0, 20.0), 30.0)


def main() -> int:
    """Measure, print, and write the result where it is asked for."""
    options = parser(__doc__)
    options.add_argument("--profile", choices=PROFILES, default=EMBEDDED)
    options.add_argument("--rate", type=positive, default=2.0, help="files registered in a second")
    options.add_argument("--no-demo", action="store_true", help="leave the demo out")
    given = options.parse_args()
    plan = SHORT if given.short else LONG
    plan = Plan(given.rate, plan.steady_s, plan.pauses_s, plan.idle_s)
    with scratch() as folder:
        reached = limit.measure_quick(folder)
        with stand(folder, given.profile) as running:
            figures, faults = _Course(running, plan).run()
        if given.profile == EMBEDDED and not given.no_demo:
            figures["demo"], wrong = demo.run(folder / "demo")
            faults += wrong
    figures = {"profile": given.profile, "rate_per_s": plan.rate, **figures}
    return deliver(given, "latency", figures, limit=reached.as_json(), faults=faults, show=_show)


@dataclass
class _Course:
    """One workflow over an OPEN dataset, fed and watched."""

    running: Stand
    plan: Plan
    committed: dict[str, float] = field(default_factory=dict)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def run(self) -> tuple[dict[str, Any], list[str]]:
        """All of it; gives figures and faults."""
        from catalog import datasets
        from catalog.db import get_catalog

        self.catalog = get_catalog()
        self.inputs = self.running.folder / "input"
        self.inputs.mkdir()
        reference = twostage.lay_down(self.running.folder, self.inputs, TEMPLATE)
        with self.catalog.write() as session:
            self.dataset = datasets.create(session, DATASET)
        self.workflow = twostage.start(reference, DATASET)
        cold = self._warm_up()
        steady = self._steady()
        single = self._single()
        idle = self._idle()
        with self.catalog.write() as session:
            datasets.close(session, self.dataset)
        info = twostage.wait(self.workflow)
        ends = self._ends()
        figures = {
            "first_file_cold_s": cold,
            "steady": self._figures(steady, ends),
            "single": self._figures(single, ends),
            "idle_cpu_percent": idle,
        }
        return figures, self._faults(info)

    def _register(self) -> str:
        """One more file in the dataset; notes when its registration was committed."""
        from catalog import intake, storages

        name = f"f{next(self._numbers):05d}"
        path = self.inputs / name
        path.write_text(f"{name}\n")
        with self.catalog.read() as session:
            known = storages.list_all(session)
        measured = intake.measure([path], known)
        with self.catalog.write() as session:
            intake.add(session, self.dataset, measured)
        self.committed[name] = time.time()
        return name

    def _warm_up(self) -> float:
        """Files until one finds all pilots there; seconds that the first, cold one took."""
        first = self._register()
        self._wait_for([first])
        took = self._ends()[first] - self.committed[first]
        for _ in range(2):
            self._wait_for([self._register()])
        return round(took, 2)

    def _steady(self) -> list[str]:
        names, begun = [], time.monotonic()
        for i in range(int(self.plan.rate * self.plan.steady_s)):
            time.sleep(max(0.0, begun + i / self.plan.rate - time.monotonic()))
            names.append(self._register())
        self._wait_for(names)
        return names

    def _single(self) -> list[str]:
        names = []
        for pause_s in self.plan.pauses_s:
            time.sleep(pause_s)
            names.append(self._register())
            self._wait_for(names[-1:])
        return names

    def _idle(self) -> dict[str, float]:
        """Percent of a core that each part takes while nothing happens."""
        time.sleep(SETTLE_S)
        roots = self._flow_runs() | self.running.services()
        before, begun = cpu_by_tree(roots), time.monotonic()
        time.sleep(self.plan.idle_s)
        used, wall_s = between(before, cpu_by_tree(roots)), time.monotonic() - begun
        # A pilot that has ended meanwhile has nothing to compare.
        shown = {n: s for n, s in used.items() if s >= 0 and not n.startswith("worker-")}
        return {name: round(100 * s / wall_s, 2) for name, s in shown.items()}

    def _flow_runs(self) -> dict[str, int]:
        """Processes of the workflow's flow run and of its live pilots."""
        from catalog import pilots, workflows

        with self.catalog.read() as session:
            owner = workflows.get(session, self.workflow).owner or ""
            live = pilots.list_pilots(session, live=True, workflow_id=self.workflow)
        found = {f"pilot {pilot.stage}": pilot.pid for pilot in live}
        return {"advancer": int(owner.split("/")[-2]), **found}

    def _wait_for(self, names: Sequence[str]) -> None:
        """Wait until these files have gone through all stages, without looking too often."""
        deadline = time.monotonic() + END_S
        while set(names) - self._ends().keys() and time.monotonic() < deadline:
            time.sleep(0.25)

    def _ends(self) -> dict[str, float]:
        """When the last stage's output was registered, by the input file's name."""
        import sqlalchemy as sa
        from sqlmodel import col

        from catalog.models import DatasetFile, File

        made = (
            sa.select(col(DatasetFile.key), col(File.created_at))
            .join(File, col(File.id) == col(DatasetFile.file_id))
            .where(col(DatasetFile.dataset_id) == self._output_dataset())
        )
        with self.catalog.read() as session:
            rows = session.execute(made).all()
        return {row.key.rpartition("/")[2]: row.created_at.timestamp() for row in rows}

    def _output_dataset(self) -> int:
        from catalog import datasets

        with self.catalog.read() as session:
            return datasets.by_name(session, f"{DATASET}.stamps.v1.third.stamps").id

    def _stamps(self) -> dict[str, list[list[str]]]:
        """What the last stage wrote for each input file: its name, then a clock for each stage."""
        from catalog import manifests, storages
        from catalog.drivers import driver_for

        with self.catalog.read() as session:
            places = {s.id: driver_for(s) for s in storages.list_all(session)}
            members = list(manifests.all_members(session, self._output_dataset()))
        found: dict[str, list[list[str]]] = {}
        for member in members:
            replica = member.replicas[0]
            with places[replica.storage_id].open(replica.path) as stream:
                words = stream.read().decode().split()
            found.setdefault(member.key.rpartition("/")[2], []).append(words)
        return found

    def _figures(self, names: Sequence[str], ends: Mapping[str, float]) -> dict[str, Any]:
        stamps = self._stamps()
        there = [name for name in names if name in ends]
        first = [float(stamps[name][0][1]) - self.committed[name] for name in there]
        return {
            "files": len(names),
            "to_first_payload_s": _quantiles(first),
            "to_end_of_chain_s": _quantiles([ends[n] - self.committed[n] for n in there]),
        }

    def _faults(self, info: Any) -> list[str]:
        from catalog import pilots, tasks

        faults = []
        with self.catalog.read() as session:
            states = {str(task.state) for task in tasks.of_workflow(session, self.workflow)}
            live = pilots.list_pilots(session, live=True, workflow_id=self.workflow)
        if states | {str(info.state)} != {"FINISHED"}:
            faults.append(f"the workflow is {info.state}, its tasks {', '.join(sorted(states))}")
        stamps = self._stamps()
        wrong = [n for n in self.committed if not _is_right(n, stamps.get(n, []))]
        if wrong or len(stamps) != len(self.committed):
            faults.append(f"{len(wrong)} of {len(self.committed)} files are missing or wrong")
        attempts = twostage.attempts(self.workflow)
        completed, _ = twostage.recorded(self.workflow)
        if not completed == attempts == STAGES * len(self.committed):
            faults.append(
                f"{STAGES * len(self.committed)} jobs, {attempts} attempts in the catalog, "
                f"{completed} completed task runs in Prefect"
            )
        if len(live) > STAGES:
            faults.append(f"{len(live)} pilots were live at the end")
        return faults


def _is_right(name: str, outputs: Sequence[Sequence[str]]) -> bool:
    """One output, with the input's line and a clock for each stage, each later than the last."""
    if len(outputs) != 1 or len(outputs[0]) != STAGES + 1:
        return False
    clocks = [float(word) for word in outputs[0][1:]]
    return outputs[0][0] == name and clocks == sorted(clocks)


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    """Median, 90 and 99 percent (the value that so many do not exceed), and the largest."""
    ordered = sorted(values)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    if not ordered:
        return {}
    found = {"p50": statistics.median(ordered), "p90": at(0.9), "p99": at(0.99), "max": ordered[-1]}
    return {name: round(value, 3) for name, value in found.items()}


def _show(result: Mapping[str, Any]) -> None:
    console = Console()
    table = Table(title=f"seconds from a file's registration, {result['profile']}, warm pilots")
    for column in ("", "files", "p50", "p90", "p99", "max"):
        table.add_column(column, justify="left" if not column else "right")
    titles = {"steady": f"{result['rate_per_s']:g} a second", "single": "one after a pause"}
    ways = {"to_first_payload_s": "first payload", "to_end_of_chain_s": "three stages"}
    for (kind, title), (way, what) in itertools.product(titles.items(), ways.items()):
        row = result[kind]
        cells = [f"{row[way].get(name, '')}" for name in ("p50", "p90", "p99", "max")]
        table.add_row(f"{title}: {what}", str(row["files"]), *cells)
    console.print(table)
    console.print(f"the first file, which no pilot waited for: {result['first_file_cold_s']} s")
    _rows(console, "percent of a core, nothing to do", result["idle_cpu_percent"])
    if "demo" in result:
        _rows(console, "spdf demo --down in a new home, seconds", result["demo"])


def _rows(console: Console, title: str, values: Mapping[str, Any]) -> None:
    table = Table(title=title)
    table.add_column("part")
    table.add_column("", justify="right")
    for name, value in values.items():
        table.add_row(name, f"{value:.2f}")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
