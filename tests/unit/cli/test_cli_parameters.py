"""What commands take: a number beyond its bounds, a word that is no choice, a path that is none.

Each is one line, and exit code 2.
"""

from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, get_args

import pytest
import typer

from catalog.db import Catalog
from catalog.errors import BadInput
from catalog.settings import Settings, get_settings
from cli.faults import DEFECT
from cli.main import app
from cli.parameters import bound
from flows.submit import Submission, submit

Spdf = Callable[..., Any]
BEYOND = ("soon", 2**63, 2**64, -(2**63) - 1, 10**400, "1e400", "nan", "inf", "-inf", "9" * 5000)
EDGES = (0, 1, -1, 2**31 - 1, 2**31, -(2**31) - 1, 2**62, 2**63 - 1, -(2**63))
NOT_HERE = {"demo", "worker start"}
"""Commands that go on for as long as they run: only what they refuse is tried."""
IDS = ("request show", "request retry", "request cancel", "file show", "file get", "file url",
       "file why", "template show", "dataset show", "worker show")  # fmt: skip
TIMES = {
    "--lifetime": ("dataset create", "dataset expire", "intake add"),
    "--older-than": ("catalog prune",),
    "--quiet": ("intake add",),
    "--stable": ("intake add",),
    "--expires": ("file url",),
    "--grace": ("inspect run",),
}


