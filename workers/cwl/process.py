"""Running a payload: its own process group, its limits, its end, and nothing left of it."""

import errno
import os
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from resource import RUSAGE_SELF, getrusage, struct_rusage

from catalog.errors import ErrorCode
from workers.cwl.failures import ToolFailure, ToolStopped, bad_input

_TICK_S = 0.2
"""How soon a stop is heard; the payload's own end is heard at once."""
_DEATH_S = 10.0
_KIB = 1024


@dataclass(frozen=True)
class Command:
    """What is to be run and where: all that a container engine would need to know too."""

    argv: Sequence[str]
    environment: Mapping[str, str]
    cwd: str
    log: str
    stdin: str | None = None
    stdout: str | None = None
    stderr: str | None = None
    time_limit_s: float | None = None
    keep: Sequence[int] = ()


@dataclass(frozen=True)
class Ended:
    """How a payload ended. A negative `exit_code` is a signal's number.

    `peak_rss_bytes` is 0 where it was below this process's own and the payload was too short to
    be looked at: the kernel counts the parent's peak as the child's until exec.
    """

    exit_code: int
    cpu_s: float
    peak_rss_bytes: int
    out_of_memory: bool = False


def run_command(
    command: Command,
    started: Callable[[int], None] | None = None,
    stop: threading.Event | None = None,
    look: Callable[[], None] | None = None,
) -> Ended:
    """Run a command to its end, then kill what is left of its process group.

    `started` gets the group's id; `look` is called now and then meanwhile. Raises `ToolFailure`
    (PROGRAM_NOT_FOUND, TIME_LIMIT) and, when `stop` is set, `ToolStopped`.
    """
    if stop is not None and stop.is_set():
        raise ToolStopped
    own_peak = getrusage(RUSAGE_SELF).ru_maxrss
    process = _spawn(command)
    watch = _Watch(process.pid, command.time_limit_s, stop, look)
    try:
        if started is not None:
            started(process.pid)
        why = watch.until_end()
    finally:
        # The leader is not yet reaped, so its group's id can't have become another's.
        _kill(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    _await_group(process.pid)
    cpu_s, peak = usage.ru_utime + usage.ru_stime, _peak_bytes(usage, own_peak, watch.sampled)
    if why == "stop":
        raise ToolStopped(cpu_s, peak)
    if why == "time":
        raise ToolFailure(
            ErrorCode.TIME_LIMIT,
            f"the payload ran longer than its limit of {command.time_limit_s:g} s and was killed",
            exit_code=process.returncode,
            cpu_s=cpu_s,
            peak_rss_bytes=peak,
        )
    return Ended(process.returncode, cpu_s, peak)


def _peak_bytes(usage: struct_rusage, own_peak: int, sampled: int) -> int:
    return usage.ru_maxrss * _KIB if usage.ru_maxrss > own_peak else sampled


def _spawn(command: Command) -> subprocess.Popen[bytes]:
    program = _find(command)
    files: list[int] = []
    try:
        stdin = _open(command.stdin or os.devnull, os.O_RDONLY, files)
        log = _open(command.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, files)
        stdout = log if command.stdout is None else _create(command.stdout, files)
        if command.stderr is None:
            stderr = log
        elif command.stderr == command.stdout:
            stderr = stdout
        else:
            stderr = _create(command.stderr, files)
        # Without close_fds Python takes the fast path; its own descriptors are close-on-exec. To
        # pass some on it closes all the others itself.
        return subprocess.Popen(
            command.argv,
            executable=program,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=command.cwd,
            env=command.environment,
            close_fds=bool(command.keep),
            pass_fds=command.keep,
            process_group=0,
        )
    except OSError as error:
        raise _start_failure(command, error) from error
    finally:
        for file in files:
            os.close(file)


def _find(command: Command) -> str:
    name = command.argv[0]
    if "/" in name:
        return os.path.join(command.cwd, name)  # noqa: PTH118 - keeps `./` as it is
    return _in_path(name, command.environment.get("PATH"))


@lru_cache(maxsize=256)
def _in_path(name: str, path: str | None) -> str:
    """The absolute path of a program; only what is found is remembered."""
    program = shutil.which(name, path=path)
    if program is None:
        raise ToolFailure(
            ErrorCode.PROGRAM_NOT_FOUND,
            f"program {name!r} is not in the node's PATH; install it there",
        )
    return program


def _open(path: str, flags: int, files: list[int]) -> int:
    files.append(os.open(path, flags | os.O_CLOEXEC, 0o644))
    return files[-1]


def _create(path: str, files: list[int]) -> int:
    """Open a stream's file anew. An input that is linked under its name is not written over."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    try:
        return _open(path, flags, files)
    except OSError as error:
        if error.errno == errno.ELOOP:
            Path(path).unlink()
        elif error.errno == errno.ENOENT:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        else:
            raise
    return _open(path, flags, files)


def _start_failure(command: Command, error: OSError) -> ToolFailure:
    if error.errno == errno.E2BIG:
        return bad_input(
            f"the command line of {command.argv[0]!r} is longer than the system allows; pass the "
            "files by a list file"
        )
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ToolFailure(ErrorCode.NODE_DISK_FULL, f"the work disk is full: {error}")
    if error.filename is not None and error.filename == command.stdin:
        return bad_input(f"stdin can't be read: {error}")
    return ToolFailure(
        ErrorCode.PROGRAM_NOT_FOUND, f"program {command.argv[0]!r} can't be started: {error}"
    )


class _Watch:
    """Waits for a payload's end, its time limit or a stop, and looks at its memory meanwhile."""

    def __init__(
        self,
        pid: int,
        limit_s: float | None,
        stop: threading.Event | None,
        look: Callable[[], None] | None,
    ) -> None:
        self._pid, self._stop, self._look, self.sampled = pid, stop, look, 0
        self._deadline = None if limit_s is None else time.monotonic() + limit_s

    def until_end(self) -> str:
        """`end`, `time` or `stop`."""
        descriptor = os.pidfd_open(self._pid)
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            while True:
                if poll.poll(self._wait_s() * 1000):
                    return "end"
                if self._stop is not None and self._stop.is_set():
                    return "stop"
                if self._deadline is not None and time.monotonic() >= self._deadline:
                    return "time"
                self.sampled = max(self.sampled, resident_bytes(self._pid))
                if self._look is not None:
                    self._look()
        finally:
            os.close(descriptor)

    def _wait_s(self) -> float:
        if self._deadline is None:
            return _TICK_S
        return min(_TICK_S, max(0.0, self._deadline - time.monotonic()) + 0.001)


def resident_bytes(pid: int) -> int:
    """The largest resident size that the process has had so far; 0 where it can't be told."""
    try:
        text = Path(f"/proc/{pid}/status").read_text("utf-8")
    except OSError:
        return 0
    _, _, rest = text.partition("VmHWM:")
    return int(rest.split()[0]) * _KIB if rest else 0


def _kill(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _await_group(group: int) -> None:
    """Wait until no killed process of the group can write any more."""
    deadline, pause = time.monotonic() + _DEATH_S, 0.0005
    while True:
        try:
            os.killpg(group, 0)
        except (ProcessLookupError, PermissionError):
            return
        if not _alive(group):
            return
        if time.monotonic() > deadline:
            raise ToolFailure(
                ErrorCode.INTERNAL, f"processes of group {group} outlive SIGKILL on this node"
            )
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def _alive(group: int) -> bool:
    """Whether the group has a process that is no zombie (whoever should reap those may be slow)."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] not in "ZX":
                return True
    return False
