"""CPU time of the services of a profile, read from /proc."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class CpuTime:
    """Seconds of CPU: `own` of a process, `children` of those it has waited for."""

    own: float
    children: float

    @property
    def total(self) -> float:
        """Both together."""
        return self.own + self.children

    def __sub__(self, other: "CpuTime") -> "CpuTime":
        return CpuTime(self.own - other.own, self.children - other.children)


def cpu_time(pid: int) -> CpuTime:
    """What a process has used so far; fields 14 to 17 of /proc/<pid>/stat, see proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system, child_user, child_system = (int(n) / _TICKS for n in fields[11:15])
    return CpuTime(user + system, child_user + child_system)


def snapshot(pids: Mapping[str, int]) -> dict[str, CpuTime]:
    """The CPU time of several processes by name."""
    return {name: cpu_time(pid) for name, pid in pids.items()}
