"""Rows of a catalog that the recorder's tests begin with, and what a server shows of them."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from prefect.client.orchestration import SyncPrefectClient
from sqlmodel import Session

from catalog.models import Attempt, Dataset, Job, Pilot, Task, Template, Workflow
from catalog.states import AttemptState, JobState, Phase

BEGAN = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def new_flow_run(client: SyncPrefectClient) -> str:
    flow_id = client.create_flow_from_name("pilot")
    body = {"flow_id": str(flow_id), "state": {"type": "RUNNING", "name": "Running"}}
    answer: str = client.request("POST", "/flow_runs/", json=body).json()["id"]
    return answer


def add_task(session: Session) -> int:
    template = Template(
        name=f"t-{uuid4().hex}", version=1, mask="*", document={}, plan={}, digest=uuid4().hex
    )
    dataset = Dataset(name=f"d-{uuid4().hex}")
    session.add_all([template, dataset])
    session.flush()
    workflow = Workflow(
        template_id=template.id, dataset_id=dataset.id, inputs={}, inputs_digest="-"
    )
    session.add(workflow)
    session.flush()
    task = Task(workflow_id=workflow.id, stage="decode", ordinal=0, pool="cpu")
    session.add(task)
    session.flush()
    return task.id


def add_pilot(session: Session, task_id: int, flow_run_id: str | None) -> int:
    pilot = Pilot(task_id=task_id, pool="cpu", node="n1", pid=1, slots=2, flow_run_id=flow_run_id)
    session.add(pilot)
    session.flush()
    return pilot.id


def add_attempt(
    session: Session,
    task_id: int,
    pilot_id: int,
    key: str,
    state: AttemptState,
    **values: Any,
) -> int:
    job_state = values.pop("job_state", JobState.FINISHED)
    job = Job(task_id=task_id, key=key, ordinal=0, state=job_state, attempt=1)
    session.add(job)
    session.flush()
    ended = None if state is AttemptState.RUNNING else BEGAN + timedelta(seconds=3)
    attempt = Attempt(
        job_id=job.id, number=1, pilot_id=pilot_id, state=state, node="n1",
        **{"started_at": BEGAN, "ended_at": ended, "phase": Phase.PAYLOAD, **values},
    )  # fmt: skip
    session.add(attempt)
    session.flush()
    return attempt.id


def read_runs(client: SyncPrefectClient, flow_run_ids: list[str]) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = []
    while True:
        body = {
            "flow_runs": {"id": {"any_": flow_run_ids}},
            "limit": 200, "offset": len(runs), "sort": "NAME_ASC",
        }  # fmt: skip
        page = client.request("POST", "/task_runs/filter", json=body).json()
        runs += page
        if len(page) < 200:
            return runs
