"""`spdf pilot`: the processes on compute nodes that run jobs."""

from typing import Annotated

import typer

from cli.home import open_catalog
from cli.output import Json, show_list

app = typer.Typer(name="pilot", help="Processes that lease and run jobs.", no_args_is_help=True)


@app.command("list")
def list_all(
    live: Annotated[bool, typer.Option("--live", help="Only those at work.")] = False,
    workflow: Annotated[
        int | None, typer.Option(min=1, help="Only those of this workflow.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    as_json: Json = False,
) -> None:
    """List pilots, the newest first."""
    from catalog import pilots

    with open_catalog().read() as session:
        found = pilots.list_pilots(session, live=live, workflow_id=workflow, limit=limit)
    show_list(
        found,
        as_json,
        lambda p: {
            "pilot": p.id,
            "state": p.state,
            "workflow": p.workflow_id,
            "stage": p.stage,
            "node": p.node,
            "pid": p.pid,
            "slots": p.slots,
            "jobs done": p.jobs_done,
            "started": p.started_at,
            "last beat": p.beat_at,
            "why": p.reason,
        },
        empty="no pilots.",
        limit=limit,
    )
