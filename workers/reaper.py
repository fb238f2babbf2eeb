"""The process below which payloads run, one at a time, and which ends all that they started.

`python -I -S reaper.py DESCRIPTOR`, started by `workers.reapers`; it imports nothing of ours, so it
is small and soon there. It is a subreaper (prctl(2)): a process whose parent died becomes a child
of it, whatever session or group it is in and whatever descriptors it closed. Where the other end of
its connection is gone, it ends what runs below it, and then itself.
"""

# Paths are plain strings here: pathlib alone would take as long as the rest.
# ruff: noqa: PTH123, PTH208

import ctypes
import errno
import marshal
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

Order = tuple[str, list[str], dict[str, str], str]
"""A program's path, its arguments, its environment and its directory."""
Found = list[tuple[int, str]]
"""Processes: their numbers and names."""

NOT_STARTED, ENDED = "not started", "ended"

_MOST_FILES = 253
"""As many as a message may carry; see unix(7)."""
_TICK_MS = 200
_END_S = 10.0
_AGAIN_S = 1.0
_KIB = 1024
_SET_CHILD_SUBREAPER = 36
_LENGTH = struct.Struct("=Q")


def send(end: socket.socket, message: Any, files: Iterable[int] = ()) -> None:
    """Send one message, with descriptors for the other side to have. Raises `OSError`."""
    data = marshal.dumps(message)
    socket.send_fds(end, [_LENGTH.pack(len(data))], list(files))
    end.sendall(data)


def receive(end: socket.socket) -> tuple[Any, list[int]]:
    """The next message and the descriptors that came with it.

    Raises `EOFError`, `OSError`, and `TooManyFiles` where not all of the descriptors could come:
    then the message is gone, and the connection as before.
    """
    head, files, flags, _ = socket.recv_fds(end, _LENGTH.size, _MOST_FILES)
    for file in files:
        os.set_inheritable(file, False)
    head += _exactly(end, _LENGTH.size - len(head))
    message = marshal.loads(_exactly(end, _LENGTH.unpack(head)[0]))
    if flags & socket.MSG_CTRUNC:
        for file in files:
            os.close(file)
        raise TooManyFiles(errno.EMFILE, os.strerror(errno.EMFILE))
    return message, files


class TooManyFiles(OSError):
    """A process can't have as many descriptors as it was sent."""


def _exactly(end: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        if not (part := end.recv(size)):
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def become_subreaper() -> None:
    """Have processes below this one as children as soon as their parents die. Raises `OSError`."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "a reaper can't be a subreaper on this system")


class Spent:
    """What processes used that were waited for: each counts those that it waited for itself."""

    def __init__(self, leader: int = 0) -> None:
        # What getrusage(2) tells would be the peak of whoever started this process, too.
        self._floor = resident_bytes(os.getpid())
        self._leader = leader
        self.status: int | None = None
        """The leader's, as wait(2) gives it."""
        self.cpu_s, self.peak_rss_bytes = 0.0, 0

    def wait(self, pid: int) -> bool:
        """Wait for a child that may have ended, -1 for any; whether one had."""
        try:
            found, status, usage = os.wait4(pid, os.WNOHANG)
        except ChildProcessError:
            return False
        if not found:
            return False
        if found == self._leader:
            self.status = status
        self.cpu_s += usage.ru_utime + usage.ru_stime
        # Until it was another program, a child was as large as this one.
        if (peak := usage.ru_maxrss * _KIB) > self._floor:
            self.saw(peak)
        return True

    def saw(self, resident_bytes: int) -> None:
        """Take a size that a process was seen to have."""
        self.peak_rss_bytes = max(self.peak_rss_bytes, resident_bytes)


def end_below(spent: Spent, spared: frozenset[int], limit_s: float) -> Found:
    """End all processes below this one, but those of `spared` sessions and what is below them.

    All are halted before one is killed: else each death makes room for another fork. Gives those
    that still live after `limit_s`.
    """
    deadline, pause_s = time.monotonic() + limit_s, 0.0005
    killed: set[int] = set()
    while True:
        for pid in (found := _halted(spared, deadline)):
            _send(pid, signal.SIGKILL)
        killed |= found
        killed -= {pid for pid in killed if spent.wait(pid)}
        if not (left := _below(spared)):
            _bury_dead(spent, spared)
            return []
        if time.monotonic() > deadline:
            return list(left.items())
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, 0.05)


def _bury_dead(spent: Spent, spared: frozenset[int]) -> None:
    """Wait for children of this process that died by themselves: nobody else would."""
    own = os.getpid()
    for pid, process in _processes(dead=True):
        if process.parent == own and process.session not in spared:
            spent.wait(pid)


def end_session(session: int, limit_s: float) -> Found:
    """End all processes of a session; gives those that still live after `limit_s`."""
    deadline, pause_s = time.monotonic() + limit_s, 0.0005
    while left := {pid: one for pid, one in _processes() if one.session == session}:
        if time.monotonic() > deadline:
            return [(pid, one.name) for pid, one in left.items()]
        for pid in left:
            _send(pid, signal.SIGKILL)
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, 0.05)
    return []


def _halted(spared: frozenset[int], deadline: float) -> set[int]:
    """The processes below this one, none of which can fork any more."""
    halted: set[int] = set()

    def halt(pid: int) -> None:
        if pid not in halted:
            halted.add(pid)
            _send(pid, signal.SIGSTOP)

    while True:
        before = len(halted)
        for pid in _below(spared, halt):
            halt(pid)
        if len(halted) == before or time.monotonic() > deadline:
            return halted


