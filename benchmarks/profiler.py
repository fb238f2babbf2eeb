"""Where CPU time goes inside a pilot: stacks that py-spy samples, by what they are doing.

A thread that waits for another's lock looks busy to py-spy, so stacks that end in a wait are left
out, and what is left is scaled to the CPU time that the kernel counted.
"""

import linecache
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

PROGRAMS = (b"prefect.engine", b"workers.slotprocess", b"workers/reaper.py")
"""What the processes of a flow run call themselves."""
RATE = 200
"""Samples a second."""

PARTS: tuple[tuple[str, str], ...] = (
    ("start of a pilot: imports", r"<frozen importlib"),
    ("process creation and reaping", r"workers/(cwl/process|reapers?)\.py|subprocess\.py"),
    ("messages between processes", r"workers/(messages|crew|slotprocess)\.py"),
    ("checksums", r"catalog/checksums\.py"),
    ("expressions and outputs", r"workers/cwl/(expressions|javascript|outputs|findings)\.py"),
    ("tokens of the node", r"workers/slots\.py"),
    ("file system: work directory", r"shutil\.py|pathlib\.py|workers/cwl/staging\.py"),
    ("file system: storages", r"catalog/drivers/|workers/stageout\.py|workers/stagein\.py"),
    ("catalog: commits", r"flows/shift/committer\.py|catalog/completion\.py"),
    ("catalog: leases, heartbeats", r"catalog/(attempts|jobs)\.py|flows/shift/heart\.py"),
    ("Prefect's client and mapping", r"site-packages/prefect/|flows/taskrunner\.py"),
    ("the job itself", r"workers/job\.py|workers/cwl/|workers/prepare\.py"),
    ("the shift", r"flows/shift/"),
)  # fmt: skip
"""A stack belongs to the first part that one of its frames matches, the innermost frame first."""

_WAITS = re.compile(
    r"/(threading|queue|selectors|concurrent/futures/(thread|_base))\.py:\d+\)$"
    r"|^_reader_loop \(.*/prefect/|heartbeat_loop \(.*/prefect/"
)
"""The innermost frame of a thread that waits."""
_FRAME = re.compile(r"\((?P<path>.*):(?P<line>\d+)\)$")
_WAITING_CALLS = ("socket.recv(", "sock.recvmsg(", "poll.poll(")
"""What the line of such a frame calls, in code of ours that waits for another process."""


class Profiler:
    """Samples every flow run's process while it is there. Use as a context manager."""

    def __init__(self, roots: Mapping[str, int], wanted: bool) -> None:
        self._root = roots.get("worker-cpu")
        self._program = shutil.which("py-spy", path=str(Path(sys.executable).parent))
        self._wanted = wanted and self._program is not None
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "Profiler":
        """Make room for what is sampled."""
        self._folder = tempfile.TemporaryDirectory(prefix="spdf-stacks-")
        return self

    def __exit__(self, *_: object) -> None:
        """End what still samples."""
        for process in self._running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in self._running.values():
            process.wait(30)
        self._stacks = self._read()
        self._folder.cleanup()

    def look(self) -> None:
        """Begin to sample pilots that have begun since."""
        if not self._wanted or self._root is None:
            return
        for pid in _pilots(self._root):
            if pid not in self._running:
                self._running[pid] = self._sample(pid)

    def _sample(self, pid: int) -> subprocess.Popen[bytes]:
        assert self._program is not None
        return subprocess.Popen(
            [
                self._program, "record", "--pid", str(pid), "--format", "raw", "--full-filenames",
                "--rate", str(RATE), "--output", f"{self._folder.name}/{pid}",
                "--duration", "100000",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def _read(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for path in Path(self._folder.name).iterdir():
            for line in path.read_text().splitlines():
                stack, _, count = line.rpartition(" ")
                found[stack] += int(count)
        return found

    def parts(self, cpu_ms: float) -> dict[str, float]:
        """Shares of the pilots' CPU milliseconds per job, by part, the largest first."""
        counts: Counter[str] = Counter()
        for stack, count in self._stacks.items():
            if not is_wait(stack.rpartition(";")[2]):
                counts[part_of(stack)] += count
        total = counts.total()
        return {name: round(cpu_ms * count / total, 3) for name, count in counts.most_common()}


def is_wait(frame: str) -> bool:
    """Whether a thread whose innermost frame is this one waits for another."""
    if _WAITS.search(frame):
        return True
    place = _FRAME.search(frame)
    line = linecache.getline(place["path"], int(place["line"])) if place else ""
    return any(call in line for call in _WAITING_CALLS)


def part_of(stack: str) -> str:
    """The part that a stack (frames from the outermost, by `;`) belongs to."""
    for frame in reversed(stack.split(";")):
        for name, pattern in PARTS:
            if re.search(pattern, frame):
                return name
    return "other"


def _pilots(root: int) -> list[int]:
    """Processes of flow runs below a worker, at any depth."""
    parents, found = {}, []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        parents[int(entry.name)] = parent
        if any(program in command for program in PROGRAMS):
            found.append(int(entry.name))
    return [pid for pid in found if _is_below(root, pid, parents)]


def _is_below(root: int, pid: int, parents: Mapping[int, int]) -> bool:
    while pid in parents:
        pid = parents[pid]
        if pid == root:
            return True
    return False
