"""`spdf dataset`, further: how long datasets stay, where they go, and whether they are whole."""

from typing import Annotated

import typer

from catalog.counts import count_of
from catalog.errors import BadInput, Conflict
from cli.dataset import TABLE, Name, after_close
from cli.home import open_catalog
from cli.output import Json, cell, print_json, print_table, say, show_causes
from cli.progress import Bar


def register(app: typer.Typer) -> None:
    """Add the commands to those of `spdf dataset`."""
    for command in (pin, unpin, expire, upload, verify, why):
        app.command()(command)


def pin(
    name: Name,
    reason: Annotated[str, typer.Option(help="Why it must stay.")] = "pinned by an operator",
    as_json: Json = False,
) -> None:
    """Keep a dataset from being deleted, by a command, a request or its lifetime."""
    from catalog import datasets, lifecycle

    catalog = open_catalog()
    with catalog.write() as session:
        info = lifecycle.pin(session, datasets.by_name(session, name).id, reason)
    if as_json:
        print_json(info)
    else:
        say(f"dataset {name} is pinned: {info.pin}")


def unpin(name: Name, as_json: Json = False) -> None:
    """Let a dataset be deleted again."""
    from catalog import datasets, lifecycle

    catalog = open_catalog()
    with catalog.write() as session:
        info = lifecycle.unpin(session, datasets.by_name(session, name).id)
    if as_json:
        print_json(info)
    else:
        say(f"dataset {name} is not pinned")


def expire(
    name: Name,
    lifetime: Annotated[
        str, typer.Option(metavar="TIME", help="From its close, or from now if it is CLOSED: 7d.")
    ] = "",
    never: Annotated[bool, typer.Option("--never", help="Keep it until it is deleted.")] = False,
    as_json: Json = False,
) -> None:
    """Set when a dataset is deleted by itself."""
    from catalog import datasets, durations, lifecycle

    if bool(lifetime) == never:
        raise BadInput("give either --lifetime TIME or --never.")
    lifetime_s = None if never else durations.seconds(lifetime, "--lifetime")
    catalog = open_catalog()
    with catalog.write() as session:
        info = lifecycle.set_lifetime(session, datasets.by_name(session, name).id, lifetime_s)
    if as_json:
        print_json(info)
    else:
        later = cell(info.expires_at) if info.expires_at else after_close(info.lifetime_s)
        goes = "isn't deleted by itself" if never else f"is deleted after {later}"
        say(f"dataset {name} {goes}")


def upload(
    name: Name,
    storage: Annotated[str, typer.Option("--to", help="The storage that it goes to.")],
    cancel: Annotated[bool, typer.Option("--cancel", help="Stop it; what is there stays.")] = False,
    as_json: Json = False,
) -> None:
    """Copy a CLOSED dataset to another storage, verified there; a FAILED upload goes on.

    It goes in the background, by the `upload` flow of `spdf up`; `spdf dataset show` tells how far.
    """
    from catalog import datasets, storages, uploads

    catalog = open_catalog()
    with catalog.write() as session:
        found = datasets.by_name(session, name)
        target = storages.by_name(session, storage)
        info = uploads.order(session, found.id, target.id, cancel=cancel)
    if as_json:
        print_json(info)
    else:
        say(f"upload {info.id} of dataset {name} to {storage} is {info.state}")


def verify(name: Name, as_json: Json = False) -> None:
    """Read all copies of a dataset's files, and mark those that aren't the catalog's.

    Exit code 4 where one isn't, or can't be read. A CLOSED dataset's digest is compared, too.
    """
    from catalog import datasets, manifests
    from catalog.verification import verify_dataset

    catalog = open_catalog()
    with catalog.read() as session:
        info = datasets.by_name(session, name)
        total = manifests.totals(session, [info.id])[info.id]
    with Bar("reading", total.files) as bar:
        wrong = verify_dataset(catalog, info.id, progress=bar.advance)
    with catalog.read() as session:
        changed = info.digest not in (None, manifests.content(session, info.id).digest)
    if as_json:
        print_json({"dataset": name, "files": total.files, "wrong": wrong, "changed": changed})
    else:
        copies = count_of(len(wrong), "copy", "copies")
        say(f"dataset {name}: {count_of(total.files, 'file')} read, not whole: {copies}")
        if wrong:
            print_table(
                [{"file": w.file, "storage": w.storage, "state": w.state, "found": w.found}
                 for w in wrong[:TABLE]]
            )  # fmt: skip
        if changed:
            say("its list of files is not the one that it was closed with.")
    if wrong or changed:
        raise typer.Exit(Conflict.exit_code)


def why(name: Name, as_json: Json = False) -> None:
    """Explain a dataset's state: what keeps it open, since when, and what happens next."""
    from catalog import causes

    with open_catalog().read() as session:
        found = causes.why_name(session, name)
    show_causes(found, as_json)
