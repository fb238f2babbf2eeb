"""`spdf request`: what was asked for, and the answers."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalog.counts import count_of
from catalog.refs import RequestKind
from catalog.states import RequestState
from cli.home import open_catalog
from cli.many import From, all_or_none, change, names_of
from cli.output import Json, print_fields, print_json, print_table, say, show_list

if TYPE_CHECKING:
    from catalog.requests.queue import RequestInfo

app = typer.Typer(
    name="request", help="What was asked to be registered, and the answers.", no_args_is_help=True
)

Ref = Annotated[
    str, typer.Argument(metavar="REQUEST", help="Its id or its key.", show_default=False)
]

Several = Annotated[
    list[str] | None,
    typer.Argument(metavar="[REQUEST]...", help="Their ids or keys.", show_default=False),
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
def retry(requests: Several = None, source: From = None, as_json: Json = False) -> None:
    """Queue requests again that were answered with ERROR, once what was wrong is mended.

    All or none.
    """
    from catalog.requests import queue

    for info in _each(requests, source, as_json, lambda s, info: queue.retry(s, info.id)):
        say(f"request {info.key} is {info.state}")


@app.command()
def cancel(requests: Several = None, source: From = None, as_json: Json = False) -> None:
    """Answer requests that wait with ERROR, so that what is behind them goes on; all or none.

    An upload that one has begun is cancelled. A deletion that has begun isn't: exit code 4.
    """
    from catalog.requests import work

    for info in _each(requests, source, as_json, lambda s, info: work.cancel(s, info.id)):
        say(f"request {info.key} is cancelled")


def _each(
    given: list[str] | None,
    source: str | None,
    as_json: bool,
    call: "Callable[[Any, RequestInfo], RequestInfo]",
) -> "list[RequestInfo]":
    """Do a thing for all requests that are named; gives those that a sentence is to tell of."""
    from catalog.requests import queue

    chosen = names_of(given, source, "REQUEST")
    with open_catalog().write() as session:
        found = all_or_none(chosen.all, lambda text: queue.find(session, text))
        done = change(found, lambda info: call(session, info))
    if not as_json:
        return done
    print_json(chosen.shape(done))
    return []


@app.command()
def schema(
    kind: Annotated[RequestKind, typer.Argument(metavar="KIND", help="Such as file.input.")],
) -> None:
    """Print the JSON Schema of a kind of request."""
    from catalog.requests import schema_of

    print_json(schema_of(kind))
