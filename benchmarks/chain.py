"""Throughput: the two-stage chain (md5sum, then cut) over small files, beside xargs.

Prints jobs per second, their ratio to what xargs reaches with the same commands right before and
after, and where the CPU time goes, per job. Rates are those between the definition of the
first jobs and the workflow's end. Ends with 1 where an output is wrong, or where Prefect shows
another number of completed task runs than the catalog has attempts.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import limit, twostage
from benchmarks.processes import between, cpu_by_tree
from benchmarks.profiler import Profiler
from benchmarks.results import deliver, parser, whole
from benchmarks.stand import PROFILES, SITE, Stand, scratch, stand

SHORT = 1000
DATASET = "bench-1"
PILOTS = "node (pilots)"


def main() -> int:
    """Measure, print, and write the result where it is asked for."""
    options = parser(__doc__)
    options.add_argument("--files", type=whole, default=10_000, help="files; two jobs each")
    options.add_argument("--profile", choices=PROFILES, default=SITE)
    options.add_argument("--parts", action="store_true", help="sample the pilots' stacks, too")
    given = options.parse_args()
    count = SHORT if given.short else given.files
    with scratch() as folder:
        files = limit.make_files(folder / "input", count)
        before = limit.measure(files, folder / "xargs-before")
        with stand(folder, given.profile) as running:
            ours = _run(running, files, given)
        after = limit.measure(files, folder / "xargs-after")
    xargs = before + after
    figures = {
        "profile": given.profile,
        "files": count,
        "spdf": ours,
        "limit_before_after": [before.jobs_per_s, after.jobs_per_s],
        "ratio": round(ours["jobs_per_s"] / xargs.jobs_per_s, 3),
    }
    return deliver(given, "chain", figures, limit=xargs.as_json(), faults=_faults(ours), show=_show)


def _run(running: Stand, files: list[Path], given: argparse.Namespace) -> dict[str, Any]:
    reference = twostage.lay_down(running.folder, files[0].parent)
    twostage.register(DATASET, files)
    roots = running.services()
    before = cpu_by_tree(roots)
    workflow = twostage.start(reference, DATASET)
    with Profiler(roots, given.parts) as profiler:
        info = twostage.wait(workflow, profiler.look)
        completed, late_s = twostage.recorded(workflow)
    used = between(before, cpu_by_tree(roots))
    figures = _figures(info, files, used, completed)
    return figures | {
        "last_recorded_after_s": late_s,
        "parts_ms_per_job": profiler.parts(figures["cpu_ms_per_job"][PILOTS]),
    }


def _figures(
    info: Any, files: list[Path], used: Mapping[str, float], completed: int
) -> dict[str, Any]:
    from catalog import tasks
    from catalog.db import get_catalog

    with get_catalog().read() as session:
        rows = tasks.of_workflow(session, info.id)
    usage = twostage.usage(info.id)
    jobs = 2 * len(files)
    payload_s = sum(item.cpu_s for item in usage.values())
    working_s = (info.ended_at - rows[0].started_at).total_seconds()
    per_job = {
        "payload": payload_s,
        PILOTS: used["worker-cpu"] - payload_s,
        "workflow and workers": used["worker-control"] + used["worker-watchdog"],
        "recorder": used["recorder"],
        "Prefect server": used["server"],
        "intake": used["intake"],
        "PostgreSQL": used.get("postgres", 0.0),
    }
    return {
        "state": str(info.state),
        "jobs": jobs,
        "wall_s": round(working_s, 3),
        "jobs_per_s": round(jobs / working_s, 1),
        "cpu_ms_per_job": {name: round(1000 * s / jobs, 3) for name, s in per_job.items()},
        "attempts": sum(item.attempts for item in usage.values()),
        "prefect_task_runs": completed,
        "wrong_outputs": twostage.wrong_outputs(DATASET, files),
    }


def _faults(ours: Mapping[str, Any]) -> list[str]:
    faults = []
    if ours["state"] != "FINISHED":
        faults.append(f"the workflow is {ours['state']}")
    if ours["wrong_outputs"]:
        faults.append(f"{ours['wrong_outputs']} outputs are wrong")
    if ours["prefect_task_runs"] != ours["attempts"]:
        faults.append(
            f"Prefect shows {ours['prefect_task_runs']} completed task runs, "
            f"the catalog has {ours['attempts']} attempts"
        )
    return faults


def _show(result: Mapping[str, Any]) -> None:
    console, ours, xargs = Console(), result["spdf"], result["limit"]
    table = Table(title=f"md5sum, then cut, over {result['files']} files of {limit.FILE_BYTES} B")
    for column in ("", "jobs", "wall s", "jobs/s", "ratio"):
        table.add_column(column, justify="left" if not column else "right")
    for name, row, ratio in (
        ("xargs -P2", xargs, 1),
        (f"spdf, {result['profile']}", ours, result["ratio"]),
    ):
        table.add_row(
            name, str(row["jobs"]), str(row["wall_s"]), str(row["jobs_per_s"]), str(ratio)
        )
    console.print(table)
    costs = {"xargs: all": xargs["cpu_ms_per_job"]}
    costs |= {f"spdf: {name}": value for name, value in ours["cpu_ms_per_job"].items()}
    console.print(_costs("CPU milliseconds per job", costs))
    if ours["parts_ms_per_job"]:
        console.print(_costs(f"{PILOTS}, by where they are spent", ours["parts_ms_per_job"]))
    console.print(
        f"{ours['state']}; {ours['attempts']} attempts in the catalog, "
        f"{ours['prefect_task_runs']} completed task runs in Prefect, the last of them "
        f"{ours['last_recorded_after_s']} s after the end; {ours['wrong_outputs']} wrong outputs"
    )
    before, after = result["limit_before_after"]
    console.print(f"xargs reached {before} jobs/s before and {after} after")


def _costs(title: str, costs: Mapping[str, float]) -> Table:
    table = Table(title=title)
    table.add_column("part")
    table.add_column("ms", justify="right")
    for name, value in costs.items():
        table.add_row(name, f"{value:.3f}")
    return table


if __name__ == "__main__":
    sys.exit(main())
