"""The limit: what `xargs` reaches on the same files, where a job is nothing but fork and exec.

A shared machine is faster in one minute than in the next. So what is compared to the limit stands
between two measurements of it, and the ratio is to both together.
"""

import os
import secrets
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FILE_BYTES = 4096


@dataclass(frozen=True)
class Limit:
    """What a run of the two commands by `xargs` took, over all jobs."""

    jobs: int
    wall_s: float
    cpu_ms_per_job: float

    def __add__(self, other: "Limit") -> "Limit":
        """Both runs as one."""
        jobs = self.jobs + other.jobs
        cpu_ms = self.cpu_ms_per_job * self.jobs + other.cpu_ms_per_job * other.jobs
        return Limit(jobs, round(self.wall_s + other.wall_s, 3), round(cpu_ms / jobs, 3))

    @property
    def jobs_per_s(self) -> float:
        """Jobs in a second."""
        return round(self.jobs / self.wall_s, 1)

    def as_json(self) -> dict[str, Any]:
        """For a result."""
        return {**asdict(self), "jobs_per_s": self.jobs_per_s}


def make_files(directory: Path, count: int, size_bytes: int = FILE_BYTES) -> list[Path]:
    """Files of random bytes, in a new directory."""
    directory.mkdir(parents=True)
    files = [directory / f"f{i:07d}" for i in range(count)]
    for file in files:
        file.write_bytes(secrets.token_bytes(size_bytes))
    return files


def measure(files: list[Path], out: Path) -> Limit:
    """`md5sum`, then `cut -c1-32`, over each file, two jobs at a time, into a new directory."""
    out.mkdir(parents=True)
    names = "\n".join(file.name for file in files)
    begun, before = time.monotonic(), os.times()
    for script in (
        f'exec md5sum "{files[0].parent}/$1" > "$1.md5"',
        'exec cut -c1-32 "$1.md5" > "$1.cut"',
    ):
        subprocess.run(
            ["xargs", "-P2", "-n1", "sh", "-c", script, "sh"],
            input=names,
            text=True,
            cwd=out,
            check=True,
        )
    wall_s, after = time.monotonic() - begun, os.times()
    used = after.children_user + after.children_system
    used -= before.children_user + before.children_system
    jobs = 2 * len(files)
    return Limit(jobs, round(wall_s, 3), round(1000 * used / jobs, 3))


def measure_quick(scratch: Path, count: int = 1000) -> Limit:
    """The limit over files made for it; for programs that measure something else beside it."""
    return measure(make_files(scratch / "limit-in", count), scratch / "limit-out")
