"""`spdf workflow cancel` and `retry`: workflows ended before their time, and taken up again."""

import getpass
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalog.counts import count_of
from catalog.errors import BadInput
from cli.home import open_catalog, server_client, settings
from cli.launch import start
from cli.many import From, all_or_none, change, ids_in, names_of
from cli.output import Json, note, plain, print_json, say
from cli.watching import first, tell_left
from cli.workflow import Wait, watch_to_end

if TYPE_CHECKING:
    from sqlmodel import Session

    from catalog.stranded import Leavings
    from catalog.workflows import WorkflowInfo

Several = Annotated[
    list[str] | None,
    typer.Argument(metavar="[WORKFLOW]...", help="Ids of workflows.", show_default=False),
]


def register(app: typer.Typer) -> None:
    """Add the commands to those of `spdf workflow`."""
    for command in (cancel, retry):
        app.command()(command)


@dataclass(frozen=True)
class _Ended:
    """A workflow that is cancelled, whether that is new, what it leaves and what was deleted."""

    info: "WorkflowInfo"
    new: bool
    left: "Leavings"
    discarded: Sequence[str]


def cancel(
    workflows: Several = None,
    source: From = None,
    reason: Annotated[str | None, typer.Option(help="Why, for the history.")] = None,
    with_readers: Annotated[
        bool,
        typer.Option("--with-readers", help="Also all that wait for what these would have made."),
    ] = False,
    discard: Annotated[
        bool, typer.Option("--discard", help="Delete what stays of them, with the usual grace.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Cancel workflows; all or none. Payloads are killed at their pilots' next heartbeat.

    What stays is told, and who waits for it: files that were registered stay in datasets that are
    OPEN and incomplete; `spdf dataset close` closes them so.
    """
    chosen = names_of(workflows, source, "WORKFLOW")
    ids = ids_in(chosen, source, "WORKFLOW")
    why = reason or f"cancelled by {_user()}"
    catalog = open_catalog()
    with catalog.write() as session:
        ended = _cancel(session, ids, why, with_readers=with_readers, discard=discard)
    if as_json:
        told = [_json(one) for one in ended]
        print_json(told if with_readers else chosen.shape(told))
        return
    for one in ended:
        _tell(one)


def _cancel(
    session: "Session", ids: Sequence[int], why: str, *, with_readers: bool, discard: bool
) -> list[_Ended]:
    from catalog import stranded, workflows

    found = all_or_none(ids, lambda i: workflows.get(session, i))
    if with_readers:
        known = {info.id for info in found}
        waiting = {r.id for i in ids for r in stranded.of_workflow(session, i).readers} - known
        found += [workflows.get(session, i) for i in sorted(waiting)]
    new = change(found, lambda info: workflows.cancel(session, info.id, why))
    gone: list[list[str]] = [[] for _ in found]
    if discard:
        grace_s = settings().delete_grace_s
        gone = change(found, lambda info: stranded.discard(session, info.id, why, grace_s))
    return [
        _Ended(
            workflows.get(session, info.id), is_new, stranded.of_workflow(session, info.id), names
        )
        for info, is_new, names in zip(found, new, gone, strict=True)
    ]


def _json(one: _Ended) -> dict[str, Any]:
    return {
        **plain(one.info),
        "new": one.new,
        "leaves": plain(one.left.datasets),
        "waiting": plain(one.left.readers),
        "discarded": list(one.discarded),
    }


def _tell(one: _Ended) -> None:
    say(f"workflow {one.info.id} is {one.info.state}" + ("" if one.new else ", as it was before"))
    if one.discarded:
        note(f"deleted with it: {first(one.discarded)}; `spdf dataset undelete` takes them back")
    tell_left(one.info.id, one.left)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "a user without a name"


def retry(
    workflows: Several = None, source: From = None, wait: Wait = False, as_json: Json = False
) -> None:
    """Try the failed and held jobs of FAILED workflows again; all or none."""
    from catalog import workflows as rows

    chosen = names_of(workflows, source, "WORKFLOW")
    ids = ids_in(chosen, source, "WORKFLOW")
    if wait and len(ids) > 1:
        raise BadInput("--wait watches one workflow; leave it out, and `spdf workflow watch` each.")
    catalog = open_catalog()
    with server_client() as client:
        with catalog.write() as session:
            found = all_or_none(ids, lambda i: rows.get(session, i))
            counts = change(found, lambda info: rows.retry(session, info.id))
        begun = [start(catalog, client, info.id) for info in found]
    if not as_json:
        for info, count in zip(begun, counts, strict=True):
            say(f"workflow {info.id} is {info.state}, to be tried again: {count_of(count, 'job')}")
    elif not wait:
        told = zip(begun, counts, strict=True)
        print_json(chosen.shape([{**plain(info), "jobs": count} for info, count in told]))
    if wait:
        watch_to_end(catalog, ids[0], as_json)
