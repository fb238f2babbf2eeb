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
     ("nodes", "--seconds", "nan"), ("hostile", "--requests", "-5"), ("hostile", "--files", "0"),
     ("hostile", "--seed", "9" * 5000), ("hostile", "--rate", "inf")],
)  # fmt: skip
def test_a_wrong_number_is_refused(words: tuple[str, ...]) -> None:
    program, *rest = words
    done = run(f"benchmarks.{program}", *rest)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(("from 1 on", "above 0")), done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("tests.differential", "--cases", "-5"), "'-5' is no whole number from 1 on"),
        (("tests.differential", "--cases", "0"), "'0' is no whole number from 1 on"),
        (("tests.differential", "--first", "-1"), "'-1' is no whole number from 0 on"),
        (("tests.differential", "--keep", __file__), "can't be made: File exists"),
        (("tests.differential", "--keep", str(ROOT)), "is no new or empty directory"),
        (("tests.mutants", "--sample", "0"), "'0' is no whole number from 1 on"),
        (("tests.mutants", "--seed", "-1"), "'-1' is no whole number from 0 on"),
        (("benchmarks.hostile", "--write", str(ROOT)), "is no file that can be written"),
        (("benchmarks.hostile", "--write", f"{__file__}/x"), "is no file that can be written"),
    ],
)
def test_a_wrong_word_ends_before_anything_is_done(words: tuple[str, ...], told: str) -> None:
    done = run(*words)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].endswith(told), done.stderr
