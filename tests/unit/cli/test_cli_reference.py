"""`docs/reference/cli.md` has every command, argument and option, and no other."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from cli.main import app

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "cli.md"
COMMON = {"--json", "--help", "-h"}


def commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, set[str]]]:
    """Every command with its long options."""
    inner = getattr(command, "commands", None)
    if inner is not None:
        for word, one in inner.items():
            yield from commands(one, (*words, word))
        return
    options = {
        name
        for parameter in command.params
        for name in (*parameter.opts, *getattr(parameter, "secondary_opts", ()))
        if name.startswith("--")
    }
    yield " ".join(words), options - COMMON


def documented() -> dict[str, set[str]]:
    """Every command of the page with its options."""
    found = {}
    noun = ""
    for line in PAGE.read_text("utf-8").splitlines():
        if line.startswith("## "):
            names = re.findall(r"`spdf (\w+)([^`]*)`", line)
            noun = names[0][0] if len(names) == 1 else ""
            for name, rest in names[:1]:
                if rest.strip():
                    found[f"{name} {rest.split()[0]}"] = options_of(line)
        elif row := re.match(r"\| `([^`]+)` \|", line):
            words = row[1].removeprefix("spdf ").split()
            name = [noun] if noun else []
            name += [word for word in words if re.fullmatch("[a-z]+", word)]
            found[" ".join(name)] = options_of(row[1])
    return found


def options_of(text: str) -> set[str]:
    """Long options in a synopsis."""
    return set(re.findall(r"--[a-z-]+", text))


def test_the_page_has_every_command_with_its_options() -> None:
    real = dict(commands(typer.main.get_command(app)))
    assert documented() == real


def test_the_page_has_every_exit_code() -> None:
    from catalog import errors
    from cli import faults, profile, watching

    codes = {
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.SpdfError)
    }
    codes |= set(watching.EXIT_CODES.values()) | {profile.DOWN, faults.DEFECT, faults.INTERRUPTED}
    table = PAGE.read_text("utf-8").partition("## Exit codes")[2].partition("## ")[0]
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.M)}
    assert codes | {33} == listed


def test_the_help_names_the_exit_codes_of_most_commands(spdf: Any) -> None:
    told = " ".join(spdf("--help").out.split())
    codes = told.partition("Exit codes: ")[2]
    assert re.findall(r"(?:^|, )(\d+) ", codes) == ["0", "1", "2", "3", "4", "5", "70"]
