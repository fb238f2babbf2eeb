"""The workload of the benchmark: the two-stage chain over a dataset, run and then checked."""

import hashlib
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from catalog.workflows import WorkflowInfo

TEMPLATE = Path(__file__).resolve().parents[1] / "examples" / "twostage" / "chain.cwl"
LIMIT_S = 7200.0
RECORDED_S = 300.0
"""How long the recorder may take after the last job until a count of Prefect's is final."""


def lay_down(folder: Path, inputs: Path, template: Path = TEMPLATE) -> str:
    """Storages below `folder`, and the template; gives its reference."""
    from catalog import storages, templates
    from catalog.db import get_catalog
    from catalog.models import StorageKind, StorageRole
    from flows import templates as template_files

    catalog = get_catalog()
    places = {role: folder / "storage" / role for role in StorageRole}
    places[StorageRole.INPUT] = inputs
    with catalog.write() as session:
        known = {s.role for s in storages.list_all(session)}
        for role in StorageRole:
            if role not in known or role is StorageRole.INPUT:
                storages.add(session, f"bench-{role}", StorageKind.LOCAL, role, str(places[role]))
    info, _ = template_files.create(catalog, template)
    with catalog.write() as session:
        return templates.activate(session, info.id).ref


def register(name: str, files: list[Path]) -> None:
    """A closed dataset of these files."""
    from catalog import datasets, intake, storages
    from catalog.db import get_catalog

    catalog = get_catalog()
    with catalog.read() as session:
        everywhere = storages.list_all(session)
    measured = intake.measure(files, everywhere)
    with catalog.write() as session:
        dataset = datasets.create(session, name)
        intake.add(session, dataset, measured)
        datasets.close(session, dataset)


def start(reference: str, dataset: str) -> int:
    """Submit the workflow and start its flow run; gives its id."""
    from prefect.client.orchestration import get_client

    from catalog import workflows
    from catalog.db import get_catalog
    from flows.deployments import sync_templates
    from flows.runs import start_run
    from flows.submit import Submission, submit

    catalog = get_catalog()
    with get_client(sync_client=True) as client:
        sync_templates(client, catalog)
        workflow, _ = submit(catalog, Submission(reference, dataset, {}))
        with catalog.read() as session:
            info = workflows.get(session, workflow)
        start_run(client, catalog, info)
    return workflow


def wait(workflow: int, look: Callable[[], None] = lambda: None) -> "WorkflowInfo":
    """Wait for the workflow's end; `look` is called now and then meanwhile."""
    from catalog import workflows
    from catalog.db import get_catalog
    from catalog.states import is_final

    deadline = time.monotonic() + LIMIT_S
    while True:
        with get_catalog().read() as session:
            info = workflows.get(session, workflow)
        if is_final(info.state) or time.monotonic() > deadline:
            return info
        look()
        time.sleep(0.5)


def recorded(workflow: int) -> tuple[int, float]:
    """Completed task runs that Prefect shows of a workflow's pilots, and how late the last was.

    The lateness is in seconds after the workflow's end, by steps of half a second.
    """
    from prefect.client.orchestration import get_client

    from catalog import workflows
    from catalog.db import get_catalog

    wanted, begun = attempts(workflow), datetime.now(UTC)
    with get_catalog().read() as session:
        ended_at = workflows.get(session, workflow).ended_at or begun
    with get_client(sync_client=True) as client:
        while True:
            count = _count(client, _runs(workflow))
            late_s = (datetime.now(UTC) - ended_at).total_seconds()
            if count >= wanted or late_s > RECORDED_S:
                return count, round(late_s, 1)
            time.sleep(0.5)


def _runs(workflow: int) -> list[str]:
    from catalog import pilots
    from catalog.db import get_catalog

    with get_catalog().read() as session:
        rows = pilots.list_pilots(session, workflow_id=workflow, limit=100_000)
    return [row.flow_run_id for row in rows if row.flow_run_id]


def _count(client: Any, runs: list[str]) -> int:
    total = 0
    for start_at in range(0, len(runs), 200):
        body = {
            "flow_runs": {"id": {"any_": runs[start_at : start_at + 200]}},
            "task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}},
        }
        total += int(client.request("POST", "/task_runs/count", json=body).json())
    return total


def attempts(workflow: int) -> int:
    """Attempts that the catalog has of a workflow."""
    return sum(used.attempts for used in usage(workflow).values())


def usage(workflow: int) -> dict[int, Any]:
    """What each task of a workflow used."""
    from catalog import tasks
    from catalog.db import get_catalog

    with get_catalog().read() as session:
        ids = [task.id for task in tasks.of_workflow(session, workflow)]
        return dict(tasks.usage(session, ids))


def wrong_outputs(dataset: str, files: list[Path]) -> int:
    """Files whose output is missing, is there twice, or isn't the md5 of their content."""
    from catalog import datasets, manifests, storages
    from catalog.db import get_catalog
    from catalog.drivers import driver_for

    with get_catalog().read() as session:
        places = {s.id: driver_for(s) for s in storages.list_all(session)}
        name = next(
            d.name for d in datasets.list_datasets(session, mask=f"{dataset}.chain.v1.cut.*")
            if not d.name.endswith(".log")
        )  # fmt: skip
        members = list(manifests.all_members(session, datasets.by_name(session, name).id))
    found = {}
    for member in members:
        replica = member.replicas[0]
        with places[replica.storage_id].open(replica.path) as stream:
            found[member.key] = stream.read().decode().strip()
    expected = {file.name: hashlib.md5(file.read_bytes()).hexdigest() for file in files}
    wrong = sum(found.get(name) != digest for name, digest in expected.items())
    return wrong + abs(len(members) - len(expected))
