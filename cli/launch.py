"""Workflows defined in the catalog and started on the server."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from catalog.errors import BadInput
from catalog.states import is_final

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

    from catalog.db import Catalog
    from catalog.workflows import WorkflowInfo
    from flows.submit import Submission


@dataclass(frozen=True)
class Launched:
    """A workflow, whether it was made just now, and whether a flow run was started for it."""

    workflow: "WorkflowInfo"
    new: bool
    started: bool


def read_inputs(given: list[str]) -> dict[str, str]:
    """The texts of `--input NAME=VALUE`, by name; raises `BadInput`."""
    inputs: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise BadInput(f"--input {text!r} is not NAME=VALUE; write it so.")
        if name in inputs:
            raise BadInput(f"--input {name} is given twice; give it once.")
        inputs[name] = value
    return inputs


def launch(catalog: "Catalog", client: "SyncPrefectClient", wanted: "Submission") -> Launched:
    """Define the workflow, or find it, and start it unless it is under way or has ended."""
    from catalog import workflows
    from flows.submit import submit

    workflow_id, new = submit(catalog, wanted)
    with catalog.read() as session:
        info = workflows.get(session, workflow_id)
    under_way = info.owner is not None or info.flow_run_id is not None
    if not new and (is_final(info.state) or under_way):
        return Launched(info, new, started=False)
    return Launched(start(catalog, client, workflow_id), new, started=True)


def start(catalog: "Catalog", client: "SyncPrefectClient", workflow_id: int) -> "WorkflowInfo":
    """Start the flow run that advances a workflow; gives the workflow as it is then."""
    from catalog import workflows
    from flows.runs import start_run

    with catalog.read() as session:
        info = workflows.get(session, workflow_id)
    start_run(client, catalog, info)
    with catalog.read() as session:
        return workflows.get(session, workflow_id)
