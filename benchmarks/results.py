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


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser with the options that every program takes."""
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--short", action="store_true", help="a form that ends within two minutes")
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    made.add_argument("--write", type=Path, metavar="FILE", help="write it there as well")
    return made


def whole(word: str) -> int:
    """A whole number from 1 on, for the options of a program."""
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r} is no whole number from 1 on")
    return int(word)


def positive(word: str) -> float:
    """A number above 0, for the options of a program."""
    try:
        number = float(word)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{word!r} is no number above 0")
    return number


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
