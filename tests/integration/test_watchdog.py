"""One look of the watchdog, on a real Prefect server."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled

from catalog import clock, workflows
from catalog.db import Catalog
from catalog.models import Dataset, Template, Workflow
from catalog.settings import Settings
from catalog.states import TemplateState, WorkflowState
from flows.deployments import ensure_deployments
from flows.pools import ensure_pools
from flows.runs import states_of
from flows.server import Server
from flows.watchdog import tick

pytestmark = pytest.mark.xdist_group("server")

WAITING = 30
LATER_S = 600.0


@pytest.fixture
def client(prefect_server: Server) -> Iterator[SyncPrefectClient]:
    address = {
        PREFECT_API_URL: prefect_server.api_url,
        PREFECT_API_AUTH_STRING: prefect_server.auth,
    }
    with (
        temporary_settings(address),
        SyncPrefectClient(prefect_server.api_url, auth_string=prefect_server.auth) as client,
    ):
        ensure_pools(client, gpu=False)
        ensure_deployments(client, pools=("control",), watchdog_s=60)
        yield client


def define(catalog: Catalog, runs: list[str], state: WorkflowState) -> list[int]:
    """A workflow for each flow run, in that state, which nobody owns."""
    with catalog.write() as session:
        template = Template(
            name=uuid4().hex, version=1, state=TemplateState.ACTUAL, mask="run*", document={},
            plan={}, digest="d",
        )  # fmt: skip
        sets = [Dataset(name=run) for run in runs]
        session.add_all([template, *sets])
        session.flush()
        made = [
            Workflow(
                template_id=template.id, dataset_id=dataset.id, inputs={}, inputs_digest="i",
                state=state, flow_run_id=run,
            )
            for dataset, run in zip(sets, runs, strict=True)
        ]  # fmt: skip
        session.add_all(made)
        session.flush()
        return [workflow.id for workflow in made]


def start(client: SyncPrefectClient) -> str:
    """A flow run that waits for a worker."""
    deployment = client.read_deployment_by_name("workflow/workflow")
    return str(client.create_flow_run_from_deployment(deployment.id).id)


def test_a_look_at_many_workflows_takes_few_requests_and_finds_who_needs_it(
    catalog: Catalog, client: SyncPrefectClient, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path, _env_file=None)
    define(catalog, [start(client) for _ in range(WAITING)], WorkflowState.DEFINED)
    (left,) = define(catalog, [str(uuid4())], WorkflowState.IN_PROGRESS)
    told = start(client)
    client.set_flow_run_state(told, Cancelled(), force=True)  # type: ignore[arg-type]
    (cancelled,) = define(catalog, [told], WorkflowState.IN_PROGRESS)
    clock.shift_clock(LATER_S)
    asked: list[str] = []
    client._client.event_hooks["request"].append(lambda request: asked.append(request.url.path))
    count, after = tick(catalog, settings, client)
    assert count == 1
    with catalog.read() as session:
        taken_up = workflows.get(session, left)
        assert workflows.get(session, cancelled).state is WorkflowState.CANCELLED
        waiting = workflows.list_workflows(session, states=[WorkflowState.DEFINED])
    assert after == max(info.id for info in waiting) and len(waiting) == WAITING
    run = taken_up.flow_run_id
    assert run is not None and states_of(client, [run])[run].type is StateType.SCHEDULED
    assert len(asked) < 10, "not a request for each of them"
    assert tick(catalog, settings, client, after)[1] == 0, "and from the beginning again"
