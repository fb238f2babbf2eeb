"""`spdf request`: what was asked for, and the answers."""

from typing import Annotated

import typer

from catalog.counts import count_of
from catalog.refs import RequestKind
from catalog.states import RequestState
from cli.home import open_catalog
from cli.output import Json, print_fields, print_json, print_table, say, show_list

app = typer.Typer(
    name="request", help="What was asked to be registered, and the answers.", no_args_is_help=True
)

Ref = Annotated[
    str, typer.Argument(metavar="REQUEST", help="Its id or its key.", show_default=False)
]


@app.command("list")
def list_all(
    state: Annotated[RequestState | None, typer.Option(help="Only those in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    before: Annotated[int | None, typer.Option(help="Go on below this id.")] = None,
    as_json: Json = False,
) -> None:
    """List requests, the newest first."""
    from catalog import requests

    with open_catalog().read() as session:
        found = requests.list_requests(session, state=state, before=before, limit=limit)
    show_list(
        found,
        as_json,
        lambda r: {
            "id": r.id,
            "kind": r.kind,
            "key": r.key,
            "dataset": r.lane,
            "files": r.files,
            "state": r.state,
            "sent": r.created_at,
            "error": (r.reply or {}).get("error"),
        },
        empty="no requests.",
        limit=limit,
    )


@app.command()
def show(request: Ref, as_json: Json = False) -> None:
    """Show a request and its answer, with the files that are to blame for an ERROR."""
    from catalog.requests import queue, work

    with open_catalog().read() as session:
        info = queue.find(session, request)
        ahead = queue.ahead(session, info)
    if as_json:
        print_json(info)
        return
    reply = dict(info.reply or {})
    files = reply.pop("files", None)
    waits = f"{count_of(ahead, 'request')} of its dataset before it" if ahead else work.waits(info)
    print_fields(
        {
            "id": info.id,
            "kind": info.kind,
            "key": info.key,
            "dataset": info.lane,
            "files": info.files,
            "state": info.state,
            "waits": waits if info.state is RequestState.QUEUED else None,
            "sent": info.created_at,
            "begun": info.begun_at,
            "answered": info.ended_at,
            **{f"answer: {name}": value for name, value in reply.items()},
        }
    )
    if isinstance(files, list):
        print_table(files, "files to blame")


@app.command()
def retry(request: Ref, as_json: Json = False) -> None:
    """Queue a request again that was answered with ERROR, once what was wrong is mended."""
    from catalog.requests import queue

    catalog = open_catalog()
    with catalog.write() as session:
        info = queue.retry(session, queue.find(session, request).id)
    if as_json:
        print_json(info)
    else:
        say(f"request {info.key} is {info.state}")


@app.command()
def cancel(request: Ref, as_json: Json = False) -> None:
    """Answer a request that waits with ERROR, so that what is behind it goes on.

    An upload that it has begun is cancelled. A deletion that has begun isn't: exit code 4.
    """
    from catalog.requests import queue, work

    catalog = open_catalog()
    with catalog.write() as session:
        info = work.cancel(session, queue.find(session, request).id)
    if as_json:
        print_json(info)
    else:
        say(f"request {info.key} is cancelled")


@app.command()
def schema(
    kind: Annotated[RequestKind, typer.Argument(metavar="KIND", help="Such as file.input.")],
) -> None:
    """Print the JSON Schema of a kind of request."""
    from catalog.requests import schema_of

    print_json(schema_of(kind))
