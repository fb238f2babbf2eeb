"""`spdf storage`: the places that hold bytes."""

from pathlib import Path
from typing import Annotated

import typer

from catalog.refs import StorageRole
from cli.home import open_catalog
from cli.output import Json, print_json, say, show_list, size

app = typer.Typer(name="storage", help="Places that hold bytes.", no_args_is_help=True)


@app.command()
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new storage.")],
    place: Annotated[
        str,
        typer.Argument(
            metavar="PLACE",
            help="Its directory, made if it isn't there, or https://host:port/bucket[/prefix].",
        ),
    ],
    role: Annotated[StorageRole, typer.Option(help="What it is for.")],
    unchecked: Annotated[
        bool, typer.Option("--unchecked", help="Don't ask the S3 server whether it can be used.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a directory, or a bucket of an S3 server, a storage. The same again changes nothing.

    The login to an S3 server is not part of it: see SPDF_S3_ACCESS_KEY in the settings.
    """
    from catalog import storages
    from catalog.models import StorageKind

    remote = place.startswith(("http://", "https://"))
    kind = StorageKind.S3 if remote else StorageKind.LOCAL
    url = place if remote else str(Path(place).expanduser().absolute())
    catalog = open_catalog(create=True)
    if remote and not unchecked:
        _try(name, url)
    with catalog.write() as session:
        info = storages.add(session, name, kind, role, url)
    if as_json:
        print_json(info)
    else:
        say(f"storage {info.name} ({info.role}) at {info.url}")


def _try(name: str, url: str) -> None:
    """Ask for one object of the bucket; raises `StorageError` where it can't be used."""
    from catalog.drivers.s3 import S3Driver
    from catalog.drivers.s3client import login_of
    from cli.home import settings

    current = settings()
    next(S3Driver(name, url, login_of(current, name), current).list(), None)


@app.command("list")
def list_all(as_json: Json = False) -> None:
    """List the storages."""
    from catalog import storages

    with open_catalog().read() as session:
        found = storages.list_all(session)
    show_list(
        found,
        as_json,
        lambda s: {"storage": s.name, "role": s.role, "kind": s.kind, "place": s.url},
        empty="no storages; `spdf storage add` adds one.",
    )


@app.command()
def usage(as_json: Json = False) -> None:
    """Show how many files and bytes the catalog knows on each storage."""
    from catalog import storages

    with open_catalog().read() as session:
        found = storages.usage(session)
    show_list(
        found,
        as_json,
        lambda u: {
            "storage": u.storage,
            "role": u.role,
            "replicas": u.state,
            "files": u.files,
            "size": size(u.size_bytes),
        },
        empty="no files on any storage.",
    )
