"""Flow runs of workflows: started once for each epoch, under the template's own name."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from catalog import ownership
from catalog.bulk import chunks
from catalog.db import Catalog
from catalog.workflows import WorkflowInfo
from flows.submit import shown_inputs

_PAGE = 200

GENERIC = "workflow/workflow"
"""The deployment for workflows whose template version is no longer shown."""

CANCELLED = (StateType.CANCELLED, StateType.CANCELLING)
WAITING = (StateType.SCHEDULED, StateType.PENDING)
BEGIN_S = 120.0
"""A run that is shown as running takes its workflow within this time, or is taken for dead."""


def start_run(
    client: SyncPrefectClient,
    catalog: Catalog,
    info: WorkflowInfo,
    *,
    instead_of: str | None = None,
) -> str:
    """Start the flow run that advances a workflow under its next epoch; gives the run's id.

    The same workflow, epoch and run that is replaced (it may have died before it took the
    workflow) give the same run, however often it is asked for.
    """
    key = f"workflow-{info.id}:{info.epoch}" + (f":{instead_of}" if instead_of else "")
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
        idempotency_key=key,
        tags=[f"workflow:{info.id}"],
    )
    with catalog.write() as session:
        ownership.set_flow_run(session, info.id, info.epoch, str(run.id))
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
    state = _state(client, flow_run_id)
    return state.type if state else None


def show_lost(client: SyncPrefectClient, flow_run_id: str) -> None:
    """Show a pilot that was given up as crashed, unless its run has ended."""
    state = _state(client, flow_run_id)
    if state is None or state.is_final():
        return
    crashed: State[Any] = Crashed(
        message="Its pilot stopped beating, and so did the node that would have told."
    )
    client.set_flow_run_state(UUID(flow_run_id), crashed, force=True)


def states_of(
    client: SyncPrefectClient, flow_run_ids: Iterable[str | None]
) -> dict[str, State[Any]]:
    """The states of flow runs by id, a request for hundreds; unknown ids are left out."""
    ids = sorted({UUID(run_id) for run_id in flow_run_ids if run_id})
    found: dict[str, State[Any]] = {}
    for page in chunks(ids, _PAGE):
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=list(page)))
        for run in client.read_flow_runs(flow_run_filter=wanted, limit=_PAGE):
            if run.state is not None:
                found[str(run.id)] = run.state
    return found


def may_take(info: WorkflowInfo, state: State[Any] | None) -> bool:
    """Whether a workflow's flow run, in that state, is yet to take it: it waits, or just began."""
    if state is None or state.type in WAITING:
        return state is not None
    if state.type is not StateType.RUNNING or (info.owner or "").startswith(f"{info.flow_run_id}/"):
        return False
    # Not one of a time to come: it began while the server's clock was wrong.
    return abs((datetime.now(UTC) - state.timestamp).total_seconds()) < BEGIN_S


def _state(client: SyncPrefectClient, flow_run_id: str | None) -> State[Any] | None:
    if flow_run_id is None:
        return None
    try:
        return client.read_flow_run(flow_run_id).state  # type: ignore[arg-type]
    except ObjectNotFound:
        return None