def leaves(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, list[Any]]]:
    """Every command with its parameters."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield " ".join(words), command.params
        return
    for word, one in inner.items():
        yield from leaves(one, (*words, word))


COMMANDS = dict(leaves(typer.main.get_command(app)))


def kind_of(parameter: Any) -> Any:
    """`int` or `float` of a number; None of anything else."""
    annotation = parameter.type_descriptor.annotation
    kinds = (annotation, *get_args(annotation))
    return next((kind for kind in (int, float) if kind in kinds), None)


NUMBERS = [
    (command, parameter.opts[-1], parameter)
    for command, parameters in COMMANDS.items()
    for parameter in parameters
    if kind_of(parameter) is not None
]


def has_kind(parameter: Any, wanted: type) -> bool:
    """Whether a parameter is of a kind, or a list of it."""
    annotation = parameter.type_descriptor.annotation
    kinds = (annotation, *get_args(annotation))
    return any(isinstance(kind, type) and issubclass(kind, wanted) for kind in kinds)


def those_of(wanted: type) -> list[tuple[str, str]]:
    return [
        (command, parameter.opts[-1])
        for command, parameters in COMMANDS.items()
        for parameter in parameters
        if has_kind(parameter, wanted)
    ]


def words_of(command: str, name: str, value: object) -> list[str]:
    """A call of a command that has all that it needs, and `value` for the parameter `name`."""
    words, rest = command.split(), []
    for parameter in COMMANDS[command]:
        is_option = parameter.opts[-1].startswith("-")
        given = parameter.opts[-1] == name
        if not (given or parameter.required):
            continue
        text = str(value) if given else dummy(parameter)
        if is_option:
            words.append(f"{parameter.opts[-1]}={text}")
        else:
            rest.append(text)
    return [*words, "--", *rest] if rest else words


def dummy(parameter: Any) -> str:
    annotation = parameter.type_descriptor.annotation
    if kind_of(parameter) is not None:
        return "1"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return str(next(iter(annotation)).value)
    return "x"


def test_there_are_numbers_to_try() -> None:
    found = {command for command, _, _ in NUMBERS}
    assert len(NUMBERS) > 30
    assert {"job show", "job release", "dataset files", "inspect run", "intake add"} <= found


@pytest.mark.parametrize(("command", "name"), [(c, n) for c, n, _ in NUMBERS])
def test_what_is_beyond_the_bounds_is_one_line(spdf: Spdf, command: str, name: str) -> None:
    for value in BEYOND:
        done = spdf(*words_of(command, name, value))
        assert (done.code, done.out) == (2, ""), f"{name} {value}: {done.err}"
        told = done.err.splitlines()
        assert len(told) == 1 and len(told[0]) < 200, done.err
        shown, _, rest = told[0].removeprefix("spdf: ").partition(" ")
        assert shown == name or not name.startswith("-"), "an argument is named as in --help"
        assert rest.startswith(f"{str(value)[:40]!r} can't be used; give ")


@pytest.mark.parametrize(("command", "name"), those_of(Enum))
def test_a_word_that_is_no_choice_is_one_line(spdf: Spdf, command: str, name: str) -> None:
    done = spdf(*words_of(command, name, "inpu"))
    assert (done.code, done.out) == (2, ""), done.err
    told = done.err.splitlines()
    assert len(told) == 1, done.err
    assert told[0].lower().startswith(f"spdf: {name} 'inpu' can't be used; give ")


def test_what_can_be_chosen_is_said(spdf: Spdf) -> None:
    assert ("storage add", "--role") in those_of(Enum)
    done = spdf("storage", "add", "x", "/x", "--role", "inpu")
    assert done.err.endswith("give input, internal or output.\n")
    assert "<input|internal|output>" in spdf("storage", "add", "--help").out


@pytest.mark.parametrize(("command", "name"), those_of(Path))
def test_an_empty_path_is_one_line(spdf: Spdf, command: str, name: str) -> None:
    done = spdf(*words_of(command, name, ""))
    assert (done.code, done.out) == (2, ""), done.err
    assert len(done.err.splitlines()) == 1 and "'' is no path; give one, or `.`" in done.err


def test_what_is_within_them_is_no_defect(home: Path, spdf: Spdf) -> None:
    for command, name, _ in NUMBERS:
        for value in EDGES if command not in NOT_HERE else ():
            done = spdf(*words_of(command, name, value))
            told = f"{command} {name} {value}: {done.err}"
            assert done.code != DEFECT, told
            assert "beyond what can be kept" not in done.err, told


def test_an_id_given_as_a_text_is_not_found(home: Path, spdf: Spdf) -> None:
    for command in IDS:
        for value in (2**63, 2**64, 10**400, "x@99999999999999999999", "nan"):
            words = [*command.split(), str(value)] + (["out"] if command == "file get" else [])
            done = spdf(*words)
            assert done.code in (2, 3), done.err
            assert len(done.err.splitlines()) == 1 and "defect" not in done.err


def test_a_time_beyond_all_clocks_is_one_line(home: Path, spdf: Spdf) -> None:
    for option, commands in TIMES.items():
        for command in commands:
            for value in (f"{2**64}d", "9" * 400 + "s", "1e-300s", "10000000d", "nan", "infs"):
                done = spdf(*words_of(command, option, value))
                assert done.code == 2, f"{command} {option}: {done.err}"
                assert len(done.err.splitlines()) == 1 and "defect" not in done.err


@pytest.mark.parametrize("size", [f"{2**63}", "9" * 400, "9224PB", "99999999999999TB", "1e400"])
def test_a_quota_beyond_all_storages_is_one_line(home: Path, spdf: Spdf, size: str) -> None:
    done = spdf("buffer", "quota", "buffer", size)
    assert done.code == 2 and len(done.err.splitlines()) == 1
    assert spdf("buffer", "quota", "buffer", f"{2**63 - 1}").code == 0


NUMERIC_SETTINGS = [
    name
    for name, field in Settings.model_fields.items()
    if field.annotation in (int, float) and name != "watchdog_s"
]
"""But for the one that the set-up alone reads, and refuses."""


@pytest.mark.parametrize("name", NUMERIC_SETTINGS)
def test_a_setting_beyond_all_bounds_is_one_line(
    bare_home: Path, spdf: Spdf, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for value in (2**63, 2**64, -(2**63) - 1, "1e400", "nan", "inf"):
        with monkeypatch.context() as patched:
            patched.setenv(f"SPDF_{name.upper()}", str(value))
            get_settings.cache_clear()
            done = spdf("storage", "list")
        assert done.code == 2, f"{value}: {done.err}"
        assert f"SPDF_{name.upper()}" in done.err and len(done.err.splitlines()) == 1
    get_settings.cache_clear()


def test_a_pace_that_is_next_to_none_is_one_line(
    bare_home: Path, spdf: Spdf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPDF_WORKER_POLLS_PER_S", "1e-320")
    get_settings.cache_clear()
    done = spdf("storage", "list")
    assert done.code == 2 and "SPDF_WORKER_POLLS_PER_S" in done.err
    assert len(done.err.splitlines()) == 1
    get_settings.cache_clear()


def test_a_number_of_a_command_to_come_has_bounds_too(spdf: Spdf) -> None:
    made = typer.Typer()

    @made.command()
    def new(count: Annotated[int | None, typer.Option()] = None) -> None:
        """Something."""

    bound(made)
    with pytest.raises(BadInput, match="--count"):
        made(["--count", str(2**63)], standalone_mode=False)


def test_ranks_that_are_taken_can_be_kept(
    catalog: Catalog, home: Path, cut: Path, dataset: str, ok: Spdf, spdf: Spdf
) -> None:
    """Also where columns of ranks have 31 bits."""
    ok("template", "create", cut, "--mask", "run-?", "--activate", "--precedence", 10**9)
    wanted = Submission("cut", dataset, {"count": "2"}, rank=10**9)
    assert submit(catalog, wanted)[1]
    assert spdf("template", "create", cut, "--precedence", 10**9 + 1).code == 2


def test_a_storage_without_a_quota_and_one_that_may_hold_nothing_are_told_apart(
    home: Path, ok: Spdf
) -> None:
    assert ok("buffer", "quota", "buffer", "0").out == "storage buffer may hold 0 B\n"
    told = ok("buffer", "quota", "buffer", "none").out
    assert told == "storage buffer may hold what there is room for\n"


@pytest.mark.parametrize("percent", ["1e-320", "0.00001"])
def test_a_sample_that_is_too_small_is_one_line(home: Path, spdf: Spdf, percent: str) -> None:
    done = spdf("inspect", "run", "buffer", "--sample", percent)
    assert done.code == 2 and done.err.endswith("can't be read; give 0, or from 0.0001 to 100.\n")
    assert done.err.count("\n") == 1
    assert spdf("inspect", "run", "buffer", "--sample", "0.0001").code == 0
    assert spdf("inspect", "run", "buffer", "--sample", "0").code == 0
