"""`spdf dataset list --overdue` and `release`: what is kept beyond its lifetime, and what for."""

import sys
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalog.counts import count_of
from catalog.errors import BadInput, NotFound
from cli.home import open_catalog
from cli.output import Json, Size, note, plain, print_json, print_table, say, show_list

if TYPE_CHECKING:
    from sqlmodel import Session

    from catalog.lifetimes import Overdue


def register(app: typer.Typer) -> None:
    """Add the command to those of `spdf dataset`."""
    app.command()(release)


def list_overdue(mask: str | None, limit: int, as_json: bool) -> None:
    """What is overdue, the oldest first, with its bytes and what is to be done with it yet."""
    from catalog import lifetimes

    with open_catalog().read() as session:
        found = [_told(session, one) for one in islice(lifetimes.overdue(session, mask), limit)]
        sums = lifetimes.sums(session)
    show_list(found, as_json, _row, empty="nothing is overdue.", limit=limit)
    if found and not as_json:
        count = sum(one.datasets for one in sums)
        size = Size(sum(one.size_bytes for one in sums))
        note(f"in all {count_of(count, 'dataset')}, {size}; `spdf dataset release` lets them go")


def _told(session: "Session", one: "Overdue") -> dict[str, Any]:
    from catalog import datasets, deletion, dutywords
    from catalog.errors import Conflict

    kept = [plain(item) for item in dutywords.kept_for(session, one.id)]
    if not kept:
        try:
            deletion.check_free(session, datasets.get(session, one.id))
        except Conflict as error:
            kept = [{"fact": str(error), "mend": ""}]
    return {**plain(one), "kept_for": kept}


def _row(one: dict[str, Any]) -> dict[str, Any]:
    return {
        "dataset": one["name"],
        "rule": one["rule"],
        "files": one["files"],
        "size": Size(one["size_bytes"]),
        "overdue since": one["due_at"],
        "kept for": "; ".join(item["fact"] for item in one["kept_for"]),
    }


def release(
    masks: Annotated[
        list[str],
        typer.Argument(
            metavar="MASK...",
            help="Names of overdue datasets, such as `run-*`.",
            show_default=False,
        ),
    ],
    reason: Annotated[str, typer.Option(help="Why, for its history.")] = "released by an operator",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what would go; nothing is changed.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Don't ask; needed where there is no terminal.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Let overdue datasets go though not all is done with them: they are deleted by their lifetime.

    That is at once, without a grace, and with the originals that their intake rule took. Those that
    are pinned, or that a workflow reads, stay until that ends.
    """
    from catalog import lifetimes

    catalog = open_catalog()
    with catalog.read() as session:
        chosen = {one.id: one for mask in masks for one in lifetimes.overdue(session, mask)}
        told = [_told(session, one) for one in chosen.values()]
    if not told:
        raise NotFound(
            "overdue dataset", " ".join(masks), "`spdf dataset list --overdue` shows them"
        )
    if as_json and dry_run:
        print_json(told)
    elif not as_json:
        print_table([_row(one) for one in told])
    if dry_run:
        note("a dry run: nothing was changed.")
        return
    if not yes:
        _ask(told)
    with catalog.write() as session:
        done = [one for one in told if lifetimes.release(session, one["id"], reason)]
    if as_json:
        print_json(done)
        return
    for one in done:
        say(f"dataset {one['name']} is released: its lifetime is over")


def _ask(told: list[dict[str, Any]]) -> None:
    """Raise `BadInput` where nobody says yes."""
    size = Size(sum(one["size_bytes"] for one in told))
    what = f"{count_of(len(told), 'dataset')} ({size}) that aren't done with"
    if not sys.stdin.isatty():
        raise BadInput(
            f"{what} would be deleted, and there is no terminal to ask at: nothing was changed. "
            "Give --yes, or --dry-run to see what would go."
        )
    if not typer.confirm(f"Let {what} be deleted?", err=True):
        raise BadInput("nobody said yes: nothing was changed.")
