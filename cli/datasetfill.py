"""`spdf dataset add`, `close` and `dismiss`: what goes into a dataset, and when that is over."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalog.counts import count_of
from catalog.errors import BadInput, NotFound, StateConflict
from catalog.names import shown
from catalog.states import DatasetState
from cli.dataset import Name, Several, state_of, tell_incomplete
from cli.home import open_catalog
from cli.many import From, change, files_in, find_datasets, names_of
from cli.output import Json, Size, note, print_json, say, size
from cli.progress import Bar

if TYPE_CHECKING:
    from catalog.datasets import DatasetInfo
    from catalog.db import Catalog
    from catalog.intake import Expected, Measured

_WINDOW = 256


def register(app: typer.Typer) -> None:
    """Add the commands to those of `spdf dataset`."""
    for command in (add, close, dismiss):
        app.command()(command)


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


def close(
    names: Several = None,
    source: From = None,
    complete: Annotated[
        bool,
        typer.Option(
            "--complete", help="Nothing is missing, though who was to give more can't any more."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Close datasets for good; their count, bytes and digest are noted. All or none.

    That ends all who fill them, and leaves out what was refused; both are named. What a cancelled
    or FAILED workflow has left can be closed, too, and is incomplete; so is what a removed rule or
    a sender was to give more of, unless --complete. No template takes such by itself.
    """
    chosen = names_of(names, source, "NAME")
    catalog = open_catalog()
    with catalog.write() as session:
        found = find_datasets(session, chosen.all)
        closed = change(found, lambda info: _close(session, info, complete))
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


def _close(session: Any, found: "DatasetInfo", is_whole: bool) -> _Closed:
    from catalog import datasets, incomplete, refusals, sources

    incomplete.check_closable(session, found.id)
    if is_whole and found.derived:
        raise BadInput(
            f"dataset {found.name!r} was left by a workflow that didn't end well, so it isn't "
            "complete; leave --complete out."
        )
    was_open = found.state is DatasetState.OPEN
    filling = [info.who for info in sources.of_dataset(session, found.id) if info.is_open]
    left = refusals.count_of_dataset(session, found.name) if was_open else 0
    closed = datasets.close(session, found.id, is_whole=is_whole)
    return _Closed(closed, filling if was_open else (), left)


def _tell_closed(done: _Closed) -> None:
    name, files = done.info.name, count_of(done.info.file_count or 0, "file")
    say(f"dataset {name} is {state_of(done.info)}: {files}, {size(done.info.size_bytes)}")
    tell_incomplete(done.info)
    if done.filling:
        note(f"it was still filled by {', '.join(done.filling)}: what comes now is late")
    if done.left:
        note(
            f"{count_of(done.left, 'thing')} of it not taken; `spdf dataset why {name}` names them"
        )


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
