"""Small changes to modules on whose word data go or stay: do the modules' own tests see them?

`python -m tests.mutants --seed 1 --sample 400` tries a sample, one change at a time, and prints
those that no test noticed. Of a subject's tests those are run that run the changed statement. With
`--only` a subject's part of that same sample is tried: several may run side by side.
Mutants may remove anything: they run where all but their own directory can't be written to,
which takes root.
"""

import argparse
import random
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib import import_module
from itertools import islice
from pathlib import Path

from benchmarks.results import natural, whole
from tests.mutants.changes import ROOT, Mutant, mutants_of
from tests.mutants.laboratory import SURVIVED, Laboratory

PRELOADED = ("sqlmodel", "sqlalchemy", "psycopg", "prefect", "cwl_utils")
"""What takes long to be imported, and is none of ours."""
CLOSED = r"""
mount -t tmpfs tmpfs "$1" || exit
mount -t tmpfs tmpfs /tmp || exit
mkdir -p "$1" && mount -t tmpfs tmpfs "$1" || exit
awk '$2 !~ "^(/proc|/sys|/dev|/tmp)(/|$)" {print $2}' /proc/self/mounts | while read -r place; do
    mount -o remount,bind,ro "$place" || exit
done
shift; exec "$@"
"""


@dataclass(frozen=True)
class Subject:
    """Modules (patterns of paths; `but` are another's), and the tests that are theirs."""

    modules: tuple[str, ...]
    tests: tuple[str, ...]
    but: str = ""


SUBJECTS = {
    "states": Subject(
        ("catalog/states.py", "catalog/transitions.py"),
        ("tests/unit/test_docs.py", "tests/unit/test_catalog_states.py"),
    ),
    "completion": Subject(
        ("catalog/completion.py",),
        ("tests/unit/test_completion.py", "tests/unit/test_workload.py"),
    ),
    "deletion": Subject(
        (
            "catalog/deletion.py",
            "catalog/removal.py",
            "catalog/erasure.py",
            "catalog/grace.py",
            "catalog/claims.py",
        ),
        (
            "tests/unit/test_deletion.py",
            "tests/unit/test_erasure.py",
            "tests/unit/test_grace.py",
            "tests/unit/test_detached.py",
            "tests/unit/test_claims.py",
            "tests/unit/test_hanging.py",
            "tests/unit/test_overlaps.py",
            "tests/unit/test_uploads.py",
        ),
    ),
    "drivers": Subject(
        ("catalog/drivers/*.py",),
        (
            "tests/unit/test_catalog_drivers.py",
            "tests/unit/test_drivers_root.py",
            "tests/unit/test_drivers_walk.py",
            "tests/unit/test_faltering.py",
            "tests/unit/test_largefiles.py",
            "tests/unit/test_standing.py",
        ),
        but="catalog/drivers/s3*.py",
    ),
    "s3": Subject(
        ("catalog/drivers/s3*.py",),
        (
            "tests/unit/test_s3answers.py",
            "tests/unit/test_s3client.py",
            "tests/integration/test_s3.py",
            "tests/integration/test_s3_faults.py",
            "tests/integration/test_s3_markers.py",
        ),
    ),
    "stage-out": Subject(("workers/stageout.py",), ("tests/unit/test_workers_stageout.py",)),
    "workspace": Subject(("workers/workspace.py",), ("tests/unit/test_workers_workspace.py",)),
}


def main() -> int:
    """Try a sample, print what survived, and a line for each subject."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seed", type=natural, default=1)
    options.add_argument("--sample", type=whole, default=400, help="how many of all")
    options.add_argument(
        "--only", choices=SUBJECTS, action="append", help="of the sample this subject's"
    )
    options.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.inside is None:
        with tempfile.TemporaryDirectory(prefix="spdf-mutants-") as folder:
            words = [sys.executable, "-m", "tests.mutants", *sys.argv[1:], "--inside", folder]
            shell = ["unshare", "--mount", "sh", "-c", CLOSED, "sh", folder, *words]
            return subprocess.run(["nice", "-n", "10", *shell], cwd=ROOT, check=False).returncode
    found = {name: _mutants(one) for name, one in SUBJECTS.items()}
    everything = [mutant for mutants in found.values() for mutant in mutants]
    shuffled = random.Random(given.seed).sample(everything, len(everything))
    chosen = set(islice((one for one in shuffled if one.is_code()), given.sample))
    for name in PRELOADED:
        import_module(name)
    laboratory, rows = Laboratory(given.inside), []
    for name in given.only or SUBJECTS:
        mutants = found[name]
        mine = [one for one in mutants if one in chosen]
        counts: Counter[str] = Counter()
        for mutant, end in laboratory.try_out(SUBJECTS[name].tests, mine) if mine else ():
            counts[end] += 1
            if end == SURVIVED:
                print(mutant, flush=True)
        killed = len(mine) - counts[SURVIVED]
        rows.append(f"| {name} | {len(mutants)} | {len(mine)} | {killed} | {counts[SURVIVED]} |")
        print(rows[-1], flush=True)
    print(
        "\n| subject | mutants | tried | killed | survived |\n|---|---|---|---|---|",
        *rows,
        sep="\n",
    )
    return 0


def _mutants(subject: Subject) -> list[Mutant]:
    paths = [
        str(path.relative_to(ROOT))
        for pattern in subject.modules
        for path in sorted(ROOT.glob(pattern))
    ]
    return [mutant for p in paths if not fnmatch(p, subject.but) for mutant in mutants_of(p)]


if __name__ == "__main__":
    sys.exit(main())
