"""`spdf intake add` and `update`: rules are followed, and changed."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from catalog.errors import BadInput
from catalog.refs import Untaken
from cli.home import open_catalog
from cli.output import Json

HOLD = "hold"
_CLOSE_AFTER = "close-after "


class EmptyRuns(StrEnum):
    """What becomes of a marker without files."""

    TELL = "tell"
    CLOSE = "close"


class Names(StrEnum):
    """What files are called in their datasets."""

    PATH = "path"
    STORAGE = "storage"


def register(app: typer.Typer) -> None:
    """Add the commands to those of `spdf intake`."""
    for command in (add, update):
        app.command()(command)


def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new rule.")],
    storage: Annotated[str, typer.Option(help="The storage on which files arrive.")],
    pattern: Annotated[
        str, typer.Option(help=r"Their paths, a regular expression: `(?P<run>run-\d+)/.*\.raw`.")
    ],
    dataset: Annotated[
        str, typer.Option(help="Name of their dataset, with the pattern's groups: `{run}`.")
    ],
    prefix: Annotated[str, typer.Option(help="Look only at paths that begin so.")] = "",
    end: Annotated[
        str | None, typer.Option(help="Path of the marker that ends a dataset, with its groups.")
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=1, help="Close a dataset that has so many files.")
    ] = None,
    either: Annotated[
        bool, typer.Option("--either", help="Of --end and --count one is enough, not both.")
    ] = False,
    quiet: Annotated[
        str | None, typer.Option(metavar="TIME", help="Close one that got no file for so long.")
    ] = None,
    empty_runs: Annotated[
        EmptyRuns,
        typer.Option(help="What a marker without files makes: a line that tells, or a dataset."),
    ] = EmptyRuns.TELL,
    stable: Annotated[
        str, typer.Option(metavar="TIME", help="A file must not have changed for so long.")
    ] = "1s",
    lifetime: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Delete datasets so long after they are done with."),
    ] = None,
    unmatched: Annotated[
        Untaken | None,
        typer.Option(
            help="Needed with --lifetime: what becomes then of a dataset that nothing took.",
            show_default=False,
        ),
    ] = None,
    until: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEMPLATE",
            help="A dataset isn't done with before a workflow of it is FINISHED. Repeatable.",
            show_default=False,
        ),
    ] = None,
    shed_above: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100,
            metavar="HIGH",
            help="Above so many percent of the storage's quota what is overdue is deleted, undone.",
            show_default=False,
        ),
    ] = None,
    end_for_all: Annotated[
        bool, typer.Option("--end-for-all", help="Its marker ends the dataset's other rules, too.")
    ] = False,
    refused: Annotated[
        str,
        typer.Option(
            metavar="HOW",
            help="What can't be taken holds its dataset open: `hold`, or `close-after 2h`.",
        ),
    ] = HOLD,
    names: Annotated[
        Names | None,
        typer.Option(
            help="What files are called in the dataset: their path, or storage and path. By "
            "default the latter where another rule fills the same datasets from elsewhere.",
            show_default=False,
        ),
    ] = None,
    adopt: Annotated[
        int | None,
        typer.Option(min=1, metavar="ID", help="Go on for the OPEN datasets of this removed rule."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what it would take, and change nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Follow a rule: files of these names become a dataset's. The same again changes nothing.

    With --end and --count both are needed, unless --either; --quiet closes by itself. A dataset
    that several rules fill is closed when all have ended. One of the name of a removed rule goes
    on for the OPEN datasets that it left. A lifetime begins when all is done with a dataset: see
    `spdf dataset list --overdue`.
    """
    from catalog import durations, intakerules

    rule = intakerules.Rule(
        name,
        storage,
        pattern,
        dataset,
        prefix,
        end,
        count,
        None if quiet is None else durations.seconds(quiet, "--quiet"),
        durations.seconds(stable, "--stable"),
        None if lifetime is None else durations.seconds(lifetime, "--lifetime"),
        either=either,
        close_empty=empty_runs is EmptyRuns.CLOSE,
        end_for_all=end_for_all,
        refused_after_s=_patience_s(refused),
        with_storage=names is Names.STORAGE,
        unmatched=unmatched,
        until=_sorted(until),
        shed_percent=shed_above,
    )
    from cli.rules import follow

    follow(rule, adopt, is_named=names is not None, dry_run=dry_run, as_json=as_json)


