"""What a run took, how that compares to the limit, and whether its outputs are right."""

import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.processes import between, cpu_by_tree


@dataclass(frozen=True)
class Run:
    """Jobs done, the time they took, and the CPU time of all processes meanwhile."""

    jobs: int
    wall_s: float
    cpu_s: float

    def less(self, start: "Run") -> "Run":
        """What this run took beyond another one of the same program over fewer files."""
        return Run(self.jobs - start.jobs, self.wall_s - start.wall_s, self.cpu_s - start.cpu_s)

    @property
    def jobs_per_s(self) -> float:
        """Jobs in a second."""
        return round(self.jobs / self.wall_s, 1)

    def as_json(self) -> dict[str, Any]:
        """For a result."""
        return {
            "jobs": self.jobs,
            "wall_s": round(self.wall_s, 3),
            "jobs_per_s": self.jobs_per_s,
            "cpu_ms_per_job": round(1000 * self.cpu_s / self.jobs, 3),
        }


@dataclass(frozen=True)
class Measured:
    """A peer's run: `run` is what ratios quote, `whole` counts its start-up as well."""

    run: Run
    wrong_outputs: int
    whole: Run | None = None

    def as_json(self) -> dict[str, Any]:
        """For a result."""
        figures = {**self.run.as_json(), "wrong_outputs": self.wrong_outputs}
        return figures if self.whole is None else {**figures, "whole": self.whole.as_json()}


class Clock:
    """Wall and CPU time from its making on, of this process with all that it started."""

    def __init__(self) -> None:
        self._cpu, self._begun = self._used(), time.monotonic()

    def stop(self, jobs: int) -> Run:
        """The time since, over so many jobs."""
        wall_s = time.monotonic() - self._begun
        return Run(jobs, wall_s, between(self._cpu, self._used())["all"])

    @staticmethod
    def _used() -> dict[str, float]:
        return cpu_by_tree({"all": os.getpid()})


def wrong_outputs(files: Sequence[Path], folder: Path, suffix: str) -> int:
    """Outputs that are missing, aren't the md5 of their file's content, or belong to no file.

    The output of `name` is `name` with the suffix, in `folder`.
    """
    found = {
        path.name.removesuffix(suffix): path.read_bytes().strip()
        for path in folder.glob(f"*{suffix}")
    }
    expected = {
        file.name: hashlib.md5(file.read_bytes()).hexdigest().encode("ascii") for file in files
    }
    wrong = sum(found.get(name) != digest for name, digest in expected.items())
    return wrong + len(found.keys() - expected.keys())
