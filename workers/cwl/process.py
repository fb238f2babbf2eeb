"""Running a payload: below a reaper of its own, its limits, its end, and nothing left of it."""

import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from catalog.errors import ErrorCode
from workers.cwl.failures import NotEnded, ToolFailure, ToolStopped, bad_input
from workers.cwl.faults import of_node
from workers.reaper import Found
from workers.reapers import Ending, NotStarted, ReaperLost, Reapers

_TICK_S = 0.2
"""How soon a stop is heard; the payload's own end is heard at once."""
_MOST_NAMED = 5


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
    """How a payload ended, and what it and all that it started used.

    A negative `exit_code` is a signal's number. `peak_rss_bytes` is 0 where it was below that of a
    reaper, some 10 MB, and the payload was too short to be looked at.
    """

    exit_code: int
    cpu_s: float
    peak_rss_bytes: int
    out_of_memory: bool = False


def run_command(
    command: Command,
    reapers: Reapers,
    stop: threading.Event | None = None,
    look: Callable[[], None] | None = None,
) -> Ended:
    """Run a command to its end, which is that of all processes that came of it.

    `look` is called now and then meanwhile. Raises `ToolFailure` (PROGRAM_NOT_FOUND, TIME_LIMIT,
    REAPER_LOST), `NotEnded`, and, when `stop` is set, `ToolStopped`.
    """
    if stop is not None and stop.is_set():
        raise ToolStopped
    watch = _Watch(command.time_limit_s, stop, look)
    ending = _run(command, reapers, watch)
    cpu_s, peak = ending.cpu_s, ending.peak_rss_bytes
    if ending.left or ending.status is None:
        raise NotEnded(ErrorCode.PAYLOAD_REMAINS, _remaining(ending.left), cpu_s, peak)
    exit_code = os.waitstatus_to_exitcode(ending.status)
    if watch.stopped:
        raise ToolStopped(cpu_s, peak)
    if watch.too_long:
        raise ToolFailure(
            ErrorCode.TIME_LIMIT,
            f"the payload ran longer than its limit of {command.time_limit_s:g} s and was killed",
            exit_code=exit_code,
            cpu_s=cpu_s,
            peak_rss_bytes=peak,
        )
    return Ended(exit_code, cpu_s, peak)


def _run(command: Command, reapers: Reapers, watch: "_Watch") -> Ending:
    words = [str(word) for word in command.argv]
    order = (_find(command), words, dict(command.environment), command.cwd)
    files: list[int] = []
    try:
        streams = _streams(command, files)
        return reapers.run(order, (*streams, *command.keep), watch.more_s)
    except ReaperLost as fault:
        if fault.left:
            raise NotEnded(ErrorCode.PAYLOAD_REMAINS, _remaining(fault.left)) from fault
        raise ToolFailure(
            ErrorCode.REAPER_LOST,
            "the process that the payload ran below was killed, so the payload was, too",
        ) from fault
    except NotStarted as error:
        raise _start_failure(command, error) from error
    finally:
        for file in files:
            os.close(file)


def _streams(command: Command, files: list[int]) -> tuple[int, int, int]:
    """The files of stdin, stdout and stderr, opened; all are added to `files`."""
    try:
        stdin = _open(command.stdin or os.devnull, os.O_RDONLY, files)
    except OSError as error:
        if of_node(error) is not None:
            raise
        raise bad_input(f"stdin can't be read: {error}") from error
    log = _open(command.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, files)
    stdout = log if command.stdout is None else _create(command.stdout, files)
    if command.stderr is None:
        return stdin, stdout, log
    if command.stderr == command.stdout:
        return stdin, stdout, stdout
    return stdin, stdout, _create(command.stderr, files)


def _remaining(left: Found) -> str:
    names = ", ".join(f"{name} ({pid})" for pid, name in left[:_MOST_NAMED])
    return (
        f"processes of the payload can't be ended on this node: {names or 'the payload itself'}; "
        "nothing of the job was kept. Does the program start others as another user, or wait for "
        "a file system that doesn't answer?"
    )


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


def _start_failure(command: Command, error: NotStarted) -> ToolFailure:
    if not error.errno:
        return bad_input(
            f"the command line or environment of {command.argv[0]!r} holds a text that no program "
            f"can be given: {error.strerror}"
        )
    if error.errno == errno.E2BIG:
        return bad_input(
            f"the command line of {command.argv[0]!r} is longer than the system allows; pass the "
            "files by a list file"
        )
    if (code := of_node(error)) is not None:
        return ToolFailure(code, f"the node can't start a payload: {error.strerror}")
    if error.errno == errno.ETXTBSY:
        return ToolFailure(
            ErrorCode.PROGRAM_BUSY,
            f"program {command.argv[0]!r} is being written to: {error.strerror}",
        )
    return ToolFailure(
        ErrorCode.PROGRAM_NOT_FOUND,
        f"program {command.argv[0]!r} can't be started: {error.strerror}",
    )


class _Watch:
    """Says how long a payload may go on, and looks around meanwhile."""

    def __init__(
        self,
        limit_s: float | None,
        stop: threading.Event | None,
        look: Callable[[], None] | None,
    ) -> None:
        self._stop, self._look = stop, look
        self._deadline = None if limit_s is None else time.monotonic() + limit_s
        self.stopped = self.too_long = False

    def more_s(self) -> float:
        """How long to wait for the payload's end before this is asked again; 0: no longer."""
        if self._stop is not None and self._stop.is_set():
            self.stopped = True
            return 0.0
        if self._look is not None:
            self._look()
        if self._deadline is None:
            return _TICK_S
        left_s = self._deadline - time.monotonic()
        self.too_long = left_s <= 0
        return min(_TICK_S, max(0.0, left_s))
