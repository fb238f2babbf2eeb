"""`spdf storage`: the places that hold bytes."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from catalog.errors import BadInput, SpdfError
from catalog.places import kept_path, place_of
from catalog.refs import May, StorageRole
from cli.home import open_catalog
from cli.output import NOTHING, Json, note, print_fields, print_json, say, show_list, size

if TYPE_CHECKING:
    from catalog.standing import Found

app = typer.Typer(name="storage", help="Places that hold bytes.", no_args_is_help=True)
_REMOTE = ("http://", "https://")


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

    It gets a marker, .spdf-storage, by which it is known again; where that can't be written it is
    printed, to be placed by hand. A place inside another storage, or around one, is refused. The
    login to an S3 server is not part of it: see SPDF_S3_ACCESS_KEY in the settings.
    """
    from catalog import claims, siting, standing, storages
    from catalog.refs import StorageInfo, StorageKind

    url = _url(place)
    remote = url.startswith(_REMOTE)
    kind = StorageKind.S3 if remote else StorageKind.LOCAL
    catalog = open_catalog(create=True)
    if remote and not unchecked:
        _try(name, url)
    with catalog.read() as session:
        known = name in (info.name for info in storages.list_all(session))
    makes = False
    if not known and not unchecked:
        siting.refuse_taken(catalog, StorageInfo(0, name, kind, role, url))
        makes = not remote and not Path(url).exists()
    with catalog.write() as session:
        info = storages.add(session, name, kind, role, url)
    if makes:
        note(f"the directory {info.url} wasn't there, and was made")
    if remote and unchecked:
        _show(standing.Found(info, standing.Standing.UNMARKED), as_json)
        return
    try:
        found = standing.mark(catalog, info.id)
        with catalog.read() as session:
            found = standing.look(found.storage, claims.ours(session)) if found.why == "" else found
    except SpdfError as error:
        found = standing.Found(info, standing.Standing.AWAY, str(error))
    _show(found, as_json)


def _url(place: str) -> str:
    """A place as its row has it; raises `BadInput` for what is neither a directory nor S3."""
    if place.startswith(_REMOTE):
        place_of(place)
        return place
    if not place or "://" in place:
        raise BadInput(
            f"{place!r} is no place of a storage; give a directory, or https://host:port/bucket."
        )
    return str(kept_path(place))


def _show(found: "Found", as_json: bool) -> None:
    """A storage that was added or marked, and what is left to do for its owner."""
    info = found.storage
    if as_json:
        print_json({**vars(info), "standing": found.standing, "why": found.why,
                    "to_place": found.to_place})  # fmt: skip
    else:
        say(f"storage {info.name} ({info.role}) at {info.url}")
    if found.why:
        note(found.why)
    if found.to_place and not as_json:
        note(found.to_place)


@app.command()
def mark(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the storage.")],
    yes: Annotated[
        bool,
        typer.Option("--yes", help="It is the right one, and all of it, whatever it looks like."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Have the marker of a storage written, or taken up where it was placed by hand.

    Refused where none of the files that the catalog has there is found, or another marker lies
    there: an empty mount point, or another disk. With --yes it is the storage from now on.
    """
    from catalog import standing, storages

    catalog = open_catalog()
    with catalog.read() as session:
        info = storages.by_name(session, name)
    _show(standing.mark(catalog, info.id, by_word=yes), as_json)


@app.command()
def claim(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Names of the storages.")],
    may: Annotated[
        May | None,
        typer.Option(help="What this catalog does there; by default what it did, or its role's."),
    ] = None,
    over: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="CATALOG", help="Takes the right to remove from that one, by its id."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say that storages are this catalog's: that it reads them, or also removes what goes there.

    It takes the place of the claims that other copies of this catalog have, such as that of before
    a restore. Of several catalogs one may remove; another's right goes only where it is named.
    """
    from catalog import claims, standing, storages
    from catalog.drivers import driver_for

    catalog = open_catalog()
    with catalog.read() as session:
        wanted = [storages.by_name(session, name) for name in names]
    done = []
    for info in wanted:
        driver = driver_for(info)
        driver.check(marked=True)
        to_place = claims.take(catalog, info.id, driver, may=may, over=over)
        with catalog.read() as session:
            found = standing.look(info, claims.ours(session))
        if to_place:
            why = f"storage {info.name!r}: we may not write its marker; have this placed there."
            found = replace(found, why=why, to_place=to_place)
        done.append(found)
    if as_json:
        print_json([
            {"storage": found.storage.name, "why": found.why, "to_place": found.to_place}
            for found in done
        ])  # fmt: skip
        return
    for found in done:
        _show(found, as_json)


@app.command()
def move(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the storage.")],
    place: Annotated[str, typer.Argument(metavar="PLACE", help="Where all of it lies now.")],
    as_json: Json = False,
) -> None:
    """Say that a storage lies at another place now: its marker must be there.

    Nothing is copied: bring its files there first, with .spdf-storage. What works with the old
    place meanwhile waits as in an outage.
    """
    from catalog import siting, standing

    info = siting.move(open_catalog(), name, _url(place))
    _show(standing.Found(info, standing.Standing.ITSELF), as_json)


def _try(name: str, url: str) -> None:
    """Ask for one object of the bucket; raises `StorageError` where it can't be used."""
    from catalog.drivers.s3 import S3Driver
    from catalog.drivers.s3client import login_of
    from cli.home import settings

    current = settings()
    next(S3Driver(name, url, login_of(current, name), current).list(), None)


@app.command("list")
def list_all(as_json: Json = False) -> None:
    """List the storages, and whether each is itself, away, or has no marker yet."""
    from catalog import claims, standing, storages
    from catalog.overlaps import overlaps

    with open_catalog().read() as session:
        known, mine = storages.list_all(session), claims.ours(session)
    found = standing.look_all(known, mine)
    show_list(
        [{**vars(f.storage), "standing": f.standing, "why": f.why} for f in found],
        as_json,
        lambda s: {
            "storage": s["name"],
            "role": s["role"],
            "kind": s["kind"],
            "standing": s["standing"],
            "place": s["url"],
        },
        empty="no storages; `spdf storage add` adds one.",
    )
    for why in [f.why for f in found if f.why] + standing.told_overlaps(overlaps(known)):
        note(why)


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the storage.")],
    as_json: Json = False,
) -> None:
    """Show a storage: whether it is itself, what shares its place, what the catalog has there."""
    from catalog import claims, standing, storages
    from catalog.overlaps import overlaps

    with open_catalog().read() as session:
        info = storages.by_name(session, name)
        known, mine = storages.list_all(session), claims.ours(session)
        there = [item for item in storages.usage(session) if item.storage == name]
    found = standing.look(info, mine)
    sharing = [item for item in overlaps(known, resolve=True) if info in (item.outer, item.inner)]
    result = {
        **vars(info),
        "standing": found.standing,
        "why": found.why,
        "overlaps": standing.told_overlaps(sharing),
        "files": {item.state: item.files for item in there},
        "size_bytes": sum(item.size_bytes for item in there),
    }
    if as_json:
        print_json(result)
        return
    told = ", ".join(f"{item.files} {item.state}" for item in there) or NOTHING
    shown = {**result, "overlaps": "; ".join(result["overlaps"]), "files": told}
    shown["size"] = size(shown.pop("size_bytes"))
    print_fields(shown)


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
