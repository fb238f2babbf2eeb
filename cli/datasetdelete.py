"""`spdf dataset delete` and `undelete`: what would go is told, asked about, and taken back."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalog.counts import count_of
from catalog.errors import BadInput, Conflict
from cli.dataset import Several
from cli.home import open_catalog, settings
from cli.many import From, all_or_none, change, find_datasets, names_of
from cli.output import Json, Size, cell, note, plain, print_fields, print_json, print_table, say

if TYPE_CHECKING:
    from catalog.datasets import DatasetInfo
    from catalog.db import Catalog
    from catalog.prospect import Amount, Prospect
    from catalog.refs import Originals


_OF_EACH = ("dataset", "files", "copies that go", "registered in place", "stay, others need them")
"""What is told of each of several."""


def register(app: typer.Typer) -> None:
    """Add the commands to those of `spdf dataset`."""
    for command in (delete, undelete):
        app.command()(command)


def delete(
    names: Several = None,
    source: From = None,
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
    """Delete datasets, with the bytes of copies that spdf made and that nobody else needs.

    What was registered where it lay is detached: its bytes stay. The bytes go in the background, by
    the `deletion` flow of `spdf up`, once the grace is over (SPDF_DELETE_GRACE_S, by default a
    day); until then `spdf dataset undelete` takes it back. Of several all are deleted, or none.
    """
    from catalog import durations

    catalog = open_catalog()
    default_s = settings().delete_grace_s
    grace_s = default_s if grace is None else durations.seconds(grace, "--grace")
    chosen = names_of(names, source, "NAME")
    with catalog.read() as session:
        infos = find_datasets(session, chosen.all)
    plans = [_look(catalog, info, remove_originals) for info in infos]
    refused = [plan for plan in plans if plan.refusal is not None]
    if as_json and (dry_run or refused):
        print_json(chosen.shape([_json(plan, remove_originals) for plan in plans]))
    elif not as_json:
        _tell(plans, remove_originals, grace_s)
    all_or_none(plans, _check)
    if dry_run:
        note("a dry run: nothing was changed.")
        return
    if not yes:
        _ask(plans, remove_originals)
    marked = _mark(catalog, plans, reason, grace_s, remove_originals)
    if as_json:
        told = zip(marked, plans, strict=True)
        print_json(
            chosen.shape([{**plain(info), "prospect": plain(plan.found)} for info, plan in told])
        )
        return
    for info in marked:
        say(f"dataset {info.name} is {info.state}")
        if info.grace_until is not None:
            until = cell(info.grace_until)
            say(f"nothing goes before {until}; `spdf dataset undelete {info.name}` takes it back")


@dataclass(frozen=True)
class _Plan:
    """A dataset, what its deletion would do, and why it can't be deleted, if so."""

    info: "DatasetInfo"
    found: "Prospect"
    refusal: str | None = None

    @property
    def id(self) -> int:
        """The dataset's."""
        return self.info.id


def _check(plan: _Plan) -> None:
    if plan.refusal is not None:
        raise Conflict(plan.refusal)


def _json(plan: _Plan, remove_originals: bool) -> dict[str, Any]:
    return {**plain(plan.found), "originals_go": remove_originals, "refused": plan.refusal}


def _look(catalog: "Catalog", info: "DatasetInfo", remove_originals: bool) -> _Plan:
    """What the deletion of a dataset would do."""
    from catalog import datasets, deletion, prospect
    from catalog.states import DatasetState

    with catalog.read() as session:
        info = datasets.get(session, info.id)
        found = prospect.prospect(session, info.id)
        if info.state is DatasetState.DELETED:
            return _Plan(info, found, f"dataset {info.name!r} is DELETED already.")
        try:
            deletion.check_word(session, info, _word(remove_originals))
        except Conflict as error:
            return _Plan(info, found, str(error))
    return _Plan(info, found)


def _tell(plans: Sequence[_Plan], remove_originals: bool, grace_s: float) -> None:
    """All of one, of several what goes and stays; who refers to them the single ones tell."""
    if len(plans) == 1:
        plan = plans[0]
        print_fields(_fields(plan.info, plan.found, remove_originals, grace_s))
        return
    rows = [_fields(plan.info, plan.found, remove_originals, grace_s) for plan in plans]
    referring = [sum(kind.count for kind in plan.found.referrers) for plan in plans]
    print_table(
        [
            {
                **{name: row[name] for name in _OF_EACH},
                "who refers to it": count,
                "grace": row["grace"],
            }
            for row, count in zip(rows, referring, strict=True)
        ]
    )


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


def _ask(plans: Sequence[_Plan], remove_originals: bool) -> None:
    """Raise `BadInput` where nobody says yes."""
    what = f"dataset {plans[0].info.name!r}" if len(plans) == 1 else f"{len(plans)} datasets"
    what += f" ({_sum([plan.found.whole for plan in plans])})"
    if remove_originals:
        gone = _sum([plan.found.originals for plan in plans])
        what += f" and, for good, {'its' if len(plans) == 1 else 'their'} originals ({gone})"
    if not sys.stdin.isatty():
        raise BadInput(
            f"{what} would be deleted, and there is no terminal to ask at: nothing was changed. "
            "Give --yes, or --dry-run to see what would go."
        )
    if not typer.confirm(f"Delete {what}?", err=True):
        raise BadInput("nobody said yes: nothing was changed.")


def _sum(amounts: "Sequence[Amount]") -> str:
    files = sum(amount.files for amount in amounts)
    return f"{count_of(files, 'file')}, {Size(sum(amount.size_bytes for amount in amounts))}"


def _mark(
    catalog: "Catalog",
    plans: Sequence[_Plan],
    reason: str,
    grace_s: float,
    remove_originals: bool,
) -> "list[DatasetInfo]":
    from catalog import datasets, deletion

    by = _word(remove_originals)
    with catalog.write() as session:

        def call(plan: _Plan) -> "DatasetInfo":
            gone, why = plan.found.originals, reason
            if remove_originals:
                why += (
                    f"; with its originals: {count_of(gone.files, 'file')}, {gone.size_bytes} bytes"
                )
            deletion.mark(session, plan.id, why, grace_s=grace_s, by=by, by_person=True)
            return datasets.get(session, plan.id)

        return change(plans, call)


def undelete(names: Several = None, source: From = None, as_json: Json = False) -> None:
    """Take deletions back while their grace lasts: a dataset is what it was before. All or none.

    What was left of its lifetime when it was deleted begins now.
    """
    from catalog import grace

    chosen = names_of(names, source, "NAME")
    with open_catalog().write() as session:
        found = find_datasets(session, chosen.all)
        back = change(found, lambda info: grace.undelete(session, info.id))
    if as_json:
        print_json(chosen.shape(back))
        return
    for info in back:
        say(f"dataset {info.name} is {info.state} again")
        if info.expires_at is not None:
            note(f"its lifetime ends at {cell(info.expires_at)}: see `spdf dataset expire`")
