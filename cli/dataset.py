"""`spdf dataset`: named, ordered sets of files."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalog.counts import count_of
from catalog.errors import BadInput, NotFound, StateConflict
from catalog.names import shown
from catalog.states import DatasetState
from cli.copies import fetch_dataset, members
from cli.home import open_catalog
from cli.many import From, change, files_in, find_datasets, names_of
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
from cli.progress import Bar, counted

if TYPE_CHECKING:
    from catalog.datasets import DatasetInfo
    from catalog.db import Catalog
    from catalog.intake import Expected, Measured
    from catalog.uploads import UploadInfo

app = typer.Typer(name="dataset", help="Named, ordered sets of files.", no_args_is_help=True)

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of the dataset.", show_default=False)
]

Several = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME]...", help="Names of datasets.", show_default=False),
]

_WINDOW = 256
TABLE = 1000


@app.command()
def create(
    name: Name,
    lifetime: Annotated[
        str | None, typer.Option(metavar="TIME", help="Delete it so long after its close: 12h, 7d.")
    ] = None,
    hold: Annotated[
        bool, typer.Option("--hold", help="Rules that fill it don't close it before you do.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Create an OPEN dataset without files."""
    from catalog import datasets, durations, sources

    lifetime_s = None if lifetime is None else durations.seconds(lifetime, "--lifetime")
    catalog = open_catalog(create=True)
    with catalog.write() as session:
        made = datasets.create(session, name, lifetime_s=lifetime_s)
        if hold:
            sources.hold(session, made, sources.ANYBODY)
        info = datasets.get(session, made)
    if as_json:
        print_json(info)
    else:
        say(f"dataset {info.name} is {info.state}")


