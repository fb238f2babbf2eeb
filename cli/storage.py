"""`spdf storage`: the places that hold bytes."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.home import open_catalog
from cli.output import Json, print_json, say, show_list, size

app = typer.Typer(name="storage", help="Places that hold bytes.", no_args_is_help=True)


class Role(StrEnum):
    """What a storage is for (`catalog.models.StorageRole`, which is slow to import)."""

    INPUT = "input"
    INTERNAL = "internal"
    OUTPUT = "output"


@app.command()
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new storage.")],
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Its directory; made if it isn't there.")
    ],
    role: Annotated[Role, typer.Option(help="What it is for.")],
    as_json: Json = False,
) -> None:
    """Make a directory a storage. The same again changes nothing."""
    from catalog import storages
    from catalog.models import StorageKind

    catalog = open_catalog(create=True)
    place = directory.expanduser().absolute()
    with catalog.write() as session:
        info = storages.add(session, name, StorageKind.LOCAL, role.value, str(place))
    if as_json:
        print_json(info)
    else:
        say(f"storage {info.name} ({info.role}) at {info.url}")


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
