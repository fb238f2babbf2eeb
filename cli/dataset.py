"""`spdf dataset`: named, ordered sets of files."""

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalog.counts import count_of
from catalog.errors import BadInput
from catalog.names import spelt_out
from catalog.states import DatasetState
from cli.copies import fetch_dataset, members
from cli.home import open_catalog
from cli.many import From, all_or_none, find_datasets, names_of, one_by_one
from cli.output import (
    Json,
    Size,
    note,
    plain,
    print_fields,
    print_history,
    print_json,
    print_table,
    say,
    show_list,
    size,
    stream_json,
)
from cli.overdue import list_overdue
from cli.progress import counted

if TYPE_CHECKING:
    from catalog.datasets import DatasetInfo
    from catalog.db import Catalog
    from catalog.uploads import UploadInfo

_SHOWN = 20
"""Of files that can't be copied so many are named."""

app = typer.Typer(name="dataset", help="Named, ordered sets of files.", no_args_is_help=True)

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of the dataset.", show_default=False)
]

Several = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME]...", help="Names of datasets.", show_default=False),
]

TABLE = 1000


@app.command()
def create(
    names: Several = None,
    source: From = None,
    lifetime: Annotated[
        str | None, typer.Option(metavar="TIME", help="Delete it so long after its close: 12h, 7d.")
    ] = None,
    hold: Annotated[
        bool, typer.Option("--hold", help="Rules that fill it don't close it before you do.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Create OPEN datasets without files; all or none."""
    from catalog import durations

    lifetime_s = None if lifetime is None else durations.seconds(lifetime, "--lifetime")
    chosen = names_of(names, source, "NAME")
    with open_catalog(create=True).write() as session:
        made = all_or_none(chosen.all, lambda name: _create(session, name, lifetime_s, hold))
    if as_json:
        print_json(chosen.shape(made))
        return
    for info in made:
        say(f"dataset {info.name} is {info.state}")


def _create(session: Any, name: str, lifetime_s: float | None, hold: bool) -> "DatasetInfo":
    from catalog import datasets, sources

    made = datasets.create(session, name, lifetime_s=lifetime_s)
    if hold:
        sources.hold(session, made, sources.ANYBODY)
    return datasets.get(session, made)


@app.command("list")
def list_all(
    mask: Annotated[str | None, typer.Option(help="Only names that fit, such as `run-*`.")] = None,
    state: Annotated[DatasetState | None, typer.Option(help="Only those in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    after: Annotated[str | None, typer.Option(help="Go on behind this name.")] = None,
    overdue: Annotated[
        bool,
        typer.Option("--overdue", help="Only those kept beyond their lifetime, and what for."),
    ] = False,
    as_json: Json = False,
) -> None:
    """List datasets by name, or by their age what is overdue."""
    from catalog import datasets

    if overdue:
        if state not in (None, DatasetState.CLOSED) or after is not None:
            raise BadInput("--overdue lists CLOSED datasets, from the oldest: without --after.")
        list_overdue(mask, limit, as_json)
        return
    with open_catalog().read() as session:
        found = datasets.list_datasets(session, mask=mask, state=state, limit=limit, after=after)
    show_list(
        found,
        as_json,
        lambda d: {
            "dataset": d.name,
            "state": state_of(d),
            "files": d.file_count,
            "size": size(d.size_bytes),
            "made by task": d.task_id,
            "created": d.created_at,
        },
        empty="no datasets.",
        limit=limit,
    )


@app.command()
def show(name: Name, as_json: Json = False) -> None:
    """Show one dataset: its state, content, origin and history."""
    from catalog import datasets, events, manifests, uploads

    with open_catalog().read() as session:
        info = datasets.by_name(session, name)
        now = manifests.totals(session, [info.id])[info.id]
        origin = _origin(session, info)
        going = uploads.of_dataset(session, info.id)
        history = events.history(session, "dataset", info.id)
    if as_json:
        totals = {"files": now.files, "bytes": now.size_bytes}
        more = {"now": totals, "origin": origin, "uploads": going, "history": history}
        print_json({**plain(info), **more})
        return
    print_fields(
        {
            "dataset": info.name,
            "state": state_of(info),
            **({"lacks": info.incomplete} if info.incomplete else {}),
            "files": now.files,
            "size": Size(now.size_bytes),
            "digest": info.digest,
            "origin": _words(origin),
            "created": info.created_at,
            "closed": info.closed_at,
            "deleted after": info.expires_at or after_close(info.lifetime_s, info.state),
            "pinned": info.pin,
            **_going(info),
        }
    )
    if going:
        print_table([_upload_row(upload) for upload in going], "uploads")
    print_history(history)


def state_of(info: "DatasetInfo") -> str:
    """The state of a dataset in a table, and that it is incomplete."""
    return f"{info.state}, incomplete" if info.incomplete else info.state.value


def tell_incomplete(info: "DatasetInfo") -> None:
    """Say what a dataset lacks, where it does."""
    if info.incomplete:
        note(f"dataset {info.name} is incomplete: {info.incomplete}")


def _going(info: "DatasetInfo") -> dict[str, Any]:
    """Of a dataset that is being deleted: since when, and until when it can be taken back."""
    if info.state is not DatasetState.DELETING:
        return {}
    fields: dict[str, Any] = {"deleted": info.deleting_at}
    if info.grace_until is not None:
        fields["bytes stay until"] = info.grace_until
        fields["taken back by"] = f"spdf dataset undelete {info.name}"
    return fields


def after_close(lifetime_s: float | None, state: DatasetState = DatasetState.OPEN) -> str | None:
    """A lifetime in words, of a dataset for which it hasn't begun; None where there is none."""
    from catalog import durations

    if lifetime_s is None:
        return None
    since = "its close" if state is DatasetState.OPEN else "when all is done with it: see `why`"
    return f"{durations.words(lifetime_s)} from {since}"


def _upload_row(upload: "UploadInfo") -> dict[str, Any]:
    done = 100 * upload.bytes_done / upload.size_bytes if upload.size_bytes else 100.0
    return {
        "upload": upload.id,
        "to": upload.storage,
        "state": upload.state,
        "files": f"{upload.files_done} of {upload.files}",
        "done": f"{done:.0f} %",
        "since": upload.started_at or upload.created_at,
        "ended": upload.ended_at,
        "why": upload.reason or upload.waits_for,
    }


def _origin(session: Any, info: "DatasetInfo") -> dict[str, Any] | None:
    """The workflow and task that made it; None for a dataset from outside."""
    from catalog import tasks, workflows

    if info.task_id is None:
        return None
    task = tasks.get(session, info.task_id)
    workflow = workflows.get(session, task.workflow_id)
    return {
        "workflow": workflow.id,
        "label": workflow.label,
        "task": task.id,
        "stage": task.stage,
        "port": info.port,
    }


def _words(origin: dict[str, Any] | None) -> str:
    if origin is None:
        return "from outside"
    return (
        f"workflow {origin['workflow']} ({origin['label']}), task {origin['task']}: "
        f"{origin['stage']}/{origin['port']}"
    )


@app.command()
def files(
    name: Name,
    limit: Annotated[int, typer.Option(min=0, help="At most so many; 0: all.")] = 0,
    as_json: Json = False,
) -> None:
    """List the files of a dataset in its order."""
    from catalog import datasets

    catalog = open_catalog()
    with catalog.read() as session:
        info = datasets.by_name(session, name)
    found = members(catalog, info.id, with_replicas=as_json)
    if limit:
        found = islice(found, limit)
    if as_json:
        stream_json(found)
        return
    empty = True
    while page := list(islice(found, TABLE)):
        empty = False
        print_table(
            [
                {
                    "id": m.id,
                    "file": m.name,
                    "key": m.key,
                    "size": Size(m.size_bytes),
                    "checksum": m.checksum,
                }
                for m in page
            ]
        )
    if empty:
        say(f"dataset {name} has no files.")


@app.command()
def get(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME]... DIR",
            help="Names of datasets, then where the files go; made if needed.",
            show_default=False,
        ),
    ],
    source: From = None,
    as_json: Json = False,
) -> None:
    """Copy the files of a dataset to a directory, verified; what is there already stays.

    A file that can't be copied is named, and keeps no other from it; once more copies the rest.
    Of several, or those of a list, each gets a folder of its name there, and one that can't be
    had keeps no other from it.
    """
    *names, directory = words
    if not names and source is None:
        raise BadInput(f"name a dataset, and then the directory; {directory!r} is all there is.")
    chosen = names_of(names, source, "NAME")
    catalog = open_catalog()
    with catalog.read() as session:
        found = find_datasets(session, chosen.all)
    target = Path(directory)

    def fetch(info: "DatasetInfo") -> tuple[dict[str, Any], int]:
        return _get(catalog, info, target if chosen.one else target / info.name, quiet=as_json)

    got, code = one_by_one(found, fetch)
    if as_json:
        print_json(chosen.shape([told for told, _ in got]))
    if code := max([code, *(one for _, one in got)]):
        raise typer.Exit(code)


def _get(
    catalog: "Catalog", info: "DatasetInfo", directory: Path, *, quiet: bool
) -> tuple[dict[str, Any], int]:
    """Copy one; gives what JSON has of it, which it says where not `quiet`, and the exit code."""
    from catalog import manifests

    with catalog.read() as session:
        total = manifests.totals(session, [info.id])[info.id]
    directory.mkdir(parents=True, exist_ok=True)
    new = copied = failed = code = 0
    for one in counted(fetch_dataset(catalog, info.id, directory), "copying", total.files):
        new += one.new
        copied += one.member.size_bytes if one.new else 0
        if one.fault is not None:
            failed, code = failed + 1, max(code, one.fault.exit_code)
            if failed <= _SHOWN:
                note(f"spdf: {one.member.name}: {spelt_out(str(one.fault))}")
    if not quiet:
        old = total.files - new - failed
        there = f", {old} were there" if old else ""
        there += f", {failed} could not be; once more copies these" if failed else ""
        say(f"{count_of(new, 'file')} ({Size(copied)}) copied to {directory}{there}")
        tell_incomplete(info)
    told = {
        "dataset": info.name,
        "directory": directory,
        "files": total.files,
        "new": new,
        "failed": failed,
        "size_bytes": copied,
        "incomplete": info.incomplete,
    }
    return told, code