def _sorted(names: list[str] | None) -> tuple[str, ...]:
    """Templates, each once; '' is none."""
    return tuple(sorted({name for name in names or () if name}))


def _patience_s(refused: str) -> float | None:
    """How long what was refused holds a dataset open; None: until it is settled."""
    from catalog import durations

    if refused == HOLD:
        return None
    if not refused.startswith(_CLOSE_AFTER):
        raise BadInput(f"--refused {refused!r} is nothing; write `hold`, or `close-after 2h`.")
    return durations.seconds(refused.removeprefix(_CLOSE_AFTER).strip(), "--refused close-after")


def update(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the rule.")],
    pattern: Annotated[str | None, typer.Option(help="See `add`.", show_default=False)] = None,
    prefix: Annotated[str | None, typer.Option(help="See `add`.", show_default=False)] = None,
    end: Annotated[
        str | None, typer.Option(help="See `add`; '' for none.", show_default=False)
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=0, help="See `add`; 0 for none.", show_default=False)
    ] = None,
    either: Annotated[
        bool | None, typer.Option("--either/--both", help="Of --end and --count one, or both.")
    ] = None,
    quiet: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="See `add`; '' for none.", show_default=False),
    ] = None,
    empty_runs: Annotated[
        EmptyRuns | None, typer.Option(help="See `add`.", show_default=False)
    ] = None,
    stable: Annotated[
        str | None, typer.Option(metavar="TIME", help="See `add`.", show_default=False)
    ] = None,
    lifetime: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Of datasets made from now on; '' for none.", show_default=False
        ),
    ] = None,
    unmatched: Annotated[
        Untaken | None,
        typer.Option(help="See `add`; of all its datasets.", show_default=False),
    ] = None,
    until: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEMPLATE",
            help="See `add`; of datasets closed from now on; '' for none.",
            show_default=False,
        ),
    ] = None,
    shed_above: Annotated[
        int | None,
        typer.Option(
            min=0, max=100, metavar="HIGH", help="See `add`; 0 for never.", show_default=False
        ),
    ] = None,
    end_for_all: Annotated[
        bool | None, typer.Option("--end-for-all/--end-own", help="See `add`.")
    ] = None,
    refused: Annotated[
        str | None, typer.Option(metavar="HOW", help="See `add`.", show_default=False)
    ] = None,
    names: Annotated[
        Names | None, typer.Option(help="See `add`; of files from now on.", show_default=False)
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what it would take, and change nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Change what is given of a rule that is followed; all else of it, and its datasets, stay."""
    from dataclasses import replace

    from catalog import durations, intakerules
    from cli.rules import preview, tell

    def time_of(text: str, option: str) -> float | None:
        return durations.seconds(text, option) if text else None

    given: dict[str, Any] = {
        "pattern": pattern,
        "prefix": prefix,
        "either": either,
        "stable_s": None if stable is None else durations.seconds(stable, "--stable"),
        "end_for_all": end_for_all,
        "close_empty": None if empty_runs is None else empty_runs is EmptyRuns.CLOSE,
        "with_storage": None if names is None else names is Names.STORAGE,
    }
    changes = {field: value for field, value in given.items() if value is not None}
    if end is not None:
        changes["end_pattern"] = end or None
    if count is not None:
        changes["close_count"] = count or None
    if quiet is not None:
        changes["quiet_s"] = time_of(quiet, "--quiet")
    if lifetime is not None:
        changes["lifetime_s"] = time_of(lifetime, "--lifetime")
    if unmatched is not None:
        changes["unmatched"] = unmatched
    if until is not None:
        changes["until"] = _sorted(until)
    if shed_above is not None:
        changes["shed_percent"] = shed_above or None
    if refused is not None:
        changes["refused_after_s"] = _patience_s(refused)
    if not changes:
        raise BadInput(f"nothing is to be changed of intake rule {name!r}; give an option.")
    catalog = open_catalog()
    with catalog.read() as session:
        before = intakerules.get(session, name)
        rule = replace(before, **changes)
    if dry_run:
        preview(intakerules.decided(rule, before), as_json=as_json)
        return
    with catalog.write() as session:
        found = intakerules.update(session, rule)
    tell(found, as_json=as_json)
