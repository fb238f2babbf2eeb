"""The machine that a test runs on: its processes, and waiting for something to come to pass."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

Value = TypeVar("Value")


def until(
    condition: Callable[[], Value], what: str | Callable[[], object], limit_s: float = 60.0
) -> Value:
    """What `condition` gives as soon as it holds; fails where it doesn't within `limit_s`."""
    end = time.monotonic() + limit_s
    while not (value := condition()):
        if time.monotonic() > end:
            missing = what if isinstance(what, str) else what()
            raise AssertionError(f"not within {limit_s:g} s: {missing}")
        time.sleep(0.2)
    return value


@dataclass(frozen=True)
class Process:
    """A process of this machine: `home` is its SPDF_HOME, `cwd` where it works."""

    pid: int
    command: str
    environment: Mapping[str, str]
    cwd: str


def processes() -> list[Process]:
    """What runs now and may be looked at."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = _words(folder / "cmdline")
            environment = dict(word.partition("=")[::2] for word in _words(folder / "environ"))
            cwd = str((folder / "cwd").readlink())
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state not in "ZX":
            found.append(Process(int(folder.name), " ".join(command), environment, cwd))
    return found


def _words(path: Path) -> list[str]:
    return path.read_bytes().decode(errors="replace").rstrip("\0").split("\0")
