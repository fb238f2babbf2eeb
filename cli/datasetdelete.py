"""`spdf dataset delete` and `undelete`: what would go is told, asked about, and taken back."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from catalog.counts import count_of
from catalog.errors import BadInput, Conflict
from cli.dataset import Name
from cli.home import open_catalog, settings
from cli.output import Json, Size, cell, note, plain, print_fields, print_json, say

if TYPE_CHECKING:
    from catalog.datasets import DatasetInfo
    from catalog.db import Catalog
    from catalog.prospect import Amount, Prospect
    from catalog.refs import Originals


def register(app: typer.Typer) -> None:
    """Add the commands to those of `spdf dataset`."""
    for command in (delete, undelete):
        app.command()(command)


def delete(
    name: Name,
    reason: Annotated[str, typer.Option(help="Why, for its history.")] = "asked for by an operator",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what would go; nothing is changed.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Don't ask; needed where there is no terminal.")
    ] = False,
    grace: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="It can be taken back for so long; 0s: not at all."),
    ] = None,
    remove_originals: Annotated[
        bool,
        typer.Option("--remove-originals", help="Remove what was registered in place, too."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Delete a dataset, with the bytes of copies that spdf made and that nobody else needs.

    What was registered where it lay is detached: its bytes stay. The bytes go in the background, by
    the `deletion` flow of `spdf up`, once the grace is over (SPDF_DELETE_GRACE_S, by default a
    day); until then `spdf dataset undelete` takes it back.
    """
    from catalog import durations

    catalog = open_catalog()
    default_s = settings().delete_grace_s
    grace_s = default_s if grace is None else durations.seconds(grace, "--grace")
    info, found, refusal = _look(catalog, name, remove_originals)
    if as_json and (dry_run or refusal):
        print_json({**plain(found), "originals_go": remove_originals, "refused": refusal})
    elif not as_json:
        print_fields(_fields(info, found, remove_originals, grace_s))
    if refusal is not None:
        raise Conflict(refusal)
    if dry_run:
        note("a dry run: nothing was changed.")
        return
    if not yes:
        _ask(info, found, remove_originals)
    info = _mark(catalog, info, reason, grace_s, found, remove_originals)
    if as_json:
        print_json({**plain(info), "prospect": plain(found)})
        return
    say(f"dataset {info.name} is {info.state}")
    if info.grace_until is not None:
        until = cell(info.grace_until)
        say(f"nothing goes before {until}; `spdf dataset undelete {info.name}` takes it back")


def _look(
    catalog: "Catalog", name: str, remove_originals: bool
) -> "tuple[DatasetInfo, Prospect, str | None]":
    """The dataset, what its deletion would do, and why it can't be deleted, if so."""
    from catalog import datasets, deletion, prospect
    from catalog.states import DatasetState

    with catalog.read() as session:
        info = datasets.by_name(session, name)
        found = prospect.prospect(session, info.id)
        if info.state is DatasetState.DELETED:
            return info, found, f"dataset {info.name!r} is DELETED already."
        try:
            deletion.check_word(session, info, _word(remove_originals))
        except Conflict as error:
            return info, found, str(error)
    return info, found, None


def _word(remove_originals: bool) -> "Originals | None":
    from catalog.refs import Originals

    return Originals.BY_WORD if remove_originals else None


def _fields(
    info: "DatasetInfo", found: "Prospect", remove_originals: bool, grace_s: float
) -> dict[str, str]:
    from catalog import durations
    from catalog.states import DatasetState

    fate = "removed for good, too" if remove_originals else "detached: their bytes stay"
    if info.originals is not None and not remove_originals:
        fate += "; the order to remove them, too, is taken back"
    fields = {
        "dataset": f"{info.name}, {info.state}",
        "files": _amount(found.whole.files, found.whole.size_bytes),
        "copies that go": _amount(found.removed.files, found.removed.size_bytes),
        "registered in place": (
            f"{_amount(found.originals.files, found.originals.size_bytes)}, {fate}"
        ),
        "stay, others need them": _amount(found.kept.files, found.kept.size_bytes),
    }
    for kind in found.referrers:
        more = f" and {kind.count - len(kind.named)} more" if kind.count > len(kind.named) else ""
        fields[kind.kind] = f"{kind.count}: {', '.join(kind.named)}{more}"
    grace = durations.words(grace_s) if grace_s else "none: it can't be taken back"
    if info.state is DatasetState.DELETING and info.grace_until is None:
        grace = "none: its bytes are going already"
    elif grace_s and info.grace_until is not None:
        grace += f", or until {cell(info.grace_until)}, whichever ends first"
    return {**fields, "grace": grace}


def _amount(files: int, size_bytes: int) -> str:
    return f"{files} ({Size(size_bytes)})"


def _words(amount: "Amount") -> str:
    return f"{count_of(amount.files, 'file')}, {Size(amount.size_bytes)}"


def _ask(info: "DatasetInfo", found: "Prospect", remove_originals: bool) -> None:
    """Raise `BadInput` where nobody says yes."""
    what = f"dataset {info.name!r} ({_words(found.whole)})"
    if remove_originals:
        what += f" and, for good, its originals ({_words(found.originals)})"
    if not sys.stdin.isatty():
        raise BadInput(
            f"{what} would be deleted, and there is no terminal to ask at: nothing was changed. "
            "Give --yes, or --dry-run to see what would go."
        )
    if not typer.confirm(f"Delete {what}?", err=True):
        raise BadInput("nobody said yes: nothing was changed.")


def _mark(
    catalog: "Catalog",
    info: "DatasetInfo",
    reason: str,
    grace_s: float,
    found: "Prospect",
    remove_originals: bool,
) -> "DatasetInfo":
    from catalog import datasets, deletion

    if remove_originals:
        gone = found.originals
        reason += f"; with its originals: {count_of(gone.files, 'file')}, {gone.size_bytes} bytes"
    with catalog.write() as session:
        by = _word(remove_originals)
        deletion.mark(session, info.id, reason, grace_s=grace_s, by=by, by_person=True)
        return datasets.get(session, info.id)


def undelete(name: Name, as_json: Json = False) -> None:
    """Take a deletion back while its grace lasts: the dataset is what it was before.

    What was left of its lifetime when it was deleted begins now.
    """
    from catalog import datasets, grace

    catalog = open_catalog()
    with catalog.write() as session:
        info = grace.undelete(session, datasets.by_name(session, name).id)
    if as_json:
        print_json(info)
        return
    say(f"dataset {info.name} is {info.state} again")
    if info.expires_at is not None:
        note(f"its lifetime ends at {cell(info.expires_at)}: see `spdf dataset expire`")
