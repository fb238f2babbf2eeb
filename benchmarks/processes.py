"""CPU time of processes with all that they started, read from /proc."""

import os
from collections.abc import Mapping
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_by_tree(roots: Mapping[str, int]) -> dict[str, float]:
    """Seconds of CPU, by name, that a process used with all its descendants so far.

    Living descendants count with what they used themselves and what they have waited for, so
    nothing is lost when one ends. Fields 4 and 14 to 17 of /proc/<pid>/stat; see proc(5).
    """
    parents: dict[int, int] = {}
    used: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(entry.name)] = int(fields[1])
        used[int(entry.name)] = sum(int(ticks) for ticks in fields[11:15]) / _TICKS
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)

    def total(pid: int) -> float:
        return used.get(pid, 0.0) + sum(total(child) for child in children.get(pid, ()))

    return {name: total(pid) for name, pid in roots.items()}


def between(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What was used meanwhile, by name."""
    return {name: after[name] - before.get(name, 0.0) for name in after}


def io_bytes() -> tuple[int, int]:
    """Bytes read from and written to files, by system calls, so far.

    By all threads of this process that ever were, and by children it has waited for: see proc(5).
    """
    return _io(Path("/proc/self"))


def threads_io_bytes() -> tuple[int, int]:
    """As `io_bytes`, but by the threads that live now, and by no child."""
    found = [_io(task) for task in Path("/proc/self/task").iterdir()]
    return sum(reads for reads, _ in found), sum(writes for _, writes in found)


def _io(folder: Path) -> tuple[int, int]:
    lines = dict(line.split(": ") for line in (folder / "io").read_text().splitlines())
    return int(lines["rchar"]), int(lines["wchar"])
