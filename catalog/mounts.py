"""Mounts of this machine: which folder of which device is seen where, bind mounts too."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_TABLE = Path("/proc/self/mountinfo")
_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    """The folder (or file) `root` of a device, as it is seen at `point`."""

    device: str
    root: PurePosixPath
    point: PurePosixPath


class Mounts:
    """All mounts that can be seen, as they are when this is made, or as a `table` has them.

    Nothing is asked of what is mounted: who looks here never waits for a server.
    """

    def __init__(self, table: str | None = None) -> None:
        self._by_point = {m.point: m for m in _seen(_read() if table is None else table)}

    def of(self, path: PurePosixPath) -> tuple[str, PurePosixPath]:
        """The device that a real path is on, and where it is there, whatever is mounted how."""
        for point in (path, *path.parents):
            if (mount := self._by_point.get(point)) is not None:
                return mount.device, mount.root / path.relative_to(point)
        return "", path

    def below(self, path: PurePosixPath) -> list[Mount]:
        """What is mounted somewhere below a real path."""
        return [
            m for m in self._by_point.values() if m.point != path and m.point.is_relative_to(path)
        ]


def _read() -> str:
    try:
        return _TABLE.read_text(errors="surrogateescape")
    except OSError:
        return ""


def _seen(table: str) -> Iterator[Mount]:
    """The mounts of a table, see proc_pid_mountinfo(5), but for those that others lie over."""
    rows: dict[str, tuple[str, Mount]] = {}
    for line in table.splitlines():
        key, parent, device, root, point, *_ = line.split(" ")
        mount = Mount(device, PurePosixPath(_plain(root)), PurePosixPath(_plain(point)))
        rows[key] = ("" if parent == key else parent), mount
    points: dict[str, set[PurePosixPath]] = {}
    for parent, mount in rows.values():
        points.setdefault(parent, set()).add(mount.point)
    under = {k for k, (p, m) in rows.items() if not points[p].isdisjoint(m.point.parents)}
    for key, (_, mount) in rows.items():
        above = key
        while above in rows and above not in under:
            above = rows[above][0]
        is_whole_hidden = mount.point in points.get(key, ())
        if above not in under and not is_whole_hidden:
            yield mount


def _plain(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), text)
