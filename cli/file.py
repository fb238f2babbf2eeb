"""`spdf file`: one file, where it is and where it comes from."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalog.errors import BadInput, Conflict
from cli.copies import Reader, Wanted
from cli.home import open_catalog
from cli.many import From, Names, all_or_none, names_of, one_by_one
from cli.output import Json, Size, plain, print_fields, print_json, print_table, say, show_causes

if TYPE_CHECKING:
    from catalog.db import Catalog
    from catalog.files import FileInfo
    from catalog.lineage import Lineage, LineageStep, Maker
    from flows.recovery import Recovered

app = typer.Typer(name="file", help="Single files.", no_args_is_help=True)

Ref = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="Its id, `scope:name`, or a name that only one file has.",
        show_default=False,
    ),
]

Several = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[FILE]...",
        help="Their ids, `scope:name`, or names that only one file has.",
        show_default=False,
    ),
]


@app.command()
def show(file: Ref, as_json: Json = False) -> None:
    """Show a file: its copies, the way back to the raw files, and the jobs that read it."""
    from catalog import files
    from catalog.lineage import consumers, lineage

    with open_catalog().read() as session:
        info = files.find(session, file)
        copies = files.all_replicas(session, info.id)
        origin = lineage(session, info.id)
        readers = consumers(session, info.id)
    if as_json:
        found = {**plain(info), "replicas": copies, "lineage": origin.steps}
        more = {"raw": origin.raw, "read_by": readers, "incomplete": origin.incomplete}
        print_json({**found, "truncated": origin.truncated, **more})
        return
    print_fields(
        {
            "id": info.id,
            "file": info.ref,
            "size": Size(info.size_bytes),
            "checksum": info.checksum,
            "registered": info.created_at,
        }
    )
    print_table(
        [{"storage": r.storage, "path": r.path, "state": r.state} for r in copies], "copies"
    )
    _show_lineage(origin)
    if readers:
        print_table([{"read by": _words(m), "as": m.port, "state": m.state} for m in readers])


def _show_lineage(origin: "Lineage") -> None:
    print_table([_row(step) for step in origin.steps], "lineage")
    raw = ", ".join(file.ref for file in origin.raw[:5])
    more = f" and {len(origin.raw) - 5} more" if len(origin.raw) > 5 else ""
    say(f"raw: {raw}{more}")
    if origin.truncated:
        say("the lineage goes on; only its nearest part is shown.")
    for lacking in origin.incomplete:
        say(f"dataset {lacking.dataset}, which it comes from, is incomplete: {lacking.why}")


def _row(step: "LineageStep") -> dict[str, Any]:
    return {
        "step": step.depth,
        "id": step.file.id,
        "file": step.file.ref,
        "made by": _words(step.made_by) if step.made_by else "from outside",
        "from files": ", ".join(str(i) for i in step.inputs[:8])
        + (" …" if len(step.inputs) > 8 else ""),
    }


def _words(maker: "Maker") -> str:
    return (
        f"{maker.template}@{maker.version} {maker.stage}, job {maker.job_id} "
        f"of workflow {maker.workflow_id}"
    )


@app.command()
def url(
    file: Ref,
    expires: Annotated[
        str, typer.Option(metavar="TIME", help="How long it may be used: 30m, 12h, 7d.")
    ] = "1h",
    as_json: Json = False,
) -> None:
    """Print an address at which anybody can read a file for a while, without a login."""
    from catalog import durations, files, storages
    from catalog.drivers import driver_for
    from catalog.drivers.s3 import S3Driver

    life_s = durations.seconds(expires, "--expires")
    with open_catalog().read() as session:
        info = files.find(session, file)
        replicas = files.replicas(session, [info.id])[info.id]
        places = {storage.id: storage for storage in storages.list_all(session)}
    for replica in replicas:
        driver = driver_for(places[replica.storage_id])
        if isinstance(driver, S3Driver):
            address = driver.link(replica.path, life_s)
            if as_json:
                print_json({"url": address, "expires_s": life_s})
            else:
                say(address)
            return
    raise BadInput(
        f"file {file} lies on no S3 storage, and a directory has no address; "
        "`spdf file get` copies it."
    )


@app.command()
def get(
    file: Ref,
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="Where its bytes go: a file, or a directory.")
    ],
    as_json: Json = False,
) -> None:
    """Copy a file's bytes to a path, verified; other bytes that are there are never replaced."""
    from catalog import files

    catalog = open_catalog()
    with catalog.read() as session:
        info = files.find(session, file)
        places = files.replicas(session, [info.id])[info.id]
    target = path / info.name.rpartition("/")[2] if path.is_dir() else path
    wanted = Wanted(info.ref, info.size_bytes, info.checksum, places)
    new = Reader(catalog).fetch(wanted, target)
    if as_json:
        print_json({"file": info.ref, "path": target, "new": new, "size_bytes": info.size_bytes})
    else:
        say(f"{target}: {Size(info.size_bytes)}" + ("" if new else ", was there already"))


@app.command()
def verify(files: Several = None, source: From = None, as_json: Json = False) -> None:
    """Read all copies of files, and mark those that aren't the catalog's.

    Exit code 4 where one isn't, or can't be read. Of several one that can't be verified keeps no
    other from it.
    """
    from catalog.verification import verify as verify_file

    catalog = open_catalog()
    chosen, infos = _find(catalog, files, source)
    read, code = one_by_one(infos, lambda info: (info, verify_file(catalog, info)))
    if as_json:
        print_json(chosen.shape([{"file": info.ref, "replicas": found} for info, found in read]))
    elif read:
        print_table(
            [
                {
                    **({} if chosen.one else {"file": info.ref}),
                    "storage": r.storage,
                    "path": r.path,
                    "state": r.state,
                    "found": r.found,
                }
                for info, found in read
                for r in found
            ]
        )
    if code or not all(replica.is_whole for _, found in read for replica in found):
        raise typer.Exit(code or Conflict.exit_code)


def _find(
    catalog: "Catalog", given: list[str] | None, source: str | None
) -> "tuple[Names, list[FileInfo]]":
    """The files that are named; raises `NotFound` before anything is done with one of them."""
    from catalog import files

    chosen = names_of(given, source, "FILE")
    with catalog.read() as session:
        return chosen, all_or_none(chosen.all, lambda text: files.find(session, text))


@app.command()
def recover(files: Several = None, source: From = None, as_json: Json = False) -> None:
    """Make lost files again, by the jobs that made them; kept only if their bytes are the same.

    Of several one that can't be made again keeps no other from it.
    """
    from cli.home import add_own_programs, settings
    from flows.recovery import recover as recover_file

    catalog = open_catalog()
    chosen, infos = _find(catalog, files, source)
    add_own_programs()

    def call(info: "FileInfo") -> "Recovered":
        done = recover_file(catalog, settings(), info.id)
        if not as_json and done.job_id is None:
            say(f"file {info.ref} is AVAILABLE on {done.storage}; nothing was done")
        elif not as_json:
            made = f"by job {done.job_id}: {done.path} on {done.storage}"
            say(f"file {info.ref} was made again {made}")
        return done

    made, code = one_by_one(infos, call)
    if as_json:
        print_json(chosen.shape(made))
    if code:
        raise typer.Exit(code)


@app.command()
def why(
    file: Ref,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Why it is in this dataset, or not.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Explain where a file is and where it comes from; with --dataset, why it is in it or not."""
    from catalog import causes, datasets

    with open_catalog().read() as session:
        wanted = datasets.by_name(session, dataset) if dataset is not None else None
        found = causes.why_text(session, file, wanted)
    show_causes(found, as_json)
