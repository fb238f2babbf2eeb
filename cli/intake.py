"""`spdf intake`: what becomes of files that arrive."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from catalog.counts import count_of
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

if TYPE_CHECKING:
    from catalog.intakerules import Rule

app = typer.Typer(name="intake", help="What becomes of files that arrive.", no_args_is_help=True)


class EmptyRuns(StrEnum):
    """What becomes of a marker without files."""

    TELL = "tell"
    CLOSE = "close"


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
    as_json: Json = False,
) -> None:
    """Follow a rule: files of these names become a dataset's. The same again changes nothing.

    With --end and --count both are needed, unless --either; --quiet closes by itself.
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
    )
    _follow(rule, as_json=as_json)


def _follow(rule: "Rule", *, as_json: bool) -> None:
    from catalog import intakerules, rulewords, storages

    with open_catalog().write() as session:
        found = intakerules.add(session, rule)
        role = storages.by_name(session, rule.storage).role
    if as_json:
        print_json(found)
        return
    say(f"intake rule {rule.name}:")
    for sentence in rulewords.sentences(found, role):
        say(f"- {sentence}")


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
    from catalog import intakerules

    catalog = open_catalog()
    with catalog.write() as session:
        rule = intakerules.remove(session, name)
    if as_json:
        print_json(rule)
    else:
        say(f"intake rule {name} is followed no longer")


@app.command()
def rescan(
    storage: Annotated[str | None, typer.Option(help="Only files on this storage.")] = None,
    prefix: Annotated[str, typer.Option(help="Only paths that begin so.")] = "",
    as_json: Json = False,
) -> None:
    """Let the rules take files again that stayed when their dataset was deleted.

    `spdf inspect detached` lists them. Those that no rule is for are dark from then on.
    """
    from catalog import detached, storages

    catalog = open_catalog()
    with catalog.write() as session:
        place = storages.by_name(session, storage).id if storage is not None else None
        count = detached.rescan(session, place, prefix)
    if as_json:
        print_json({"files": count})
    else:
        say(f"no longer detached: {count_of(count, 'file')}; rules that are for them take them")


@app.command()
def start() -> None:
    """Run the intake in the foreground, until it is interrupted.

    `spdf up` runs it anyway. A second one waits, and takes over when the first is gone.
    """
    from flows.intake.__main__ import main

    open_catalog()
    settings()
    raise typer.Exit(main())
