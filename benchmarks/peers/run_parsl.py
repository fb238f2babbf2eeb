"""The chain as parsl users write it; runs where parsl is installed, and imports nothing else.

Prints `ready` once its workers are warm, begins when a line comes in, prints `done` at the end.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from parsl import Config, HighThroughputExecutor, load, python_app

LOOPBACK = "127.0.0.1"
WORKERS = 2
WARM_UP = 50
TUNED: dict[str, Any] = {"encrypted": False, "prefetch_capacity": 4}


@python_app
def md5sum(program: str, source: str, target: str) -> str:
    """The first stage; gives what the second one reads."""
    import subprocess

    with open(source, "rb") as given, open(target, "wb") as made:  # noqa: PTH123
        subprocess.run([program], stdin=given, stdout=made, check=True, close_fds=False)
    return target


@python_app
def cut(program: str, source: str, target: str) -> None:
    """The second stage; parsl waits for `source`, which is a future of the first."""
    import subprocess

    with open(target, "wb") as made:  # noqa: PTH123
        subprocess.run([program, "-c1-32", source], stdout=made, check=True, close_fds=False)


def main() -> None:
    """Warm up, wait for the word, and run."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tuned", action="store_true", help="without logs and encryption")
    options.add_argument("files", type=Path, help="a list of files, one a line")
    options.add_argument("md5sum", help="that program's path")
    options.add_argument("cut", help="that program's path")
    options.add_argument("out", type=Path)
    given = options.parse_args()
    files = [Path(line) for line in given.files.read_text().splitlines()]
    executor = HighThroughputExecutor(
        address=LOOPBACK,
        max_workers_per_node=WORKERS,
        cores_per_worker=1 / WORKERS,
        **(TUNED if given.tuned else {}),
    )
    with load(Config(executors=[executor], initialize_logging=not given.tuned)):
        warm_up = given.out.with_name("warm-up")
        warm_up.mkdir()
        _run((files * WARM_UP)[:WARM_UP], warm_up, given)
        print("ready", flush=True)
        sys.stdin.readline()
        _run(files, given.out, given)
        print("done", flush=True)


def _run(files: list[Path], out: Path, given: argparse.Namespace) -> None:
    last = []
    for file in files:
        line = md5sum(given.md5sum, str(file), f"{out}/{file.name}.md5")
        last.append(cut(given.cut, line, f"{out}/{file.name}.cut"))
    for future in last:
        future.result()


if __name__ == "__main__":
    main()
