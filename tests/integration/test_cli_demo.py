"""`spdf demo` as a newcomer runs it: from nothing to a verdict, and down again."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("server")

ROOT = Path(__file__).parents[2]
FILES = 3


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A home of its own, and nothing of ours or of Prefect's besides."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SPDF_", "PREFECT_"))}
    return {**kept, "SPDF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}


def spdf(environment: dict[str, str], *words: str) -> "subprocess.CompletedProcess[str]":
    """The ended command."""
    return subprocess.run(
        [sys.executable, "-m", "cli", *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def test_the_demo_ends_well_and_leaves_what_it_says(environment: dict[str, str]) -> None:
    try:
        done = spdf(environment, "demo", "--files", str(FILES), "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        found = json.loads(done.stdout)
        assert found["right"] is True
        assert [s["jobs"] for s in found["stages"]] == [FILES, FILES, FILES, 1]
        shown = next(c for c in found["checks"] if c["what"] == "task runs in Prefect")
        assert shown["found"] == shown["wanted"]
        assert found["address"].endswith(found["workflow"]["flow_run_id"])

        listed = json.loads(spdf(environment, "dataset", "list", "--json").stdout)
        assert {d["state"] for d in listed} == {"CLOSED"}
        assert listed[0]["name"] == "run-0001"
        # The same dataset again is the workflow that there is, and it has ended.
        words = ("workflow", "submit", "spd", "run-0001", "--wait", "--input")
        calibration = f"{environment['SPDF_HOME']}/demo/run-0001/calibration.csv"
        again = spdf(environment, *words, f"calibration={calibration}", "--json")
        assert again.returncode == 0, again.stderr
        assert json.loads(again.stdout)["workflow"]["id"] == found["workflow"]["id"]
    finally:
        down = spdf(environment, "down", "--json")
    assert "server" in json.loads(down.stdout)["stopped"]
    assert spdf(environment, "status").returncode == 3
