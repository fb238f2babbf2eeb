"""What a container uses, from its control group."""

import os
from pathlib import Path

from workers.reaper import resident_bytes

_ROOT = Path("/sys/fs/cgroup")
_CONTROLLERS = ("", "cpuacct", "cpu,cpuacct")
"""Control groups of version 2, and where version 1 counts CPU time."""


class Meter:
    """CPU time and peak memory of a container as last looked at; 0 where they can't be told."""

    def __init__(self, container_id: str) -> None:
        self._places = [
            _ROOT / controller / place
            for controller in _CONTROLLERS
            for place in _places(container_id)
        ]
        self._group: Path | None = None
        self.cpu_s, self.peak_rss_bytes = 0.0, 0

    def look(self) -> None:
        """Look at the group, if it is there."""
        if self._group is None:
            self._group = next((one for one in self._places if one.is_dir()), None)
        if self._group is None:
            return
        try:
            self.cpu_s = max(self.cpu_s, _cpu_s(self._group))
            processes = (self._group / "cgroup.procs").read_text().split()
        except (OSError, ValueError):
            return
        peaks = (resident_bytes(int(pid)) for pid in processes)
        self.peak_rss_bytes = max(self.peak_rss_bytes, *peaks, 0)


def _places(container_id: str) -> tuple[str, ...]:
    user = f"user.slice/user-{os.getuid()}.slice/user@{os.getuid()}.service/user.slice"
    return (
        f"docker/{container_id}",
        f"system.slice/docker-{container_id}.scope",
        f"machine.slice/libpod-{container_id}.scope",
        f"{user}/libpod-{container_id}.scope",
        f"libpod_parent/libpod-{container_id}",
    )


def _cpu_s(group: Path) -> float:
    """CPU time of a group: version 1 counts nanoseconds, version 2 microseconds."""
    old = group / "cpuacct.usage"
    if old.exists():
        return int(old.read_text()) / 1e9
    fields = (group / "cpu.stat").read_text().split()
    return int(fields[fields.index("usage_usec") + 1]) / 1e6
