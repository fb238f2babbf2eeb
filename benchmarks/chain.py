"""The two-stage chain (md5sum, then cut) over small files, beside xargs on the same commands.

Prints jobs per second, CPU seconds per job (client, server, recorder), and what Prefect recorded
against what the catalog holds. Everything is set up in a directory of its own and removed again.
Ends with 1 where a count or an output is wrong; times are never judged.
"""

import argparse
import hashlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.processes import CpuTime, snapshot

ROOT = Path(__file__).resolve().parents[1]
FILE_BYTES = 4096
LIMIT_S = 3600.0


def main() -> int:
    """Measure, print, and write the result where it is asked for."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="spdf-bench-") as text:
        home = Path(text)
        os.environ["SPDF_HOME"] = str(home / "home")
        files = _make_files(home / "input", arguments.files)
        limit = _xargs(files, home / "xargs")
        ours = _spdf(home, files)
    result = {
        "machine": machine.describe(),
        "files": arguments.files,
        "xargs": limit,
        "spdf": ours,
        "ratio": round(ours["jobs_per_s"] / limit["jobs_per_s"], 3),
    }
    if arguments.write:
        arguments.write.parent.mkdir(parents=True, exist_ok=True)
        arguments.write.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2)) if arguments.json else _show(result)
    right = ours["wrong_outputs"] == 0 and ours["prefect_task_runs"] == ours["attempts"]
    return 0 if right and ours["state"] == "FINISHED" else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1000, help="files in the dataset")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--write", type=Path, help="write the result to this file as well")
    return parser.parse_args()


def _make_files(directory: Path, count: int) -> list[Path]:
    directory.mkdir()
    files = [directory / f"f{i:07d}" for i in range(count)]
    for file in files:
        file.write_bytes(secrets.token_bytes(FILE_BYTES))
    return files


def _xargs(files: list[Path], out: Path) -> dict[str, Any]:
    """The limit: nothing but fork and exec of the same commands, two at a time."""
    out.mkdir()
    names = "\n".join(file.name for file in files)
    begun, cpu = time.monotonic(), os.times()
    for script in (
        f'exec md5sum "{files[0].parent}/$1" > "$1.md5"',
        'exec cut -c1-32 "$1.md5" > "$1.cut"',
    ):
        subprocess.run(
            ["xargs", "-P2", "-n1", "sh", "-c", script, "sh"],
            input=names,
            text=True,
            cwd=out,
            check=True,
        )
    wall_s, after = time.monotonic() - begun, os.times()
    used = after.children_user + after.children_system - cpu.children_user - cpu.children_system
    jobs = 2 * len(files)
    return {
        "jobs": jobs,
        "wall_s": round(wall_s, 3),
        "jobs_per_s": round(jobs / wall_s, 1),
        "cpu_ms_per_job": round(1000 * used / jobs, 3),
    }


def _spdf(home: Path, files: list[Path]) -> dict[str, Any]:
    from catalog.settings import get_settings
    from flows import services

    settings = get_settings()
    services.up(settings)
    try:
        services.configure_client(settings)
        return _measure(home, files)
    finally:
        services.down(settings)


def _measure(home: Path, files: list[Path]) -> dict[str, Any]:
    from prefect.client.orchestration import get_client

    from catalog import workflows
    from catalog.db import get_catalog
    from catalog.settings import get_settings
    from catalog.states import is_final
    from flows import services
    from flows.deployments import sync_templates
    from flows.runs import start_run
    from flows.submit import Submission, submit

    catalog = get_catalog()
    reference = _lay_down(home, files)
    with get_client(sync_client=True) as client:
        sync_templates(client, catalog)
        running = services.status(get_settings()).services
        pids = {s.name: s.pid for s in running if s.pid is not None}
        before = snapshot(pids)
        workflow, _ = submit(catalog, Submission(reference, "bench-1", {}))
        with catalog.read() as session:
            info = workflows.get(session, workflow)
        start_run(client, catalog, info)
        deadline = time.monotonic() + LIMIT_S
        while not is_final(info.state) and time.monotonic() < deadline:
            time.sleep(0.2)
            with catalog.read() as session:
                info = workflows.get(session, workflow)
        recorded = _recorded(client, workflow)
        after = snapshot(pids)
    return _figures(info, files, {n: after[n] - before[n] for n in pids}, recorded)


def _lay_down(home: Path, files: list[Path]) -> str:
    """Storages, dataset and template; gives the template's reference."""
    from catalog import datasets, intake, storages, templates
    from catalog.db import get_catalog
    from catalog.models import StorageKind, StorageRole
    from flows import templates as template_files

    catalog = get_catalog()
    places = {role: home / "storage" / role for role in StorageRole}
    places[StorageRole.INPUT] = files[0].parent
    with catalog.write() as session:
        known = {s.role for s in storages.list_all(session)}
        for role in StorageRole:
            if role not in known or role is StorageRole.INPUT:
                storages.add(session, f"bench-{role}", StorageKind.LOCAL, role, str(places[role]))
        everywhere = storages.list_all(session)
    measured = intake.measure(files, everywhere)
    with catalog.write() as session:
        dataset = datasets.create(session, "bench-1")
        intake.add(session, dataset, measured)
        datasets.close(session, dataset)
    info, _ = template_files.create(catalog, ROOT / "examples" / "twostage" / "chain.cwl")
    with catalog.write() as session:
        return templates.activate(session, info.id).ref


