"""Programs of `make bench`: each begins, and a wrong number is refused in a sentence."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import PROGRAMS

ROOT = Path(__file__).parents[2]


def run(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("program", PROGRAMS)
def test_it_says_what_it_measures(program: str) -> None:
    done = run(f"benchmarks.{program}", "--help")
    assert done.returncode == 0, done.stderr
    assert "--short" in done.stdout and "--write FILE" in done.stdout


@pytest.mark.parametrize(
    "words",
    [("chain", "--files", "0"), ("chain", "--files", "many"), ("latency", "--rate", "-1"),
     ("nodes", "--seconds", "nan")],
)  # fmt: skip
def test_a_wrong_number_is_refused(words: tuple[str, ...]) -> None:
    program, *rest = words
    done = run(f"benchmarks.{program}", *rest)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(("from 1 on", "above 0")), done.stderr
