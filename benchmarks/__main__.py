"""`python -m benchmarks`: the short form of every program, one after the other.

Each writes `benchmarks/results/short/NAME.json`. Ends with 1 where one of
them found something wrong.
"""

import subprocess
import sys

from benchmarks.results import SHORT

PROGRAMS = (
    "chain", "peers", "latency", "largefiles", "age", "register", "bulk", "daq", "hostile",
    "faulty_s3", "nodes", "workers", "model",
)  # fmt: skip
"""In this order: the model reads what those before it wrote."""


def main() -> int:
    """Run them; gives 1 where one failed."""
    failed = []
    for name in PROGRAMS:
        print(f"== {name}", flush=True)
        line = [sys.executable, "-m", f"benchmarks.{name}", "--short"]
        done = subprocess.run([*line, "--write", str(SHORT / f"{name}.json")], check=False)
        if done.returncode != 0:
            failed.append(name)
    if failed:
        print(f"WRONG: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