@app.command()
def add(
    name: Name,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FILE]...", help="Files of this machine; with --pattern folders of it."
        ),
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option(
            metavar="P", help="Those in the folders that fit: `*.raw`; `**/*.raw` also below them."
        ),
    ] = None,
    source: From = None,
    scope: Annotated[
        str | None, typer.Option(help="Scope of their names; by default the storage's name.")
    ] = None,
    size_bytes: Annotated[
        int | None, typer.Option("--size", min=0, help="Bytes that the one file must have.")
    ] = None,
    checksum: Annotated[
        str | None, typer.Option(help="Checksum that the one file must have (`md5:…`).")
    ] = None,
    copy_to: Annotated[
        str | None,
        typer.Option(metavar="STORAGE", help="Copy the files to this storage first."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Register files and attach them to an OPEN dataset, in the order given; all or none.

    A file on a storage is registered where it lies; others are copied with `--copy-to buffer`. More
    files than a command line holds come from a folder (--pattern; in the order of their names,
    without hidden ones) or a list (--from).
    """
    from catalog import datasets, intake
    from catalog import files as datafiles

    paths = _paths(files or [], pattern, source)
    expected = _expected(paths, size_bytes, checksum)
    catalog = open_catalog()
    with catalog.read() as session:
        info = datasets.by_name(session, name)
        datasets.check_from_outside(session, info.id)
    if info.state is not DatasetState.OPEN:
        why = "only an OPEN dataset takes files"
        raise StateConflict("dataset", name, info.state, "changed", why)
    measured = _measure(catalog, paths, expected, copy_to, name)
    if scope is not None:
        measured = [replace(item, row=replace(item.row, scope=scope)) for item in measured]
    with catalog.read() as session:
        there = datafiles.checksums(session, [item.row for item in measured])
    measured = intake.aligned(measured, there)
    with catalog.write() as session:
        new = intake.add(session, info.id, measured)
    total = sum(item.row.size_bytes for item in measured)
    if as_json:
        print_json({"dataset": name, "files": len(measured), "new": new, "size_bytes": total})
    else:
        known = f", {len(measured) - new} in it already" if new < len(measured) else ""
        say(f"dataset {name}: {count_of(new, 'file')} added{known} ({Size(total)} in all)")


def _paths(given: Sequence[Path], pattern: str | None, source: str | None) -> list[Path]:
    """Files to be added, absolute and each once, in the order given, of a folder by name."""
    names = names_of(given, source, "FILE").all
    found = [Path(name) for name in names]
    if pattern is not None:
        found = [path for folder in found for path in files_in(folder, pattern)]
    return list(dict.fromkeys(path.absolute() for path in found))


def _expected(
    paths: Sequence[Path], size_bytes: int | None, checksum: str | None
) -> dict[Path, "Expected"]:
    if size_bytes is None and checksum is None:
        return {}
    if len(paths) > 1:
        raise BadInput("--size and --checksum say what one file must be; add that file alone.")
    from catalog.checksums import normalise
    from catalog.intake import Expected

    wanted = None if checksum is None else normalise(checksum)
    return {path: Expected(size_bytes, wanted) for path in paths}


def _measure(
    catalog: "Catalog",
    paths: Sequence[Path],
    expected: dict[Path, "Expected"],
    copy_to: str | None,
    folder: str,
) -> list["Measured"]:
    from catalog import intake, storages

    with catalog.read() as session:
        if copy_to is not None:
            target = storages.by_name(session, copy_to)
        known = storages.list_all(session)
    if copy_to is not None:
        return intake.copy_in(paths, target, folder, expected=expected)
    measured = []
    with Bar("reading", len(paths)) as bar:
        for start in range(0, len(paths), _WINDOW):
            window = paths[start : start + _WINDOW]
            measured += intake.measure(window, known, expected=expected)
            bar.advance(len(window))
    return measured


@app.command()
def close(names: Several = None, source: From = None, as_json: Json = False) -> None:
    """Close datasets for good; their count, bytes and digest are noted. All or none.

    That ends all who fill them, and leaves out what was refused; both are named.
    """
    chosen = names_of(names, source, "NAME")
    catalog = open_catalog()
    with catalog.write() as session:
        found = find_datasets(session, chosen.all)
        closed = change(found, lambda info: _close(session, info))
    if as_json:
        print_json(chosen.shape([done.info for done in closed]))
        return
    for done in closed:
        _tell_closed(done)


@dataclass(frozen=True)
class _Closed:
    """A dataset that is closed, who was still filling it, and how much was not taken for it."""

    info: "DatasetInfo"
    filling: Sequence[str]
    left: int


def _close(session: Any, found: "DatasetInfo") -> _Closed:
    from catalog import datasets, refusals, sources

    datasets.check_from_outside(session, found.id)
    was_open = found.state is DatasetState.OPEN
    filling = [info.who for info in sources.of_dataset(session, found.id) if info.is_open]
    left = refusals.count_of_dataset(session, found.name) if was_open else 0
    return _Closed(datasets.close(session, found.id), filling if was_open else (), left)


def _tell_closed(done: _Closed) -> None:
    name, files = done.info.name, count_of(done.info.file_count or 0, "file")
    say(f"dataset {name} is {done.info.state}: {files}, {size(done.info.size_bytes)}")
    if done.filling:
        note(f"it was still filled by {', '.join(done.filling)}: what comes now is late")
    if done.left:
        note(
            f"{count_of(done.left, 'thing')} of it not taken; `spdf dataset why {name}` names them"
        )


@app.command()
def dismiss(
    name: Name,
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="PATH", help="As `why` shows them.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All that is not taken for it now.")
    ] = False,
    source: From = None,
    as_json: Json = False,
) -> None:
    """Leave out what a rule could not take, as it is now, so that it keeps nothing open.

    What changes after that is looked at again.
    """
    from catalog import refusals

    if (bool(paths) or source is not None) == everything:
        raise BadInput("give the PATHs to leave out, as `spdf dataset why` shows them, or --all.")
    wanted = () if everything else names_of(paths, source, "PATH").all
    catalog = open_catalog()
    with catalog.write() as session:
        gone = refusals.dismiss(session, name, None if everything else wanted)
        known = {item.path for item in gone}
        missed = [path for path in wanted if shown(path) not in known]
        if missed or not gone:
            about = missed[0] if missed else "nothing"
            raise NotFound(
                f"thing of {name} that is not taken", about, f"`spdf dataset why {name}` shows them"
            )
    if as_json:
        print_json(gone)
    else:
        say(f"dataset {name}: {count_of(len(gone), 'thing')} left out")


@app.command("list")
def list_all(
    mask: Annotated[str | None, typer.Option(help="Only names that fit, such as `run-*`.")] = None,
    state: Annotated[DatasetState | None, typer.Option(help="Only those in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    after: Annotated[str | None, typer.Option(help="Go on behind this name.")] = None,
    as_json: Json = False,
) -> None:
    """List datasets by name."""
    from catalog import datasets

    with open_catalog().read() as session:
        found = datasets.list_datasets(session, mask=mask, state=state, limit=limit, after=after)
    show_list(
        found,
        as_json,
        lambda d: {
            "dataset": d.name,
            "state": d.state,
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
            "state": info.state,
            "files": now.files,
            "size": Size(now.size_bytes),
            "digest": info.digest,
            "origin": _words(origin),
            "created": info.created_at,
            "closed": info.closed_at,
            "deleted after": info.expires_at or after_close(info.lifetime_s),
            "pinned": info.pin,
            **_going(info),
        }
    )
    if going:
        print_table([_upload_row(upload) for upload in going], "uploads")
    print_history(history)


def _going(info: "DatasetInfo") -> dict[str, Any]:
    """Of a dataset that is being deleted: since when, and until when it can be taken back."""
    if info.state is not DatasetState.DELETING:
        return {}
    fields: dict[str, Any] = {"deleted": info.deleting_at}
    if info.grace_until is not None:
        fields["bytes stay until"] = info.grace_until
        fields["taken back by"] = f"spdf dataset undelete {info.name}"
    return fields


def after_close(lifetime_s: float | None) -> str | None:
    """A lifetime in words; None where there is none."""
    from catalog import durations

    return None if lifetime_s is None else f"{durations.words(lifetime_s)} from its close"


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
    name: Name,
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where the files go; made if needed.")
    ],
    as_json: Json = False,
) -> None:
    """Copy the files of a dataset to a directory, verified; what is there already stays."""
    from catalog import datasets, manifests

    catalog = open_catalog()
    with catalog.read() as session:
        info = datasets.by_name(session, name)
        total = manifests.totals(session, [info.id])[info.id]
    directory.mkdir(parents=True, exist_ok=True)
    new = copied = 0
    for member, _, is_new in counted(
        fetch_dataset(catalog, info.id, directory), "copying", total.files
    ):
        new += is_new
        copied += member.size_bytes if is_new else 0
    if as_json:
        print_json(
            {"dataset": name, "directory": directory, "files": total.files, "new": new,
             "size_bytes": copied}
        )  # fmt: skip
    else:
        there = f", {total.files - new} were there" if new < total.files else ""
        say(f"{count_of(new, 'file')} ({Size(copied)}) copied to {directory}{there}")
