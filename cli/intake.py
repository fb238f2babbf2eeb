"""`spdf intake`: what becomes of files that arrive."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from catalog.counts import count_of
from catalog.errors import BadInput
from cli.home import open_catalog, settings
from cli.output import (
    Json,
    note,
    plain,
    print_fields,
    print_json,
    print_table,
    say,
    show_list,
)

app = typer.Typer(name="intake", help="What becomes of files that arrive.", no_args_is_help=True)


class EmptyRuns(StrEnum):
    """What becomes of a marker without files."""

    TELL = "tell"
    CLOSE = "close"


class Names(StrEnum):
    """What files are called in their datasets."""

    PATH = "path"
    STORAGE = "storage"


HOLD = "hold"
_CLOSE_AFTER = "close-after "


@app.command()
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
        str | None, typer.Option(metavar="TIME", help="Delete datasets so long after their close.")
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
    on for the OPEN datasets that it left.
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
    )
    from cli.rules import follow

    follow(rule, adopt, is_named=names is not None, dry_run=dry_run, as_json=as_json)


def _patience_s(refused: str) -> float | None:
    """How long what was refused holds a dataset open; None: until it is settled."""
    from catalog import durations

    if refused == HOLD:
        return None
    if not refused.startswith(_CLOSE_AFTER):
        raise BadInput(f"--refused {refused!r} is nothing; write `hold`, or `close-after 2h`.")
    return durations.seconds(refused.removeprefix(_CLOSE_AFTER).strip(), "--refused close-after")


@app.command()
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
    if refused is not None:
        changes["refused_after_s"] = _patience_s(refused)
    if not changes:
        raise BadInput(f"nothing is to be changed of intake rule {name!r}; give an option.")
    catalog = open_catalog()
    with catalog.read() as session:
        rule = replace(intakerules.get(session, name), **changes)
    if dry_run:
        preview(rule, as_json=as_json)
        return
    with catalog.write() as session:
        found = intakerules.update(session, rule)
    tell(found, as_json=as_json)


@app.command("list")
def list_all(as_json: Json = False) -> None:
    """List the rules that are followed, with what they don't take and what is in their way."""
    from catalog import intakelooks, intakerules, refusals, rulewords

    with open_catalog().read() as session:
        looks = intakelooks.all_looks(session)
        detached = refusals.detached(session)
        wrong = intakelooks.troubles(session)
        found = [
            {
                **plain(rule),
                "look": looks.get(rule.id),
                "detached": detached.get(rule.id, 0),
                "trouble": wrong.get(rule.name),
            }
            for rule in intakerules.active(session)
        ]
        ends = {rule.id: rulewords.ends(rule) for rule in intakerules.active(session)}
    show_list(
        found,
        as_json,
        lambda rule: {
            "rule": rule["name"],
            "storage": rule["storage"],
            "pattern": rule["pattern"],
            "dataset": rule["dataset"],
            "closed by": ends[rule["id"]],
            "files": rule["look"].files if rule["look"] else None,
            "not taken": rule["look"].refused if rule["look"] else None,
        },
        empty="no rules; `spdf intake add` adds one.",
    )
    if not as_json:
        for rule in found:
            if rule["detached"]:
                note(
                    f"rule {rule['name']}: {count_of(rule['detached'], 'file')} stayed when their "
                    "datasets were deleted (at most 100 are told of), and aren't taken; `spdf "
                    "intake rescan` lets rules take them"
                )
        for name, why in wrong.items():
            note(f"rule {name}: {why}")


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the rule.")],
    as_json: Json = False,
) -> None:
    """Show what a rule does, how its looks go, and what they see that isn't taken."""
    from catalog import intakelooks, intakerules, refusals, rulewords, storages

    with open_catalog().read() as session:
        rule = intakerules.get(session, name)
        role = storages.by_name(session, rule.storage).role
        look = intakelooks.all_looks(session).get(rule.id)
        trouble = intakelooks.troubles(session).get(name)
        left = refusals.of_rule(session, rule.id)
    if as_json:
        print_json({**plain(rule), "look": look, "trouble": trouble, "refusals": left})
        return
    for sentence in rulewords.sentences(rule, role):
        say(f"- {sentence}")
    if look is not None:
        print_fields({"last good look": look.looked_at, "files": look.files})
    if trouble is not None:
        note(f"rule {name}: {trouble}")
    if left:
        print_table(
            [
                {
                    "not taken": item.path,
                    "dataset": item.dataset,
                    "kind": item.kind,
                    "since": item.found_at,
                    "why": item.reason,
                }
                for item in left
            ]
        )
    if look is not None and look.refused > len(left):
        note(f"{look.refused} in all; the first {len(left)} are kept.")


@app.command()
def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the rule.")],
    as_json: Json = False,
) -> None:
    """Follow a rule no longer; what it has made stays."""
    from catalog import intakerules, stranded
    from cli.rules import first

    catalog = open_catalog()
    with catalog.write() as session:
        rule = intakerules.remove(session, name)
        left = stranded.of_rule(session, rule.id)
    if as_json:
        waiting = plain(left.readers)
        print_json({**plain(rule), "left_open": list(left.open), "waiting": waiting})
        return
    say(f"intake rule {name} is followed no longer")
    if left.open:
        note(
            f"nothing closes {count_of(len(left.open), 'OPEN dataset')} that it filled: "
            f"{first(left.open)}"
        )
        if waiting := stranded.waiting(left):
            note(waiting)
        note(
            f"`spdf intake add {name}` with the same --storage and --dataset goes on; "
            f"{stranded.ways_on(left)} (--complete: nothing is missing)"
        )


@app.command()
def rescan(
    storage: Annotated[str | None, typer.Option(help="Only files on this storage.")] = None,
    prefix: Annotated[str, typer.Option(help="Only paths that begin so.")] = "",
    as_json: Json = False,
) -> None:
    """Let the rules take files again that stayed when their dataset was deleted.

    Those that were detached (`spdf inspect detached` lists them), and those that other datasets
    have. Detached ones that no rule is for are dark from then on.
    """
    from catalog import detached, storages

    catalog = open_catalog()
    with catalog.write() as session:
        place = storages.by_name(session, storage).id if storage is not None else None
        count = detached.rescan(session, place, prefix)
    if as_json:
        print_json({"files": count})
    else:
        say(f"no longer left alone: {count_of(count, 'file')}; rules that are for them take them")


@app.command()
def start() -> None:
    """Run the intake in the foreground, until it is interrupted.

    `spdf up` runs it anyway. A second one waits, and takes over when the first is gone.
    """
    from flows.intake.__main__ import main

    open_catalog()
    settings()
    raise typer.Exit(main())
