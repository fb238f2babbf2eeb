"""Steps that move a file: what each costs us, beside a plain program that does as much."""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.processes import io_bytes

GIB = 2**30


@dataclass(frozen=True)
class Step:
    """One step: `ours` gives the checksum that it computed, None where it computes none.

    `ready` runs before each, unmeasured. `reads` and `writes` are the most that ours may cost, in
    files, by system calls on files. `plain` is None where there is nothing to compare with.
    """

    name: str
    ours: Callable[[], str | None]
    plain: Callable[[], object] | None
    ready: Callable[[], object]
    reads: float
    writes: float


@dataclass(frozen=True)
class _Cost:
    wall_s: float
    cpu_s: float
    reads: float
    writes: float
    checksum: Any


def measure(step: Step, size_bytes: int, checksums: set[str], rounds: int) -> dict[str, Any]:
    """Run a step by turns with its plain counterpart; medians, and what is wrong of it.

    `checksums` are those that the file has.
    """
    ours: list[_Cost] = []
    plain: list[_Cost] = []
    for _ in range(rounds):
        if step.plain is not None:
            step.ready()
            plain.append(_cost(step.plain, size_bytes))
        step.ready()
        ours.append(_cost(step.ours, size_bytes))
    row = {"step": step.name, **_medians(ours, size_bytes)}
    row["reads"] = max(cost.reads for cost in ours)
    row["writes"] = max(cost.writes for cost in ours)
    row["plain"] = _medians(plain, size_bytes) if plain else None
    pairs = [a.wall_s / b.wall_s for a, b in zip(ours, plain, strict=False)]
    row["ratio"] = round(statistics.median(pairs), 2) if pairs else None
    row["faults"] = _faults(step, row, {cost.checksum for cost in ours} - {None} - checksums)
    return row


def _cost(call: Callable[[], object], size_bytes: int) -> _Cost:
    io, cpu, begun = io_bytes(), _cpu_s(), time.perf_counter()
    result = call()
    wall_s, used, after = time.perf_counter() - begun, _cpu_s() - cpu, io_bytes()
    reads, writes = ((b - a) / size_bytes for a, b in zip(io, after, strict=True))
    return _Cost(wall_s, used, round(reads, 2), round(writes, 2), result)


def _cpu_s() -> float:
    return sum(os.times()[:4])


def _medians(costs: list[_Cost], size_bytes: int) -> dict[str, Any]:
    wall_s = statistics.median(cost.wall_s for cost in costs)
    return {
        "wall_s": round(wall_s, 3),
        "gib_per_s": round(size_bytes / GIB / wall_s, 2),
        "cpu_s": round(statistics.median(cost.cpu_s for cost in costs), 2),
    }


def _faults(step: Step, row: dict[str, Any], wrong: set[Any]) -> list[str]:
    faults = [f"{step.name}: the checksum {text} is wrong" for text in sorted(map(str, wrong))]
    for what, most in (("reads", step.reads), ("writes", step.writes)):
        if row[what] > most + 0.02:
            faults.append(f"{step.name}: {what} {row[what]:.2f} files, {most:.2f} would do")
    return faults


def remove(*paths: Path) -> None:
    """Remove files, if they are there."""
    for path in paths:
        path.unlink(missing_ok=True)
