"""`spdf clock`: what time it is in the catalog, and a clock that was set."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalog.errors import BadInput
from cli.home import open_catalog
from cli.output import Json, note, plain, print_fields, print_json, say, show_list, size

if TYPE_CHECKING:
    from catalog.clockcare import ClockInfo

app = typer.Typer(name="clock", help="What time it is in the catalog.")


@app.callback(invoke_without_command=True)
def show(context: typer.Context, as_json: Json = False) -> None:
    """Show what time it is in the catalog, what its clock did, and what stands still for it.

    Catalog time is the database's. Where that is set by more than a minute, as no time passed, the
    catalog goes on by the time before, until the clock is right again or `spdf clock accept`.
    """
    if context.invoked_subcommand is not None:
        return
    from catalog import cattime, clockcare, events

    with open_catalog().read() as session:
        info = clockcare.look(session)
        past = events.history(session, cattime.ENTITY, cattime.ROW)[-10:]
    told = list(clockcare.sentences(info))
    if as_json:
        print_json({**plain(info), "problems": told, "events": plain(past)})
        return
    print_fields(_fields(info))
    for sentence in told:
        note(sentence)
    if past:
        show_list(
            past,
            False,
            lambda item: {"at": item.at, "event": item.after, "what": item.message},
            empty="",
        )


def _fields(info: "ClockInfo") -> dict[str, Any]:
    from catalog import durations

    which = "ahead" if info.skew_s > 0 else "behind"
    return {
        "catalog time": info.at,
        "database's clock": info.database,
        "it is": f"{durations.words(abs(info.skew_s))} {which}" if info.skew_s else "right",
        "last compared": info.sampled_at,
        "removals wait": durations.words(info.waits_s) if info.waits_s else None,
        "stay for it": f"{info.held.datasets} datasets, {size(info.held.size_bytes)}"
        if info.held.datasets
        else None,
    }


@app.command()
def accept(
    yes: Annotated[
        bool, typer.Option("--yes", help="Don't ask; needed where there is no terminal.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Take the database's clock for right as it is now: the catalog goes by it from here on.

    What goes on keeps its leases. Datasets whose lifetime is over by that clock go at once; it
    tells which, and asks. Times that lie ahead of a clock that went back are moved back with it.
    """
    from catalog import clockcare

    catalog = open_catalog()
    with catalog.read() as session:
        found = clockcare.look(session)
    if found.held.datasets and not yes:
        _ask(found)
    with catalog.write() as session:
        before = clockcare.accept(session)
        after = clockcare.look(session)
    if as_json:
        print_json({"before": plain(before), "after": plain(after)})
        return
    say(f"catalog time is {after.at:%Y-%m-%d %H:%M:%SZ} now, as the database's clock has it.")


def _ask(found: "ClockInfo") -> None:
    """Raise `BadInput` where nobody says yes."""
    what = (
        f"the lifetime of {found.held.datasets} datasets ({size(found.held.size_bytes)}) is over "
        f"by that clock, such as {', '.join(found.held.names)}: they go at once"
    )
    if not sys.stdin.isatty():
        raise BadInput(
            f"{what}. There is no terminal to ask at, so nothing was changed; give --yes, or "
            "`spdf dataset pin` what is to stay."
        )
    if not typer.confirm(f"{what}. Accept the clock?", err=True):
        raise BadInput("nobody said yes: nothing was changed.")
