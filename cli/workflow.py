"""`spdf workflow`: templates applied to datasets."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalog.states import DatasetState, WorkflowState
from cli.dataset import tell_incomplete
from cli.home import open_catalog, server_client, ui_address
from cli.launch import Launched, launch, read_inputs
from cli.output import (
    Json,
    note,
    plain,
    print_fields,
    print_history,
    print_json,
    print_table,
    say,
    show_list,
)
from cli.parameters import MOST_RANK
from cli.watching import json_end, show_end, stage_rows, stage_values, watch

if TYPE_CHECKING:
    from catalog.db import Catalog
    from catalog.workflows import WorkflowInfo

app = typer.Typer(name="workflow", help="Templates applied to datasets.", no_args_is_help=True)

Id = Annotated[
    int, typer.Argument(min=1, metavar="WORKFLOW", help="Id of the workflow.", show_default=False)
]
Wait = Annotated[bool, typer.Option("--wait", help="Watch it to its end.")]


@app.command()
def submit(
    template: Annotated[
        str, typer.Argument(metavar="TEMPLATE", help="NAME, or NAME@VERSION.", show_default=False)
    ],
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="Name of the dataset.", show_default=False)
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", metavar="NAME=VALUE", help="Another input; a File by its path. Repeatable."
        ),
    ] = None,
    rank: Annotated[
        int | None,
        typer.Option(min=-MOST_RANK, max=MOST_RANK, help="Priority: higher is served first."),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Run once more what was run before.")
    ] = False,
    wait: Wait = False,
    as_json: Json = False,
) -> None:
    """Apply a template to a dataset. The same again gives the workflow that there is.

    With --wait the exit code is 0 when it is FINISHED, 1 when FAILED, 6 when CANCELLED.
    """
    from flows.submit import Submission

    given = read_inputs(inputs or [])
    catalog = open_catalog()
    with server_client() as client:
        done = launch(catalog, client, Submission(template, dataset, given, rank, again))
    if not as_json:
        _tell(done)
        _tell_open(catalog, done.workflow)
    elif not wait:
        print_json(_json(done))
    _warn_of_pools(catalog, done.workflow.id)
    if wait:
        watch_to_end(catalog, done.workflow.id, as_json)


def _tell(done: Launched) -> None:
    info = done.workflow
    words = "" if done.new else ", which there was already"
    say(f"workflow {info.id}: {info.label} is {info.state}{words}")
    address = ui_address(info.flow_run_id)
    if address:
        note(f"see {address}")


def _tell_open(catalog: "Catalog", info: "WorkflowInfo") -> None:
    from catalog import datasets, stranded

    with catalog.read() as session:
        dataset = datasets.get(session, info.dataset_id)
        vain = stranded.why_waits(session, info)
    tell_incomplete(dataset)
    if vain is not None:
        note(f"{vain.fact}; {vain.next}")
    elif dataset.state is DatasetState.OPEN:
        note(
            f"dataset {dataset.name} is OPEN: the workflow takes its files as they come and ends "
            f"after `spdf dataset close {dataset.name}`."
        )


def _warn_of_pools(catalog: "Catalog", workflow_id: int) -> None:
    """Say which stages wait for a node that isn't there."""
    from catalog import poolnodes, tasks

    with catalog.read() as session:
        rows = tasks.of_workflow(session, workflow_id)
        for line in poolnodes.of_tasks(session, [row.id for row in rows]):
            note(line)


def _json(done: Launched) -> dict[str, Any]:
    return {
        **plain(done.workflow),
        "new": done.new,
        "started": done.started,
        "address": ui_address(done.workflow.flow_run_id),
    }


def watch_to_end(catalog: "Catalog", workflow_id: int, as_json: bool) -> None:
    """Watch a workflow to its end, tell of that, and leave with its exit code."""
    end = watch(catalog, workflow_id, silent=as_json)
    if as_json:
        print_json(json_end(end))
    else:
        show_end(end)
    raise typer.Exit(end.exit_code)


@app.command("list")
def list_all(
    state: Annotated[list[WorkflowState] | None, typer.Option(help="Only in these states.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    as_json: Json = False,
) -> None:
    """List workflows, the newest first."""
    from catalog import workflows

    with open_catalog().read() as session:
        found = workflows.list_workflows(session, states=state, limit=limit)
    show_list(
        found,
        as_json,
        lambda w: {
            "workflow": w.id,
            "template": f"{w.template}@{w.version}",
            "dataset": w.dataset,
            "state": w.state,
            "rank": w.rank,
            "created": w.created_at,
            "ended": w.ended_at,
            "why": w.reason,
        },
        empty="no such workflows.",
        limit=limit,
    )


@app.command()
def show(workflow: Id, as_json: Json = False) -> None:
    """Show one workflow: its stages, its output datasets and its history."""
    from catalog import events, waits, workflows
    from flows.summary import summary_rows

    catalog = open_catalog()
    with catalog.read() as session:
        info = workflows.get(session, workflow)
        history = events.history(session, "workflow", workflow)
        outputs = _outputs(session, workflow)
        waiting = waits.of_workflow(session, workflow)
    stages = summary_rows(catalog, workflow)
    address = ui_address(info.flow_run_id)
    if as_json:
        found = {
            **plain(info),
            "address": address,
            "stages": stage_values(stages),
            "outputs": outputs,
            "waits": waiting,
        }
        print_json({**found, "history": history})
        return
    print_fields(
        {
            "workflow": info.id,
            "template": f"{info.template}@{info.version}",
            "dataset": info.dataset,
            "inputs": info.inputs,
            "state": info.state,
            "why": info.reason,
            "rank": info.rank,
            "advanced by": info.owner,
            "created": info.created_at,
            "started": info.started_at,
            "ended": info.ended_at,
            "web page": address,
        }
    )
    for line in waiting:
        say(line)
    print_table(stage_rows(stages), "stages")
    print_table(outputs, "outputs")
    print_history(history)


def _outputs(session: Any, workflow_id: int) -> list[dict[str, Any]]:
    """The datasets that a workflow makes, in the order of its stages, with what is in them."""
    from catalog import datasets, manifests, tasks

    stages = tasks.of_workflow(session, workflow_id)
    made = tasks.outputs(session, [task.id for task in stages])
    places = [out for task in stages for out in made[task.id].values()]
    totals = manifests.totals(session, [out.dataset_id for out in places])
    return [
        {
            "dataset": out.name,
            "state": info.state.value,
            "incomplete": info.incomplete,
            "files": totals[out.dataset_id].files,
        }
        for out in places
        for info in (datasets.get(session, out.dataset_id),)
    ]


@app.command("watch")
def watch_one(workflow: Id, as_json: Json = False) -> None:
    """Watch a workflow to its end.

    The exit code is 0 when it is FINISHED, 1 when FAILED, 6 when CANCELLED. Ctrl-C ends the
    watching only.
    """
    from catalog import workflows

    catalog = open_catalog()
    with catalog.read() as session:
        workflows.get(session, workflow)
    watch_to_end(catalog, workflow, as_json)