def _below(spared: frozenset[int], adopted: Callable[[int], None] | None = None) -> dict[int, str]:
    """The processes below this one, and their names.

    The youngest are looked at first, and `adopted` is called at once with a child of this one: so
    it is halted before it can leave a child of its own and die.
    """
    own, seen = os.getpid(), {}
    for pid, process in _processes():
        seen[pid] = process
        if adopted is not None and process.parent == own and process.session not in spared:
            adopted(pid)
    return {pid: seen[pid].name for pid in seen if _is_below(pid, own, spared, seen)}


def _is_below(pid: int, root: int, spared: frozenset[int], seen: Mapping[int, "Process"]) -> bool:
    passed = set()
    while pid in seen and pid not in passed and seen[pid].session not in spared:
        passed.add(pid)  # numbers may have changed hands between two looks
        pid = seen[pid].parent
        if pid == root:
            return True
    return False


class Process(NamedTuple):
    """A process as /proc tells of it; see proc(5)."""

    name: str
    parent: int
    session: int
    started: int
    """In clock ticks since boot."""


def _processes(*, dead: bool = False) -> Iterator[tuple[int, Process]]:
    for pid in sorted((int(name) for name in os.listdir("/proc") if name.isdigit()), reverse=True):
        if (process := look(pid, dead=dead)) is not None:
            yield pid, process


def look(pid: int, *, dead: bool = False) -> Process | None:
    """A process, or None where there is none of that number.

    One that is there but for somebody to wait for it counts only with `dead`.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb", 0) as file:
            stat = file.read(4096)
    except (FileNotFoundError, ProcessLookupError):
        return None
    name, _, rest = stat.partition(b"(")[2].rpartition(b")")
    fields = rest.split()
    if not dead and fields[0] in b"ZX" and int(fields[17]) < 2:
        return None  # with others of its threads at work it would live
    text = name.decode("utf-8", "replace")
    return Process(text, int(fields[1]), int(fields[3]), int(fields[19]))


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass  # gone; or another user's, and then it is seen to live


class _Payload:
    """One payload and all that comes of it."""

    def __init__(self, order: Order, files: Sequence[int]) -> None:
        """Start it, with `files` as its stdin, stdout, stderr and more.

        Raises `OSError`, and `ValueError` on a text that no program can be given.
        """
        program, argv, environment, directory = order
        os.chdir(directory)
        try:
            self._pid = os.posix_spawn(
                program,
                argv,
                environment,
                file_actions=[
                    *((os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(files[:3])),
                    # A copy of itself lets it be inherited.
                    *((os.POSIX_SPAWN_DUP2, fd, fd) for fd in files[3:]),
                ],
                setpgroup=0,
                # Python ignores these, and programs don't expect that.
                setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
            )
        finally:
            os.chdir("/")
        self.spent = Spent(self._pid)

    def until_end(self, control: socket.socket) -> None:
        """Wait until it ends, or the other side says so or is gone."""
        descriptor = os.pidfd_open(self._pid)
        try:
            poll = select.poll()
            for one in (descriptor, control.fileno()):
                poll.register(one, select.POLLIN)
            while not poll.poll(_TICK_MS):
                self.spent.saw(resident_bytes(self._pid))
        finally:
            os.close(descriptor)

    def end(self) -> Found:
        """End what is left of it; gives what can't be ended."""
        self.spent.wait(self._pid)
        try:
            # Children of the dead are ours before the death is told: where none is, nothing is.
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return []
        left = end_below(self.spent, frozenset(), _END_S)
        while self.spent.wait(-1):
            pass
        return left


def resident_bytes(pid: int) -> int:
    """The largest resident size that a process has had so far; 0 where it can't be told."""
    try:
        with open(f"/proc/{pid}/status", "rb", 0) as file:
            text = file.read(8192)
    except OSError:
        return 0
    rest = text.partition(b"VmHWM:")[2]
    return int(rest.split()[0]) * _KIB if rest else 0


def serve(control: socket.socket) -> None:
    """Run payloads until the other side is gone, or until one can't be ended."""
    left: Found = []
    while not left:
        try:
            order, files = receive(control)
        except TooManyFiles as error:
            # Without its own a payload would write to this process's.
            _answer(control, (NOT_STARTED, error.errno, error.strerror))
            continue
        except (EOFError, OSError):
            return
        if order is None:
            continue  # told to end what had ended
        left = _run(order, files, control)
        if not left:
            for file in files:
                os.close(file)
    while end_below(Spent(), frozenset(), _AGAIN_S):
        time.sleep(_AGAIN_S)


def _run(order: Order, files: Sequence[int], control: socket.socket) -> Found:
    """Run one payload and tell of its end; gives what can't be ended."""
    left: Found = []
    answer: tuple[object, ...]
    try:
        payload = _Payload(order, files)
    except OSError as error:
        answer = (NOT_STARTED, error.errno, error.strerror)
    except ValueError as error:
        answer = (NOT_STARTED, 0, str(error))
    else:
        payload.until_end(control)
        left, spent = payload.end(), payload.spent
        answer = (ENDED, spent.status, spent.cpu_s, spent.peak_rss_bytes, left)
    _answer(control, answer)
    return left


def _answer(control: socket.socket, answer: tuple[object, ...]) -> None:
    try:
        send(control, answer)
    except OSError:
        pass


def main() -> None:
    """Serve the other end of the descriptor that is named."""
    # Programs inherit that a signal is ignored, but no handlers.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    become_subreaper()
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    serve(control)


if __name__ == "__main__":
    main()
