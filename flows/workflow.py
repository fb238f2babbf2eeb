"""The workflow's flow: submits (or resumes) and drives, under the template's name."""

from typing import Any

import prefect
from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from catalog.db import get_catalog
from catalog.outage import ride_out
from catalog.settings import get_settings
from catalog.states import WorkflowState
from flows.drive import drive
from flows.submit import Submission, submit


@flow(name="workflow")
def run_workflow(
    template: str | None = None,
    dataset: str | None = None,
    inputs: dict[str, Any] | None = None,
    rank: int | None = None,
    again: bool = False,
    workflow: int | None = None,
) -> State[Any]:
    """Apply a template to a dataset: a chain of tasks, one job per file.

    With `workflow` a workflow that is defined already is advanced, and the rest only tells of it.
    """
    catalog = get_catalog()
    found = prefect.runtime.flow_run.id
    run_id = str(found) if found else None
    if workflow is None:
        wanted = Submission(template or "", dataset or "", inputs or {}, rank, again)
        workflow = ride_out(
            lambda: submit(catalog, wanted, run_id)[0], limit_s=get_settings().outage_s
        )
    end = drive(catalog, get_settings(), workflow, run_id)
    if end.state is WorkflowState.FAILED:
        return Failed(message=end.message)
    if end.state is WorkflowState.CANCELLED:
        return Cancelled(message=end.message)
    return Completed(message=end.message)
