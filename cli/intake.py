"""`spdf intake`: what becomes of files that arrive."""

from typing import Annotated

import typer

from cli.home import open_catalog, settings
from cli.output import Json, cell, note, print_json, say, show_list

app = typer.Typer(name="intake", help="What becomes of files that arrive.", no_args_is_help=True)


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
    quiet: Annotated[
        str | None, typer.Option(metavar="TIME", help="Close one that got no file for so long.")
    ] = None,
    stable: Annotated[
        str, typer.Option(metavar="TIME", help="A file must not have changed for so long.")
    ] = "1s",
    lifetime: Annotated[
        str | None, typer.Option(metavar="TIME", help="Delete datasets so long after their close.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Follow a rule: files of these names become a dataset's. The same again changes nothing."""
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
    )
    catalog = open_catalog()
    with catalog.write() as session:
        found = intakerules.add(session, rule)
    if as_json:
        print_json(found)
        return
    say(f"intake rule {name}: {pattern} on {storage} to dataset {dataset}")
    if end is None and count is None and quiet is None:
        note("nothing closes its datasets but `spdf dataset close`: see --end, --count, --quiet")


@app.command("list")
def list_all(as_json: Json = False) -> None:
    """List the rules that are followed."""
    from catalog import intakerules

    with open_catalog().read() as session:
        found = intakerules.active(session)
    show_list(
        found,
        as_json,
        lambda rule: {
            "rule": rule.name,
            "storage": rule.storage,
            "pattern": rule.pattern,
            "dataset": rule.dataset,
            "closed by": _ends(rule.end_pattern, rule.close_count, rule.quiet_s),
        },
        empty="no rules; `spdf intake add` adds one.",
    )


def _ends(end: str | None, count: int | None, quiet_s: float | None) -> str:
    from catalog import durations

    found = [f"marker {end}"] if end else []
    found += [f"{count} files"] if count else []
    found += [f"{durations.words(quiet_s)} without files"] if quiet_s is not None else []
    return " or ".join(found) or cell(None)


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
def start() -> None:
    """Run the intake in the foreground, until it is interrupted.

    `spdf up` runs it anyway. A second one waits, and takes over when the first is gone.
    """
    from flows.intake.__main__ import main

    open_catalog()
    settings()
    raise typer.Exit(main())
