"""The commands that `docs/howto/catalog.md` gives for a restore and a drill, as they stand."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from catalog.names import MARKER

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "catalog.md"
PROGRAMS = Path(sys.executable).parent


def commands(section: str) -> list[str]:
    """The lines of a section's first console block, without prompts."""
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## )", PAGE.read_text("utf-8"), re.M | re.S)
    block = re.search(r"```console\n(.*?)```", text, re.S)
    assert block is not None
    return [line.removeprefix("$ ") for line in block[1].splitlines()]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An SPDF_HOME that nobody works on, whose commands find the program."""
    monkeypatch.setenv("SPDF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("SPDF_CATALOG_URL", raising=False)
    return tmp_path / "home"


def shell(*lines: str) -> str:
    """Run lines in one shell, which ends at the first that fails; gives what they print."""
    script = "\n".join(("set -e", *lines))
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def seen(home: Path) -> dict[str, bytes]:
    """All that lies on the storages, markers too."""
    roots = [home / "storage" / name for name in ("input", "internal", "output")]
    assert all(root.is_dir() for root in roots)
    return {
        str(path): path.read_bytes()
        for root in roots
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def make_two(home: Path) -> None:
    """One dataset that a lifetime ends at once, and another."""
    shell(
        "mkdir -p $SPDF_HOME/../src; echo 1 > $SPDF_HOME/../src/a; echo 2 > $SPDF_HOME/../src/b",
        "spdf dataset create short; spdf dataset add short $SPDF_HOME/../src/a --copy-to output",
        "spdf dataset create long; spdf dataset add long $SPDF_HOME/../src/b --copy-to output",
        "spdf dataset close short long; spdf dataset expire short --lifetime 1s",
        "spdf storage mark output; spdf inspect run output --grace 0s",
    )


def test_a_drill_changes_no_storage_and_not_the_catalog_at_work(home: Path) -> None:
    make_two(home)
    before, rows = seen(home), shell("spdf dataset list --json")
    told = shell(*commands("Try a restore"))
    assert "this catalog was restored from a backup" in told and "generation 1" in told
    assert "short" in told and "its lifetime is over" in told
    assert "`spdf catalog accept --yes`" in told
    assert seen(home) == before, "markers, too"
    assert shell("spdf dataset list --json") == rows
    assert "removes as ever" in shell("spdf catalog accept")


def test_a_restore_is_looked_at_claimed_and_accepted(home: Path, tmp_path: Path) -> None:
    make_two(home)
    backup = tmp_path / "catalog-2026-03-01"
    shell(
        f"spdf catalog backup {backup}",
        "spdf dataset delete long --yes; spdf dataset pin short --reason paper",
    )
    services = ("spdf up", "spdf down")
    lines = [
        line.replace("/backup/catalog-2026-03-01", f"{backup} --replace")
        for line in commands("Restore")
        if not line.startswith(services)
    ]
    accepts = [line.startswith("spdf catalog accept") for line in lines].index(True)
    told = shell(*lines[: accepts + 1])
    assert re.search(r"deleted since.*\n(.*\n)*?long +DELETING there, CLOSED here", told)
    assert re.search(r"pinned since.*\n(.*\n)*?short +paper", told)
    claim = json.loads(marker_of("output").read_text())["claims"]
    shell(*lines[accepts + 1 :])
    (after,) = json.loads(marker_of("output").read_text())["claims"]
    assert (after["catalog"], after["may"]) == (claim[0]["catalog"], "removes")
    assert after["instance"] != claim[0]["instance"] and after["beat"] > claim[0]["beat"]
    assert "removes as ever" in shell("spdf catalog accept")


def marker_of(storage: str) -> Path:
    found = json.loads(shell(f"spdf storage show {storage} --json"))
    return Path(found["url"], MARKER)
