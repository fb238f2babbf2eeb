"""`spdf task`: the stages of workflows."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalog.states import JobState, TaskState, is_final
from cli.dataset import state_of
from cli.home import open_catalog
from cli.jobtable import show_jobs
from cli.output import (
    Json,
    Size,
    plain,
    print_fields,
    print_history,
    print_json,
    print_table,
    say,
    show_list,
)

if TYPE_CHECKING:
    from catalog.db import Catalog
    from catalog.tasks import TaskInfo, Usage

app = typer.Typer(name="task", help="Stages of workflows.", no_args_is_help=True)

Id = Annotated[
    int, typer.Argument(min=1, metavar="TASK", help="Id of the task.", show_default=False)
]


@app.command("list")
def list_all(
    workflow: Annotated[
        int | None, typer.Option(min=1, help="Only those of this workflow.")
    ] = None,
    state: Annotated[list[TaskState] | None, typer.Option(help="Only in these states.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    as_json: Json = False,
) -> None:
    """List tasks: the newest first, those of one workflow in its order."""
    found = _find(open_catalog(), workflow, state or (), limit)
    show_list(
        found,
        as_json,
        lambda t: {
            "task": t.id,
            "workflow": t.workflow_id,
            "stage": t.stage,
            "state": t.state,
            "pool": t.pool,
            "rank": t.rank,
            "started": t.started_at,
            "ended": t.ended_at,
            "why": t.reason,
        },
        empty="no such tasks.",
        limit=limit,
    )


def _find(
    catalog: "Catalog", workflow: int | None, states: Sequence[TaskState], limit: int
) -> "list[TaskInfo]":
    from catalog import tasks, workflows

    with catalog.read() as session:
        if workflow is None:
            return tasks.list_tasks(session, states=states or None, limit=limit)
        workflows.get(session, workflow)
        mine = tasks.of_workflow(session, workflow)
    return [task for task in mine if not states or task.state in states][:limit]


@app.command()
def show(task: Id, as_json: Json = False) -> None:
    """Show one task: its jobs counted, what it used, its datasets and its history."""
    from catalog import datasets, events, tasks, waits

    with open_catalog().read() as session:
        info = tasks.get(session, task)
        rows = tasks.progress(session, info.workflow_id)
        jobs = next(row.jobs for row in rows if row.task.id == task)
        used = tasks.usage(session, [task])[task]
        outputs = tasks.outputs(session, [task])[task]
        made = {port: datasets.get(session, out.dataset_id) for port, out in outputs.items()}
        failures = tasks.failure_summary(session, task)
        history = events.history(session, "task", task)
        waiting = [] if is_final(info.state) else waits.of_tasks(session, [task])
    if as_json:
        reasons = [{"error": e, "exit_code": code, "jobs": n} for e, code, n in failures]
        found: dict[str, Any] = {**plain(info), "jobs": jobs, "used": used, "outputs": made}
        print_json({**found, "failures": reasons, "waits": waiting, "history": history})
        return
    print_fields(
        {
            "task": info.id,
            "stage": info.stage,
            "workflow": info.workflow_id,
            "state": info.state,
            "why": info.reason,
            "pool": info.pool,
            "rank": info.rank,
            "jobs": ", ".join(f"{count} {state}" for state, count in jobs.items()),
            **_used(used),
        }
    )
    for line in waiting:
        say(line)
    print_table(
        [
            {"port": port, "dataset": d.name, "state": state_of(d), "files": d.file_count}
            for port, d in made.items()
        ],
        "outputs",
    )
    if failures:
        print_table([{"error": e, "exit code": code, "jobs": n} for e, code, n in failures])
    print_history(history)


def _used(used: "Usage") -> dict[str, Any]:
    return {
        "attempts": used.attempts,
        "wall s": used.wall_s,
        "CPU s": used.cpu_s,
        "read": Size(used.bytes_in),
        "written": Size(used.bytes_out),
    }


@app.command()
def jobs(
    task: Id,
    state: Annotated[list[JobState] | None, typer.Option(help="Only in these states.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    as_json: Json = False,
) -> None:
    """List the jobs of a task in its order."""
    from catalog import jobs as catalog_jobs
    from catalog import tasks

    with open_catalog().read() as session:
        tasks.get(session, task)
        found = catalog_jobs.list_jobs(session, task_id=task, states=state, limit=limit)
    show_jobs(found, as_json, limit)
