"""What is said of other engines: outputs that are checked, ratios, faults, and the table."""

import argparse
import hashlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.limit import Limit, make_files
from benchmarks.peers import __main__ as program
from benchmarks.peers import environments
from benchmarks.peers.engines import PEERS
from benchmarks.peers.environments import NotInstalled
from benchmarks.peers.runs import Clock, Measured, Run, wrong_outputs

XARGS = {"jobs": 200, "wall_s": 0.2, "jobs_per_s": 1000.0, "cpu_ms_per_job": 1.5}


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return make_files(tmp_path / "input", 3)


@pytest.fixture
def out(tmp_path: Path, files: list[Path]) -> Path:
    """What a peer leaves that does all of its work."""
    folder = tmp_path / "out"
    folder.mkdir()
    for file in files:
        digest = hashlib.md5(file.read_bytes()).hexdigest()
        (folder / f"{file.name}.md5").write_text(f"{digest}  -\n")
        (folder / f"{file.name}.cut").write_text(f"{digest}\n")
    return folder


def rows(peers: dict[str, Any]) -> list[list[str]]:
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(program.table_of(XARGS, peers))
    lines = [line for line in console.export_text().splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]


def test_right_outputs_are_right(files: list[Path], out: Path) -> None:
    assert wrong_outputs(files, out, ".cut") == 0


def test_every_missing_output_counts(files: list[Path], out: Path) -> None:
    for file in files[1:]:
        (out / f"{file.name}.cut").unlink()
    assert wrong_outputs(files, out, ".cut") == 2
    assert wrong_outputs(files, out / "nowhere", ".cut") == 3


def test_an_output_of_another_content_is_wrong(files: list[Path], out: Path) -> None:
    (out / f"{files[0].name}.cut").write_bytes((out / f"{files[1].name}.cut").read_bytes())
    (out / f"{files[2].name}.cut").write_bytes(b"")
    assert wrong_outputs(files, out, ".cut") == 2


def test_an_output_of_no_file_is_wrong(files: list[Path], out: Path) -> None:
    assert wrong_outputs(files[:2], out, ".cut") == 1


def test_two_runs_of_the_limit_are_one_over_all_jobs() -> None:
    both = Limit(jobs=100, wall_s=1.0, cpu_ms_per_job=1.0) + Limit(300, 3.0, 2.0)
    assert both == Limit(jobs=400, wall_s=4.0, cpu_ms_per_job=1.75)
    assert both.jobs_per_s == 100.0


def test_start_up_is_left_out() -> None:
    whole, one = Run(jobs=1002, wall_s=6.0, cpu_s=7.0), Run(jobs=2, wall_s=1.0, cpu_s=2.0)
    figures = Measured(whole.less(one), 0, whole).as_json()
    assert figures.pop("whole") == {
        "jobs": 1002,
        "wall_s": 6.0,
        "jobs_per_s": 167.0,
        "cpu_ms_per_job": 6.986,
    }
    assert figures == {
        "jobs": 1000,
        "wall_s": 5.0,
        "jobs_per_s": 200.0,
        "cpu_ms_per_job": 5.0,
        "wrong_outputs": 0,
    }


def test_the_cpu_time_of_what_was_started_counts() -> None:
    clock = Clock()
    spin = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", spin], check=True)
    assert clock.stop(1).cpu_s >= 0.25


def test_the_table_quotes_one_ratio_a_peer() -> None:
    whole = Run(1002, 6.0, 7.0)
    slow = Measured(whole.less(Run(2, 1.0, 2.0)), 0, whole).as_json()
    fast = Measured(Run(1000, 2.0, 3.0), 0).as_json()
    slow["ratio"], fast["ratio"] = 0.2, 0.5
    assert rows({"cwltool": slow, "parsl": fast}) == [
        ["xargs -P2", "200", "0.2", "1000.0", "1", "1.5"],
        ["cwltool", "1000", "5.0", "200.0", "0.2", "5.0"],
        ["cwltool, whole process", "1002", "6.0", "167.0", "", "6.986"],
        ["parsl", "1000", "2.0", "500.0", "0.5", "3.0"],
    ]


def test_the_table_shows_what_was_not_measured() -> None:
    shown = rows({"cwltool": {"not_measured": "no network"}, "parsl": {"failed": "it ended"}})
    assert [row[:2] for row in shown[1:]] == [["cwltool", "not measured"], ["parsl", "failed"]]


def test_what_is_missing_is_a_fault_only_where_it_was_named() -> None:
    peers = {"cwltool": {"not_measured": "no network"}}
    assert program.faults_of(peers, []) == []
    assert program.faults_of(peers, ["cwltool"]) == ["cwltool was not measured: no network"]


def test_failures_and_wrong_outputs_are_faults() -> None:
    peers = {
        "xargs": {"wrong_outputs": 0},
        "cwltool": {"wrong_outputs": 2},
        "parsl": {"failed": "parsl ended with 1: no socket"},
    }
    assert program.faults_of(peers, []) == [
        "2 outputs of cwltool are wrong",
        "parsl failed: parsl ended with 1: no socket",
    ]


@pytest.mark.parametrize("text", ["0", "99", "-1"])
def test_too_few_files_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="at least 100"):
        program._count(text)


@pytest.mark.parametrize("package", sorted({peer.package for peer in PEERS.values()}))
def test_every_pin_is_exact_and_names_no_registry(package: str) -> None:
    lines = (environments.PINS / f"{package}.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins), pins
    assert f"{package}=={environments.version(package)}" in pins


def test_what_cannot_be_installed_is_said_and_not_taken_for_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "absent.txt").write_text("absent==1.0\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(NotInstalled, match=r"installing absent\.txt .* ended with 1"):
        environments.ready("absent", tmp_path, tmp_path / "made")
    assert not list((tmp_path / "made" / "absent").glob("made-of*"))


def test_an_environment_is_made_once_and_again_for_other_pins(tmp_path: Path) -> None:
    """With nothing to install, nothing is fetched."""
    pins = tmp_path / "nothing.txt"
    pins.write_text("# none\n")
    programs = environments.ready("nothing", tmp_path, tmp_path / "made")
    assert os.access(programs / "python", os.X_OK)
    mark = programs / "mark"
    mark.touch()
    environments.ready("nothing", tmp_path, tmp_path / "made")
    assert mark.exists()
    pins.write_text("# still none\n")
    environments.ready("nothing", tmp_path, tmp_path / "made")
    assert not mark.exists()