def _recorded(client: Any, workflow: int) -> int:
    """Completed task runs under the workflow's pilots, once the recorder has caught up."""
    from catalog import pilots, tasks
    from catalog.db import get_catalog

    with get_catalog().read() as session:
        runs = [p.flow_run_id for p in pilots.list_pilots(session, workflow_id=workflow)]
        ids = [task.id for task in tasks.of_workflow(session, workflow)]
        wanted = sum(used.attempts for used in tasks.usage(session, ids).values())
    body = {
        "flow_runs": {"id": {"any_": runs}},
        "task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}},
    }
    deadline, count = time.monotonic() + 300, 0
    while time.monotonic() < deadline:
        count = client.request("POST", "/task_runs/count", json=body).json()
        if count >= wanted:
            break
        time.sleep(0.5)
    return int(count)


def _figures(
    info: Any, files: list[Path], used: dict[str, CpuTime], recorded: int
) -> dict[str, Any]:
    from catalog import tasks
    from catalog.db import get_catalog

    with get_catalog().read() as session:
        rows = tasks.of_workflow(session, info.id)
        usage = tasks.usage(session, [row.id for row in rows])
    jobs = 2 * len(files)
    payload_s = sum(item.cpu_s for item in usage.values())
    working_s = (info.ended_at - rows[0].started_at).total_seconds()
    nodes_s = sum(u.children for name, u in used.items() if name.startswith("worker-"))
    per_job = {
        "payload": payload_s,
        "client (pilots, workflow)": nodes_s - payload_s,
        "server": used["server"].own,
        "recorder": used["recorder"].own,
        "workers": sum(u.own for name, u in used.items() if name.startswith("worker-")),
    }
    return {
        "state": str(info.state),
        "jobs": jobs,
        "wall_s": round(working_s, 3),
        "jobs_per_s": round(jobs / working_s, 1),
        "cpu_ms_per_job": {name: round(1000 * s / jobs, 3) for name, s in per_job.items()},
        "attempts": sum(item.attempts for item in usage.values()),
        "prefect_task_runs": recorded,
        "wrong_outputs": _wrong_outputs(files),
    }


def _wrong_outputs(files: list[Path]) -> int:
    """Files whose output is missing or isn't the md5 of their content."""
    from catalog import datasets, manifests, storages
    from catalog.db import get_catalog
    from catalog.drivers import driver_for

    with get_catalog().read() as session:
        places = {s.id: driver_for(s) for s in storages.list_all(session)}
        name = next(
            d.name for d in datasets.list_datasets(session, mask="bench-1.chain.v1.cut.*")
            if not d.name.endswith(".log")
        )  # fmt: skip
        members = list(manifests.all_members(session, datasets.by_name(session, name).id))
    found = {}
    for member in members:
        replica = member.replicas[0]
        with places[replica.storage_id].open(replica.path) as stream:
            found[member.key] = stream.read().decode().strip()
    expected = {file.name: hashlib.md5(file.read_bytes()).hexdigest() for file in files}
    return sum(found.get(name) != digest for name, digest in expected.items()) + abs(
        len(found) - len(expected)
    )


def _show(result: dict[str, Any]) -> None:
    console, ours, limit = Console(), result["spdf"], result["xargs"]
    table = Table(title=f"md5sum, then cut, over {result['files']} files of {FILE_BYTES} bytes")
    for column in ("", "jobs", "wall s", "jobs/s", "ratio"):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row(
        "xargs -P2", str(limit["jobs"]), str(limit["wall_s"]), str(limit["jobs_per_s"]), "1"
    )
    table.add_row(
        "spdf",
        str(ours["jobs"]),
        str(ours["wall_s"]),
        str(ours["jobs_per_s"]),
        str(result["ratio"]),
    )
    console.print(table)
    costs = Table(title="CPU milliseconds per job")
    costs.add_column("part")
    costs.add_column("ms", justify="right")
    costs.add_row("xargs: all", str(limit["cpu_ms_per_job"]))
    for name, value in ours["cpu_ms_per_job"].items():
        costs.add_row(f"spdf: {name}", str(value))
    console.print(costs)
    console.print(
        f"{ours['state']}; {ours['attempts']} attempts in the catalog, "
        f"{ours['prefect_task_runs']} completed task runs in Prefect, "
        f"{ours['wrong_outputs']} wrong outputs"
    )


if __name__ == "__main__":
    sys.exit(main())
