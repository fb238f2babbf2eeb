"""The command before it does anything: what it imports, and how it ends on errors."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from catalog import storages
from cli.main import app

Spdf = Callable[..., Any]
ROOT = Path(__file__).parents[3]
HEAVY = {"prefect", "sqlalchemy", "sqlmodel", "pydantic", "pydantic_settings", "cwl_utils",
         "schema_salad", "ruamel", "alembic", "httpx", "rich", "numpy"}  # fmt: skip

NOUNS = {
    "catalog",
    "storage",
    "dataset",
    "file",
    "template",
    "workflow",
    "task",
    "job",
    "pilot",
    "cwl",
}

IMPORTS = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))
sys.argv = ["spdf", *sys.argv[1:]]
from cli.main import run
run()
"""


@pytest.mark.parametrize("words", [["--help"], ["workflow", "submit", "--help"], ["demo", "-h"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0
    assert "Usage: spdf" in done.stdout
    modules = {name.partition(".")[0] for name in json.loads(done.stderr)}
    assert "typer" in modules
    # Typer itself may take pydantic to read the options of a command, not for the root's help.
    allowed = set() if words == ["--help"] else {"pydantic"}
    assert modules & HEAVY <= allowed


def test_every_noun_is_there_and_explains_itself(spdf: Spdf) -> None:
    listed = spdf("--help").out
    for noun in NOUNS:
        assert f"\n  {noun} " in listed
        done = spdf(noun, "--help")
        assert done.code == 0 and "Commands:" in done.out


def test_every_command_and_option_has_a_help_text() -> None:
    import typer

    def check(command: Any, name: str) -> None:
        assert command.help, name
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{name}: {parameter.name}"
        for word, inner in getattr(command, "commands", {}).items():
            check(inner, f"{name} {word}")

    check(typer.main.get_command(app), "spdf")


def test_everything_that_prints_can_print_json() -> None:
    import typer

    without = set()

    def look(command: Any, name: str) -> None:
        inner = getattr(command, "commands", None)
        if inner is not None:
            for word, one in inner.items():
                look(one, f"{name} {word}")
        elif all("--json" not in parameter.opts for parameter in command.params):
            without.add(name)

    look(typer.main.get_command(app), "spdf")
    assert without == {
        "spdf cwl run", "spdf worker start", "spdf intake start", "spdf request schema",
    }  # fmt: skip


def test_without_a_catalog_reading_says_how_to_make_one(spdf: Spdf, bare_home: Path) -> None:
    for words in (["dataset", "list"], ["job", "show", 1], ["template", "list"], ["pilot", "list"]):
        done = spdf(*words)
        assert (done.code, done.out) == (5, "")
        assert (
            done.err
            == f"spdf: there is no catalog at {bare_home}/catalog.db; `spdf up` makes one.\n"
        )
    assert not bare_home.exists()


def test_status_without_anything_says_down(spdf: Spdf) -> None:
    done = spdf("status", "--json")
    assert done.code == 3
    assert done.json["up"] is False


def test_what_writes_makes_the_embedded_catalog(ok: Spdf, bare_home: Path) -> None:
    ok("dataset", "create", "run-1")
    assert [s["name"] for s in ok("storage", "list", "--json").json] == [
        "buffer", "internal", "output",
    ]  # fmt: skip
    assert bare_home.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["dataset", "show", "none"], 3, "no dataset 'none'"),
        (["workflow", "show", 7], 3, "no workflow 7"),
        (["job", "log", 7], 3, "no job 7"),
        (["file", "show", "none"], 3, "no file 'none'"),
        (["template", "show", "none"], 3, "no template 'none'"),
        (["template", "activate", "none"], 3, "no template 'none'"),
        (["task", "jobs", 7], 3, "no task 7"),
        (["dataset", "create", "../x"], 2, "dataset name '../x'"),
        (["storage", "add", "s", "/proc/none/x", "--role", "input"], 2, "can't be made"),
        (["workflow", "submit", "t", "d"], 5, "the server is not up; `spdf up` starts it."),
        (["workflow", "retry", 1], 5, "the server is not up; `spdf up` starts it."),
        (["workflow", "submit", "t", "d", "--input", "x"], 2, "is not NAME=VALUE"),
        (["template", "validate", "/none.cwl"], 2, "/none.cwl"),
        (["template", "try", "none", "/none"], 2, "there is no file '/none'"),
        (["job", "show", "x"], 2, "JOB 'x' can't be used; give a whole number from 1"),
    ],
)
def test_an_error_is_one_sentence_and_a_code(
    spdf: Spdf, home: Path, words: Sequence[object], code: int, sentence: str
) -> None:
    done = spdf(*words)
    assert done.code == code
    assert done.out == ""
    assert done.err.startswith("spdf: ") and sentence in done.err
    assert done.err.count("\n") == 1 and "Traceback" not in done.err


@pytest.mark.parametrize("words", [["nonsense"], ["dataset", "create"]])
def test_wrong_use_is_2(spdf: Spdf, words: list[str]) -> None:
    done = spdf(*words)
    assert done.code == 2
    assert "Error:" in done.err


def test_a_setting_that_cannot_be_used_is_named(
    spdf: Spdf, bare_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPDF_SLOTS", "many")
    done = spdf("dataset", "list")
    assert done.code == 2
    assert "SPDF_SLOTS is 'many'" in done.err


@pytest.mark.parametrize("name", ["SPDF_HOME", "SPDF_WORK_DIR"])
def test_nobodys_home_is_a_sentence(
    spdf: Spdf, bare_home: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "~nobody-here/x")
    done = spdf("storage", "list")
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert "'~nobody-here/x' begins with nobody's home directory" in done.err


def test_a_database_that_is_away_is_a_sentence(
    spdf: Spdf, bare_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPDF_CATALOG_URL", "postgresql://nobody@127.0.0.1:1/none")
    done = spdf("dataset", "list")
    assert done.code == 5
    assert "can't be reached" in done.err and "Traceback" not in done.err


@pytest.mark.parametrize("url", ["sqlit:///x", "mysql://x/y", "x"])
def test_a_url_that_names_no_database_of_ours_is_a_sentence(
    spdf: Spdf, bare_home: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("SPDF_CATALOG_URL", url)
    for line in (("dataset", "list"), ("catalog", "show"), ("up",)):
        done = spdf(*line)
        assert (done.code, len(done.err.splitlines())) == (2, 1), done.err
        assert "SPDF_CATALOG_URL is no URL of a database that can be used" in done.err


def test_a_catalog_that_is_none_is_a_sentence(spdf: Spdf, bare_home: Path) -> None:
    bare_home.mkdir()
    (bare_home / "catalog.db").write_text("not a database" * 100)
    done = spdf("dataset", "list")
    assert done.code == 5
    assert "the catalog can't be used (file is not a database)" in done.err


def test_a_defect_is_70_and_leaves_its_traceback_in_the_log(
    spdf: Spdf, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_session: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(storages, "list_all", broken)
    (home / "log").mkdir()
    done = spdf("storage", "list")
    log = home / "log" / "cli.log"
    assert done.code == 70
    assert done.err == f"spdf: a defect of spdf: RuntimeError: boom; {log} says where.\n"
    assert "in broken" in log.read_text()
    monkeypatch.setenv("SPDF_DEBUG", "1")
    assert "in broken" in spdf("storage", "list").err
