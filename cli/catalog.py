"""`spdf catalog`: the database of the catalog, over its life."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalog.errors import BadInput
from cli.home import bare_catalog, open_catalog
from cli.output import (
    Json,
    cell,
    note,
    plain,
    print_fields,
    print_json,
    print_table,
    say,
    size,
)
from cli.progress import waiting

if TYPE_CHECKING:
    from catalog.aftermath import Aftermath
    from catalog.db import Catalog
    from catalog.schema import SchemaState

app = typer.Typer(name="catalog", help="The catalog's database.", no_args_is_help=True)

NOT_UP_TO_DATE = 1


@app.command()
def show(as_json: Json = False) -> None:
    """Show which database it is, its schema, and how much it holds."""
    from catalog.overview import holdings

    catalog = bare_catalog()
    state = _state(catalog)
    with catalog.read() as session:
        found = holdings(session)
    about: dict[str, Any] = {
        "catalog": _where(catalog),
        "kind": "SQLite" if catalog.is_sqlite else "PostgreSQL",
        "schema_found": state.found,
        "schema_expected": state.expected,
        "oldest_program": state.oldest_program,
        "usable": state.is_usable,
        "size_bytes": found.size_bytes,
    }
    if as_json:
        print_json({**about, "rows": found.rows})
        return
    about["size"] = size(about.pop("size_bytes"))
    print_fields({name.replace("_", " "): value for name, value in about.items()})
    print_fields({f"{name} rows": count for name, count in found.rows.items()})


@app.command()
def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Only say; exit code 1 where it isn't up to date.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Bring the schema up to this program's, or make it in an empty database.

    Pilots at work go on meanwhile; where those of an older version could not, it is refused. A
    newer schema that this program can work with stays as it is.
    """
    from catalog import schema

    catalog = bare_catalog(create=not check)
    before = _state(catalog) if check else schema.upgrade(catalog)
    schema.refuse_newer(f"the catalog {_where(catalog)}", before)
    after = before if check else _state(catalog)
    if as_json:
        print_json({"before": before.found, "after": after.found, "expected": before.expected})
    elif before.is_usable:
        say(f"the schema is {before.found}, which this program can work with.")
    elif check:
        say(f"the schema is {before.found or 'not there'}; this program's is {before.expected}.")
        note("`spdf catalog migrate` brings it up to date.")
    else:
        say(f"the schema was {before.found or 'not there'} and is {after.found} now.")
    if not after.is_usable:
        raise typer.Exit(NOT_UP_TO_DATE)


@app.command()
def prune(
    older_than: Annotated[
        str | None,
        typer.Option(
            metavar="DAYS", help="As 30d; by default SPDF_HISTORY_DAYS.", show_default=False
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would go.")] = False,
    as_json: Json = False,
) -> None:
    """Remove the history of workflows that ended longer ago; work goes on meanwhile.

    Files keep what says how they were made. What goes is counted in an event of each task.
    """
    from catalog import history

    catalog, older_s = open_catalog(), _older_s(older_than)
    if dry_run:
        with catalog.read() as session:
            found = history.prunable(session, older_s)
    else:
        with waiting("pruning"):
            found = history.prune(catalog, older_s)
    if as_json:
        print_json({**plain(found), "dry_run": dry_run})
        return
    words = ", ".join(f"{count} {name}" for name, count in plain(found).items())
    say(f"{'would remove' if dry_run else 'removed'}: {words}")


def _older_s(text: str | None) -> float:
    """Seconds of `30d`, or of the settings; raises `BadInput`."""
    from catalog.settings import get_settings

    if text is None:
        days = get_settings().history_days
        if not days:
            raise BadInput("SPDF_HISTORY_DAYS is 0, so history is kept; say --older-than 30d.")
        return days * 86400
    number = text.removesuffix("d")
    if not text.endswith("d") or not number.isdecimal() or len(number) > 5:
        raise BadInput(f"--older-than {text!r} is no number of days; write 30d.")
    return int(number) * 86400.0


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it; must be new.")],
    as_json: Json = False,
) -> None:
    """Write the whole catalog, as it stands at one moment, to a file. Pilots go on meanwhile.

    The files that the catalog knows are no part of it, only what it knows of them. PostgreSQL
    needs `pg_dump` on this machine.
    """
    from catalog.backup import back_up

    catalog = bare_catalog()
    with waiting("backing up"):
        made = back_up(catalog, file.absolute())
    if as_json:
        print_json(made)
    else:
        say(f"{made.path}: {_where(catalog)}, schema {made.schema}, {size(made.size_bytes)}")


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `backup` wrote.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Put aside what the catalog holds; it is kept.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make the catalog what it was at a backup.

    Only while nobody works on it: stop the workers and services first. A catalog that holds more
    than storages is only restored with --replace. PostgreSQL needs `pg_restore` and `psql` here.
    """
    from catalog.backup import restore as put_back

    catalog = bare_catalog(create=True)
    with waiting("restoring"):
        done = put_back(catalog, file.absolute(), replace=replace)
    if as_json:
        print_json(
            {"schema": done.schema.found, "usable": done.schema.is_usable, "aside": done.aside}
        )
        return
    say(f"{_where(catalog)} is restored, schema {done.schema.found}")
    if done.aside is not None:
        note(f"what was there is kept in {done.aside}")
    if not done.schema.is_usable:
        note("`spdf catalog migrate` brings its schema up to date.")
    note(
        "it knows nothing of what was done since that backup, and removes nothing by itself until "
        "`spdf catalog accept`: see docs/howto/catalog.md."
    )


@app.command()
def accept(
    yes: Annotated[
        bool, typer.Option("--yes", help="Let it remove by itself again; without it only tell.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Tell what a restored or rolled-back catalog doesn't know, and let it remove by itself again.

    Listed are what it would remove by itself, what was deleted or pinned since, and requests that
    were answered since. With --yes it does as ever from then on; nothing else changes.
    """
    from catalog import aftermath, restores

    catalog = open_catalog()
    with waiting("looking"):
        found = aftermath.of(catalog)
    if yes and found is not None:
        with catalog.write() as session:
            restores.accept(session)
    if as_json:
        print_json({"accepted": yes or found is None, "found": found})
        return
    if found is None:
        say("this catalog was not restored since it was last accepted; it removes as ever.")
        return
    _tell(found)
    say(
        "accepted: from now on it removes by itself what is due."
        if yes
        else "`spdf catalog accept --yes` lets it remove by itself what is due."
    )


def _tell(found: "Aftermath") -> None:
    """All that is known of the time that a catalog has forgotten."""
    say(f"this catalog was {found.how} at {cell(found.at)}: generation {found.generation}")
    for title, rows in (
        ("goes by itself once this is accepted", found.due),
        ("deleted since, as the catalog of before says", found.deleted),
        ("pinned since, and not pinned here", found.pinned),
        ("requests that were answered since; have them sent again", found.requests),
    ):
        if rows:
            print_table([{"name": row.name, "why": row.why} for row in rows], title)
        else:
            say(f"{title}: none that is known")
    for remark in found.remarks:
        note(remark)


def _where(catalog: "Catalog") -> str:
    return catalog.where


def _state(catalog: "Catalog") -> "SchemaState":
    from catalog.schema import read_state

    with catalog.read() as session:
        return read_state(session.connection())
