"""What all programs have in common: their options, and the envelope of what they measured."""

import argparse
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import machine

RESULTS = Path(__file__).parent / "results"
SHORT = RESULTS / "short"
"""What `make bench` writes; the documented figures, above it, are of the long forms."""


_MOST_DIGITS = 19


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser with the options that every program takes."""
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--short", action="store_true", help="a form that ends within two minutes")
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    made.add_argument("--write", type=new_file, metavar="FILE", help="write it there as well")
    return made


def whole(word: str, least: int = 1) -> int:
    """A whole number from `least` on, for the options of a program."""
    if not (word.isdecimal() and len(word) < _MOST_DIGITS and int(word) >= least):
        raise argparse.ArgumentTypeError(f"{word!r} is no whole number from {least} on")
    return int(word)


def natural(word: str) -> int:
    """A whole number from 0 on, for the options of a program."""
    return whole(word, 0)


def positive(word: str) -> float:
    """A number above 0, for the options of a program."""
    try:
        number = float(word)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{word!r} is no number above 0")
    return number


def folder(word: str) -> Path:
    """A directory that is new, and made, or empty, for the options of a program."""
    path = Path(word)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{word!r} can't be made: {error.strerror}") from error
    if not word or any(path.iterdir()):
        raise argparse.ArgumentTypeError(f"{word!r} is no new or empty directory")
    return path


def new_file(word: str) -> Path:
    """A path where a file can be written, for the options of a program."""
    path = Path(word)
    if path.is_dir() or any(up.exists() and not up.is_dir() for up in path.parents):
        raise argparse.ArgumentTypeError(f"{word!r} is no file that can be written")
    return path


def deliver(
    given: argparse.Namespace,
    name: str,
    figures: Mapping[str, Any],
    *,
    limit: Mapping[str, Any],
    faults: list[str],
    show: Callable[[Mapping[str, Any]], None],
) -> int:
    """Print a result (by `show`, or as JSON) and write it; the exit code: 1 where it is wrong.

    `limit` is what xargs reached in the same run. `faults` are sentences on counts, digests and
    states that aren't as they must be; times are never judged.
    """
    result = {
        "name": name,
        "short": given.short,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "limit": dict(limit),
        **figures,
        "faults": faults,
    }
    text = json.dumps(result, indent=2) + "\n"
    if given.write:
        given.write.parent.mkdir(parents=True, exist_ok=True)
        given.write.write_text(text)
    if given.json:
        print(text, end="")
    else:
        show(result)
        for fault in faults:
            print(f"WRONG: {fault}")
    return 1 if faults else 0
