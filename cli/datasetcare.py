"""`spdf dataset`, further: how long datasets stay, where they go, and whether they are whole."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalog.counts import count_of
from catalog.errors import BadInput, Conflict
from catalog.states import DatasetState
from cli.dataset import TABLE, Several, after_close, tell_incomplete
from cli.home import open_catalog
from cli.many import From, all_or_none, change, find_datasets, names_of, one_by_one
from cli.output import Json, cell, note, print_json, print_table, say, show_causes
from cli.progress import Bar

if TYPE_CHECKING:
    from catalog.datasets import DatasetInfo
    from catalog.db import Catalog


def register(app: typer.Typer) -> None:
    """Add the commands to those of `spdf dataset`."""
    for command in (pin, unpin, expire, upload, verify, why):
        app.command()(command)


def pin(
    names: Several = None,
    source: From = None,
    reason: Annotated[str, typer.Option(help="Why it must stay.")] = "pinned by an operator",
    as_json: Json = False,
) -> None:
    """Keep datasets from being deleted, by a command, a request or their lifetime; all or none."""
    from catalog import lifecycle

    chosen = names_of(names, source, "NAME")
    with open_catalog().write() as session:
        found = find_datasets(session, chosen.all)
        pinned = change(found, lambda info: lifecycle.pin(session, info.id, reason))
    if as_json:
        print_json(chosen.shape(pinned))
        return
    for info in pinned:
        say(f"dataset {info.name} is pinned: {info.pin}")


def unpin(names: Several = None, source: From = None, as_json: Json = False) -> None:
    """Let datasets be deleted again; all or none."""
    from catalog import lifecycle

    chosen = names_of(names, source, "NAME")
    with open_catalog().write() as session:
        found = find_datasets(session, chosen.all)
        free = change(found, lambda info: lifecycle.unpin(session, info.id))
    if as_json:
        print_json(chosen.shape(free))
        return
    for info in free:
        say(f"dataset {info.name} is not pinned")


def expire(
    names: Several = None,
    source: From = None,
    lifetime: Annotated[
        str, typer.Option(metavar="TIME", help="From its close, or from now if it is CLOSED: 7d.")
    ] = "",
    never: Annotated[bool, typer.Option("--never", help="Keep it until it is deleted.")] = False,
    as_json: Json = False,
) -> None:
    """Set when datasets are deleted by themselves; all or none."""
    from catalog import durations, dutywords, lifecycle

    if bool(lifetime) == never:
        raise BadInput("give either --lifetime TIME or --never.")
    lifetime_s = None if never else durations.seconds(lifetime, "--lifetime")
    chosen = names_of(names, source, "NAME")
    with open_catalog().write() as session:
        found = find_datasets(session, chosen.all)
        changed = change(found, lambda info: lifecycle.set_lifetime(session, info.id, lifetime_s))
        kept = {} if never else {i.id: dutywords.facts(session, i.id) for i in changed[:TABLE]}
    if as_json:
        print_json(chosen.shape(changed))
        return
    for info in changed:
        later = cell(info.expires_at) if info.expires_at else after_close(info.lifetime_s)
        goes = "isn't deleted by itself" if never else f"is deleted after {later}"
        say(f"dataset {info.name} {goes}")
        if kept.get(info.id) and info.state is DatasetState.CLOSED:
            note(f"dataset {info.name} stays until it is done with: {kept[info.id]}")


def upload(
    storage: Annotated[str, typer.Option("--to", help="The storage that it goes to.")],
    names: Several = None,
    source: From = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="Stop it; what is there stays.")] = False,
    as_json: Json = False,
) -> None:
    """Copy CLOSED datasets to another storage, verified there; a FAILED upload goes on.

    All are ordered, or none. They go in the background, by the `upload` flow of `spdf up`; `spdf
    dataset show` tells how far.
    """
    from catalog import storages, uploads

    chosen = names_of(names, source, "NAME")
    with open_catalog().write() as session:
        found = find_datasets(session, chosen.all)
        target = storages.by_name(session, storage)
        ordered = change(
            found, lambda info: uploads.order(session, info.id, target.id, cancel=cancel)
        )
    if as_json:
        print_json(chosen.shape(ordered))
        return
    for dataset, info in zip(found, ordered, strict=True):
        say(f"upload {info.id} of dataset {dataset.name} to {storage} is {info.state}")
        tell_incomplete(dataset)


def verify(names: Several = None, source: From = None, as_json: Json = False) -> None:
    """Read all copies of datasets' files, and mark those that aren't the catalog's.

    Exit code 4 where one isn't, or can't be read. A CLOSED dataset's digest is compared, too. Of
    several one that can't be verified keeps no other from it.
    """
    chosen = names_of(names, source, "NAME")
    catalog = open_catalog()
    with catalog.read() as session:
        found = find_datasets(session, chosen.all)
    read, code = one_by_one(found, lambda info: _verify(catalog, info, quiet=as_json))
    if as_json:
        print_json(chosen.shape(read))
    if code or any(one["wrong"] or one["changed"] for one in read):
        raise typer.Exit(code or Conflict.exit_code)


def _verify(catalog: "Catalog", info: "DatasetInfo", *, quiet: bool) -> dict[str, Any]:
    """Verify one; gives what JSON has of it, and says it where not `quiet`."""
    from catalog import manifests
    from catalog.verification import verify_dataset

    with catalog.read() as session:
        total = manifests.totals(session, [info.id])[info.id]
    with Bar("reading", total.files) as bar:
        wrong = verify_dataset(catalog, info.id, progress=bar.advance)
    with catalog.read() as session:
        changed = info.digest not in (None, manifests.content(session, info.id).digest)
    if not quiet:
        copies = count_of(len(wrong), "copy", "copies")
        say(f"dataset {info.name}: {count_of(total.files, 'file')} read, not whole: {copies}")
        if wrong:
            print_table(
                [{"file": w.file, "storage": w.storage, "state": w.state, "found": w.found}
                 for w in wrong[:TABLE]]
            )  # fmt: skip
        if changed:
            say("its list of files is not the one that it was closed with.")
    return {"dataset": info.name, "files": total.files, "wrong": wrong, "changed": changed}


def why(names: Several = None, source: From = None, as_json: Json = False) -> None:
    """Explain datasets' states: what keeps them open, since when, and what happens next."""
    from catalog import causes

    chosen = names_of(names, source, "NAME")
    with open_catalog().read() as session:
        found = all_or_none(chosen.all, lambda name: causes.why_name(session, name))
    if chosen.one:
        show_causes(found[0], as_json)
        return
    told = zip(chosen.all, found, strict=True)
    if as_json:
        print_json([{"dataset": name, "causes": one} for name, one in told])
        return
    for name, one in told:
        say(f"{name}:")
        show_causes(one, as_json)
