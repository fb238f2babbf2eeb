"""`spdf intake`: what becomes of files that arrive."""

from typing import Annotated

import typer

from catalog.counts import count_of
from cli import rulechanges
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
rulechanges.register(app)


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
