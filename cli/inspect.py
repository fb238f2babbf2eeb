"""`spdf inspect`: storages compared with the catalog, and what is done about it."""

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalog.errors import Conflict, Unavailable
from cli.home import add_own_programs, open_catalog, settings
from cli.output import Json, note, print_fields, print_json, say, show_list, size

if TYPE_CHECKING:
    from catalog.db import Catalog
    from catalog.inspection.findings import InspectionInfo

app = typer.Typer(
    name="inspect", help="Whether storages hold what the catalog says.", no_args_is_help=True
)

Storage = Annotated[str, typer.Argument(metavar="STORAGE", help="Name of the storage.")]


@app.command()
def run(
    storage: Storage,
    sample: Annotated[
        float, typer.Option(min=0, max=100, help="Percent of the files whose bytes are read.")
    ] = 1.0,
    full: Annotated[bool, typer.Option("--full", help="Read all files: --sample 100.")] = False,
    grace: Annotated[
        str, typer.Option(metavar="TIME", help="Bytes without a row are left alone for so long.")
    ] = "1d",
    limit: Annotated[
        float, typer.Option(min=0, max=100, help="Percent of the files that may be wrong.")
    ] = 5.0,
    as_json: Json = False,
) -> None:
    """Compare a storage with the catalog, in both directions; nothing is changed.

    `spdf inspect report` shows what was found, `spdf inspect settle` acts on it. Exit code 4 where
    more is wrong than the limit allows, 5 where the storage is away.
    """
    from catalog import durations, storages
    from catalog.inspection.scan import Options, inspect
    from catalog.states import InspectionState
    from flows.roles import holding

    options = Options(100.0 if full else sample, durations.seconds(grace, "--grace"), limit)
    catalog = open_catalog()
    with catalog.read() as session:
        place = storages.by_name(session, storage)
    info = inspect(catalog, place.id, options, hold=partial(holding, catalog))
    if as_json:
        print_json(info)
    else:
        _show(info)
    if info.state is InspectionState.ASKING:
        raise typer.Exit(Conflict.exit_code)
    if info.state is InspectionState.FAILED:
        raise typer.Exit(Unavailable.exit_code)


def _show(info: "InspectionInfo") -> None:
    print_fields(
        {
            "inspection": info.id,
            "storage": info.storage,
            "state": info.state,
            "why": info.reason,
            "rows looked at": info.replicas,
            "files listed": info.objects,
            "bytes read of": f"{info.sample_percent:g} %",
            "missing": info.missing,
            "corrupt": info.corrupt,
            "dark": info.dark,
            "detached": info.detached,
        }
    )


@app.command()
def report(
    storage: Annotated[str | None, typer.Option(help="Only findings on this storage.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Those that are over, too.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    as_json: Json = False,
) -> None:
    """Show the findings that are open, and the last inspections."""
    from catalog import storages
    from catalog.inspection import findings
    from catalog.states import FindingState

    with open_catalog().read() as session:
        place = storages.by_name(session, storage).id if storage is not None else None
        states = tuple(FindingState) if everything else findings.OPEN
        found = findings.findings(session, storage_id=place, states=states, limit=limit)
        last = findings.recent(session, storage_id=place)
    if as_json:
        print_json({"findings": found, "inspections": last})
        return
    show_list(
        last,
        False,
        lambda i: {
            "inspection": i.id,
            "storage": i.storage,
            "state": i.state,
            "at": i.created_at,
            "rows": i.replicas,
            "missing": i.missing,
            "corrupt": i.corrupt,
            "dark": i.dark,
            "detached": i.detached,
        },
        empty="no inspections; `spdf inspect run STORAGE` makes one.",
    )
    show_list(
        found,
        False,
        lambda f: {
            "finding": f.id,
            "storage": f.storage,
            "path": f.path,
            "kind": f.kind,
            "state": f.state,
            "size": size(f.size_bytes),
            "found": f.found_at,
            "what": f.message,
        },
        empty="no findings are open.",
        limit=limit,
    )


@app.command()
def detached(
    storage: Annotated[str | None, typer.Option(help="Only files on this storage.")] = None,
    after: Annotated[int, typer.Option(min=0, help="Go on behind this number.")] = 0,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    as_json: Json = False,
) -> None:
    """List files that stayed where they were when their dataset was deleted.

    They don't count as used. `spdf intake rescan` lets the rules of the intake take them again.
    """
    from catalog import detached as rows
    from catalog import storages

    with open_catalog().read() as session:
        place = storages.by_name(session, storage).id if storage is not None else None
        found = rows.listing(session, place, after=after, limit=limit)
    show_list(
        found,
        as_json,
        lambda d: {
            "number": d.id,
            "storage": d.storage,
            "path": d.path,
            "size": size(d.size_bytes),
            "file": d.file_id,
            "since": d.created_at,
        },
        empty="no files are detached.",
        limit=limit,
    )


@app.command()
def settle(
    storage: Storage,
    recover: Annotated[
        bool, typer.Option("--recover", help="Make again what is lost, by the jobs that made it.")
    ] = False,
    remove_dark: Annotated[
        bool, typer.Option("--remove-dark", help="Remove bytes without a row now.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Also where the last inspection asks.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Act on the findings of a storage: mark replicas, quarantine dark bytes, make files again."""
    from catalog import storages
    from catalog.inspection.settle import settle as settle_all
    from flows.recovery import recover_marked

    catalog = open_catalog()
    with catalog.read() as session:
        place = storages.by_name(session, storage)
    _refuse_asking(catalog, place.id, yes)
    add_own_programs()
    done = settle_all(catalog, place.id, remove_dark=remove_dark)
    made, faults = recover_marked(catalog, settings(), place.id) if recover else ([], [])
    result: dict[str, Any] = {**vars(done), "recovered": len(made), "lost": faults}
    if as_json:
        print_json(result)
    else:
        print_fields({**result, "lost": len(faults)})
        for fault in faults[:20]:
            note(fault)
    if faults:
        raise typer.Exit(Conflict.exit_code)


def _refuse_asking(catalog: "Catalog", storage_id: int, yes: bool) -> None:
    """Raise `Conflict` where the storage's last inspection asks, and nobody has answered."""
    from catalog.inspection import findings
    from catalog.states import InspectionState

    with catalog.read() as session:
        last = next(iter(findings.recent(session, 1, storage_id)), None)
    if last is None or last.state is not InspectionState.ASKING:
        return
    if not yes:
        raise Conflict(last.reason or "the last inspection asks; give --yes.")
    with catalog.write() as session:
        findings.end(session, last.id, InspectionState.DONE, "an operator said yes")
    say(f"inspection {last.id} goes on")
