"""spdf itself as a row of the table: `benchmarks.chain`, run as users run it."""

import json
import subprocess
import sys
from typing import Any

from benchmarks.limit import Limit


def measure(profile: str, files: int | None, *, short: bool) -> tuple[dict[str, Any], Limit]:
    """The figures of a profile, and the limit that was measured right before and after it."""
    line = [sys.executable, "-m", "benchmarks.chain", "--profile", profile, "--json"]
    if files:
        line += ["--files", str(files)]
    elif short:
        line.append("--short")
    done = subprocess.run(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    if not done.stdout:
        raise RuntimeError(f"benchmarks.chain --profile {profile} ended with {done.returncode}")
    result = json.loads(done.stdout)
    ours, xargs = result["spdf"], result["limit"]
    beside = Limit(xargs["jobs"], xargs["wall_s"], xargs["cpu_ms_per_job"])
    figures = {
        "files": result["files"],
        "jobs": ours["jobs"],
        "wall_s": ours["wall_s"],
        "jobs_per_s": ours["jobs_per_s"],
        "cpu_ms_per_job": round(sum(ours["cpu_ms_per_job"].values()), 3),
        "wrong_outputs": ours["wrong_outputs"],
        "beside": beside.jobs_per_s,
        "ratio": result["ratio"],
    }
    if result["faults"]:
        figures["failed"] = "; ".join(result["faults"])
    return figures, beside
