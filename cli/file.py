"""`spdf file`: one file, where it is and where it comes from."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalog.errors import BadInput
from cli.copies import Reader, Wanted
from cli.home import open_catalog
from cli.output import Json, Size, plain, print_fields, print_json, print_table, say

if TYPE_CHECKING:
    from catalog.lineage import Lineage, LineageStep, Maker

app = typer.Typer(name="file", help="Single files.", no_args_is_help=True)

Ref = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="Its id, `scope:name`, or a name that only one file has.",
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
        print_json({**found, "truncated": origin.truncated, "raw": origin.raw, "read_by": readers})
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
    from catalog import files, storages
    from catalog.drivers import driver_for
    from catalog.drivers.s3 import S3Driver

    life_s = _seconds(expires)
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


def _seconds(text: str) -> float:
    """Seconds of `90s`, `30m`, `12h` or `7d`; raises `BadInput`."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    number, unit = text[:-1], text[-1:]
    if unit not in units or not number.isdecimal():
        raise BadInput(f"--expires {text!r} is no time; write 90s, 30m, 12h or 7d.")
    return float(number) * units[unit]


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
