"""Jobs over large files on a node with one slot: whether transfers overlap with payloads."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.processes import threads_io_bytes
from catalog.drivers.local import LocalDriver
from catalog.refs import FileRef, ReplicaRef
from workers.job import RunningJob, run_attempt
from workers.node import Node
from workers.orphans import PayloadLedger
from workers.prepare import prepare
from workers.slots import Capacity, Grant, Slots
from workers.spec import (
    JobResult,
    JobSpec,
    Outcome,
    OutputPort,
    OutputTarget,
    Resources,
    StepInput,
    StepSpec,
    TaskSpec,
)

JOBS = 2
_WAIT = "WAIT"
_TOOL = {
    "class": "CommandLineTool",
    "cwlVersion": "v1.2",
    "id": "copy",
    "baseCommand": ["sh", "-c", 'md5sum "$1" >&2; exec cat "$1"', "sh"],
    "inputs": {"file": {"type": "File", "inputBinding": {"position": 1}}},
    "outputs": {"copy": {"type": "File", "outputBinding": {"glob": "copy"}}},
    "stdout": "copy",
}


@dataclass
class _Watched(RunningJob):
    """A job that notes when each of its phases began."""

    marks: list[tuple[float, str]] = field(default_factory=list)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "phase" and value is not None:
            self.mark(str(value))

    def mark(self, what: str) -> None:
        """Note that something begins."""
        self.marks.append((time.monotonic(), what))

    def spent(self) -> dict[str, float]:
        """Seconds in each phase."""
        found: dict[str, float] = {}
        for (begun, what), (ended, _) in zip(self.marks, self.marks[1:], strict=False):
            found[what] = found.get(what, 0.0) + ended - begun
        return found


class _Waited(Slots):
    """Tokens that tell a job when it begins to wait for them."""

    def __init__(self, directory: Path, capacity: Capacity) -> None:
        super().__init__(directory, capacity)
        self.jobs: dict[int, _Watched] = {}

    @contextmanager
    def take(self, need: Resources, stop: Any = None) -> Iterator[Grant | None]:
        """As the base's."""
        self.jobs[id(stop)].mark(_WAIT)
        with super().take(need, stop) as grant:
            yield grant


def measure(folder: Path, source: Path, checksum: str) -> dict[str, Any]:
    """Two jobs over one file, at once on one slot: their phases, the wall time, and faults."""
    size_bytes = source.stat().st_size
    slots = _Waited(folder / "slots", Capacity(1, 4096))
    (folder / "stored").mkdir()
    storages = {1: LocalDriver("in", source.parent), 2: LocalDriver("out", folder / "stored")}
    node = Node("bench", PayloadLedger(folder / "node", 1), slots, storages, verify_linked=True)
    prepared = prepare(node, _task())
    ref = FileRef(1, source.name, size_bytes, checksum, (ReplicaRef(1, source.name),))
    jobs = [_Watched(JobSpec(i, i, 1, f"f{i}", i, 1, {"file": (ref,)})) for i in range(JOBS)]
    slots.jobs = {id(job.stop): job for job in jobs}

    def run(job: _Watched) -> JobResult:
        result = run_attempt(node, prepared, job)
        job.mark("END")
        return result

    before, begun = threads_io_bytes(), time.monotonic()
    with ThreadPoolExecutor(JOBS) as pool:
        results = list(pool.map(run, jobs))
        wall_s, after = time.monotonic() - begun, threads_io_bytes()
    phases = {
        phase: round(sum(job.spent().get(phase, 0.0) for job in jobs), 3)
        for phase in ("STAGE_IN", "PAYLOAD", "STAGE_OUT")
    }
    summed = sum(phases.values())
    figures = {
        "jobs": JOBS,
        "phases_s": phases,
        "sum_s": round(summed, 3),
        "wall_s": round(wall_s, 3),
        "ratio": round(wall_s / summed, 2),
        "reads": round((after[0] - before[0]) / size_bytes / JOBS, 2),
        "writes": round((after[1] - before[1]) / size_bytes / JOBS, 2),
    }
    return {**figures, "faults": _faults(results, figures, checksum)}


def _task() -> TaskSpec:
    return TaskSpec(
        task_id=1,
        stage="copy",
        workflow_id=1,
        step=StepSpec(_TOOL, (StepInput("file"),), (OutputPort("copy", "File"),)),
        resources=Resources(),
        retry=0,
        tool_digest="",
        fixed={},
        refs={},
        targets={"copy": OutputTarget(1, "copies", 2), "log": OutputTarget(2, "logs", 2)},
    )


def _faults(results: list[JobResult], figures: dict[str, Any], checksum: str) -> list[str]:
    faults = []
    for result in results:
        if result.outcome is not Outcome.FINISHED:
            faults.append(f"overlap: job {result.job_id} is {result.outcome}: {result.message}")
        elif [file.checksum for file in result.files] != [checksum]:
            faults.append(f"overlap: job {result.job_id} stored something else")
    # One read verifies the input, one is for the output's checksum.
    if figures["reads"] > 2.02 or figures["writes"] > 0.02:
        faults.append(
            f"overlap: a job reads {figures['reads']:.2f} and writes {figures['writes']:.2f} "
            "files; 2.00 and 0.00 would do"
        )
    return faults
