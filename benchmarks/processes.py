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
