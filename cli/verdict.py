"""Whether the demo's run came out right: counts, physics, data reduction, what Prefect shows."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog.states import DatasetState, WorkflowState
from cli.copies import fetch_dataset
from cli.home import settings
from cli.output import Size, note
from cli.watching import Ended

if TYPE_CHECKING:
    from catalog.datasets import DatasetInfo
    from catalog.db import Catalog

MIN_EFFICIENCY = 0.97
MIN_PURITY = 0.98
MIN_REDUCTION = 20.0
RECORDER_S = 120.0
"""How long what Prefect shows may lag behind the catalog."""

_MAPS = ("decode", "reconstruct", "select")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: what was found, what it should be."""

    what: str
    found: str
    wanted: str
    right: bool


@dataclass(frozen=True)
class Verdict:
    """All checks of a demo."""

    checks: Sequence[Check]

    @property
    def right(self) -> bool:
        """Whether every one of them holds."""
        return all(check.right for check in self.checks)


def judge(
    catalog: "Catalog", examples: Path, dataset: "DatasetInfo", end: Ended, folder: Path
) -> Verdict:
    """Look at a workflow of the detector chain; `folder` has the truth and takes its outputs."""
    state = end.workflow.state
    finished = state is WorkflowState.FINISHED
    checks = [Check("workflow", state, WorkflowState.FINISHED, finished)]
    checks += _counts(end.stages, dataset.file_count or 0)
    if finished:
        outputs = _outputs(catalog, end.workflow.id)
        tracks, kept = outputs["reconstruct", "events"], outputs["merge", "merged"]
        checks += _closed(outputs.values())
        found = _fetch(catalog, tracks, folder / "tracks"), _fetch(catalog, kept, folder / "kept")
        checks += _physics(examples, *found, folder / "truth")
        checks.append(_reduction(dataset.size_bytes or 0, kept.size_bytes or 0))
    checks.append(_shown(catalog, end.workflow.id))
    return Verdict(checks)


def _counts(stages: Sequence[Mapping[str, Any]], files: int) -> list[Check]:
    """One job a file in every map stage, all of them done; a filter may skip."""
    by_name = {row["stage"]: row for row in stages}
    checks = []
    for name in _MAPS:
        row = by_name[name]
        done = row["finished"] + row["skipped"]
        right = row["jobs"] == done == files
        checks.append(Check(f"{name}: jobs done", f"{done} of {row['jobs']}", str(files), right))
    made = by_name["reconstruct"]["files out"]
    checks.append(Check("reconstruct: files", str(made), str(files), made == files))
    merge = by_name["merge"]
    right = merge["jobs"] == merge["finished"] == merge["files out"] > 0
    checks.append(Check("merge: files", str(merge["files out"]), str(merge["jobs"]), right))
    return checks


def _outputs(catalog: "Catalog", workflow_id: int) -> "dict[tuple[str, str], DatasetInfo]":
    """The datasets that a workflow made, by stage and port."""
    from catalog import datasets, tasks

    with catalog.read() as session:
        stages = {task.id: task.stage for task in tasks.of_workflow(session, workflow_id)}
        return {
            (stages[task_id], port): datasets.get(session, out.dataset_id)
            for task_id, ports in tasks.outputs(session, list(stages)).items()
            for port, out in ports.items()
        }


def _closed(outputs: Any) -> list[Check]:
    infos = list(outputs)
    closed = sum(info.state is DatasetState.CLOSED for info in infos)
    right = closed == len(infos)
    return [Check("output datasets closed", str(closed), str(len(infos)), right)]


def _fetch(catalog: "Catalog", dataset: "DatasetInfo", folder: Path) -> list[str]:
    """The paths of a dataset's files, copied to a folder."""
    paths = []
    for one in fetch_dataset(catalog, dataset.id, folder):
        if one.fault is not None:
            raise one.fault
        paths.append(str(one.path))
    return paths


def _physics(
    examples: Path, tracks: Sequence[str], kept: Sequence[str], truth: Path
) -> list[Check]:
    """Efficiency and purity of track finding, by the example's own program."""
    command = [sys.executable, "-B", str(examples / "evaluate.py"), *tracks]
    command += ["--truth", str(truth), "--json", "--kept", *kept]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return [Check("evaluation", done.stderr.strip(), "exit code 0", False)]
    values = json.loads(done.stdout)
    return [
        _share("efficiency of track finding", values["efficiency"], MIN_EFFICIENCY),
        _share("purity of tracks", values["purity"], MIN_PURITY),
    ]


def _share(what: str, value: float | None, least: float) -> Check:
    found = "none" if value is None else f"{100 * value:.2f} %"
    return Check(what, found, f"at least {100 * least:.0f} %", value is not None and value >= least)


def _reduction(raw_bytes: int, kept_bytes: int) -> Check:
    factor = raw_bytes / kept_bytes if kept_bytes else float("inf")
    found = f"{factor:.0f}× ({Size(raw_bytes)} to {Size(kept_bytes)})"
    return Check("data reduction", found, f"at least {MIN_REDUCTION:.0f}×", factor >= MIN_REDUCTION)


def _shown(catalog: "Catalog", workflow_id: int) -> Check:
    """Task runs that Prefect shows against the catalog's attempts, by state."""
    from catalog.overview import attempt_counts
    from flows.recorder.events import STATES

    with catalog.read() as session:
        counts = attempt_counts(session, workflow_id)
    wanted = {STATES[state][0]: count for state, count in counts.items()}
    until = time.monotonic() + RECORDER_S
    told = False
    while (found := _task_runs(catalog, workflow_id)) != wanted and time.monotonic() < until:
        if not told:
            note("waiting for Prefect to show all jobs")
            told = True
        time.sleep(1.0)
    return Check("task runs in Prefect", _words(found), _words(wanted), found == wanted)


def _task_runs(catalog: "Catalog", workflow_id: int) -> dict[str, int]:
    """Task runs of the workflow's pilots by type of state, as the server counts them."""
    from catalog import pilots
    from flows.recorder.events import STATES
    from flows.server import call_api, read_server

    server = read_server(settings())
    with catalog.read() as session:
        known = pilots.list_pilots(session, workflow_id=workflow_id, limit=10_000)
    runs = [pilot.flow_run_id for pilot in known if pilot.flow_run_id]
    if server is None or not runs:
        return {}
    found = {}
    for kind, _ in STATES.values():
        body = {
            "flow_runs": {"id": {"any_": runs}},
            "task_runs": {"state": {"type": {"any_": [kind]}}},
        }
        found[kind] = int(call_api(server, "POST", "/task_runs/count", body))
    return {kind: count for kind, count in found.items() if count}


def _words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "none"
