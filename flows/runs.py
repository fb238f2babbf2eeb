"""Flow runs of workflows: started once for each epoch, under the template's own name."""

from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound

from catalog import workflows
from catalog.db import Catalog
from catalog.workflows import WorkflowInfo
from flows.submit import shown_inputs

GENERIC = "workflow/workflow"
"""The deployment for workflows whose template version is no longer shown."""

CANCELLED = (StateType.CANCELLED, StateType.CANCELLING)
WAITING = (StateType.SCHEDULED, StateType.PENDING)


def start_run(client: SyncPrefectClient, catalog: Catalog, info: WorkflowInfo) -> str:
    """Start the flow run that advances a workflow under its next epoch; gives the run's id.

    The same workflow and epoch give the same run, however often it is asked for.
    """
    reference = f"{info.template}@{info.version}"
    parameters: dict[str, Any] = {
        "template": reference,
        "dataset": info.dataset,
        "inputs": shown_inputs(info.inputs),
        "rank": info.rank,
        "workflow": info.id,
    }
    run = client.create_flow_run_from_deployment(
        _deployment(client, info.template, reference),
        parameters=parameters,
        name=info.label,
        idempotency_key=f"workflow-{info.id}:{info.epoch}",
        tags=[f"workflow:{info.id}"],
    )
    with catalog.write() as session:
        workflows.set_flow_run(session, info.id, info.epoch, str(run.id))
    return str(run.id)


def _deployment(client: SyncPrefectClient, name: str, reference: str) -> Any:
    try:
        found = client.read_deployment_by_name(f"{name}/{name}")
        if found.parameters.get("template") == reference:
            return found.id
    except ObjectNotFound:
        pass
    return client.read_deployment_by_name(GENERIC).id


def run_state(client: SyncPrefectClient, flow_run_id: str | None) -> StateType | None:
    """The state of a flow run; None where there is no such run."""
    if flow_run_id is None:
        return None
    try:
        run = client.read_flow_run(flow_run_id)  # type: ignore[arg-type]
    except ObjectNotFound:
        return None
    return run.state.type if run.state else None
