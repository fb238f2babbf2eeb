"""`python -m tests.differential --seed N --cases M`: generated tools, here and in cwltool."""

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.results import folder, natural, whole
from tests.differential.cases import Case, generate
from tests.differential.comparing import difference
from tests.differential.known import known
from tests.differential.runners import ours, theirs


@dataclass(frozen=True)
class Compared:
    """One case: `told` is the difference, `name` that of a known one."""

    case: Case
    succeeded: bool
    told: str | None
    name: str | None


def compare(seed: int, numbers: range, root: Path) -> Iterator[Compared]:
    """Run cases of a seed with both; the files of those that agree are removed."""
    for number in numbers:
        case = generate(seed, number, root)
        mine, other = ours(case), theirs(case)
        told = difference(mine, other)
        name = known(case, mine, other) if told else None
        yield Compared(case, mine.outputs is not None, told, name)
        if told is None or name:
            shutil.rmtree(case.folder, ignore_errors=True)


def main() -> int:
    """Compare as many cases as asked for; exit code 1 where one differs and isn't known."""
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description=__doc__)
    parser.add_argument("--seed", type=natural, default=1)
    parser.add_argument("--cases", type=whole, default=50)
    parser.add_argument("--first", type=natural, default=0, help="number of the first case")
    parser.add_argument("--keep", type=folder, help="keep cases that differ in this directory")
    given = parser.parse_args()
    root = given.keep or Path(tempfile.mkdtemp(prefix="spdf-differential-"))
    count: Counter[str] = Counter()
    for one in compare(given.seed, range(given.first, given.first + given.cases), root):
        count["succeed" if one.succeeded else "fail"] += 1
        if one.name:
            count[f"known: {one.name}"] += 1
        elif one.told:
            count["differ"] += 1
            print(f"{one.case} in {one.case.folder}\n  {one.told}", flush=True)
    print(", ".join(f"{count[key]} {key}" for key in sorted(count)))
    if not count["differ"] and given.keep is None:
        shutil.rmtree(root, ignore_errors=True)
    return 1 if count["differ"] else 0


if __name__ == "__main__":
    sys.exit(main())
