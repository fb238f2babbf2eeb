"""Cores, memory and devices of a node as tokens: bytes that its pilots lock in shared files."""

import fcntl
import math
import os
import struct
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from workers.spec import Resources

DEVICE_TOKENS = 64
"""A device is so many tokens, so that up to that many jobs may share it."""

_POLL_S = (0.002, 0.01)
_STOP_S = 0.05
_KEEP_S = 0.2
_LOCK = struct.Struct("hhqqi4x")
"""`struct flock` of 64-bit Linux: type, whence, start, length, pid; see fcntl(2)."""


@dataclass(frozen=True)
class Capacity:
    """What a node offers to jobs; `devices` are the numbers of its GPUs."""

    cores: int
    memory_mib: int
    devices: tuple[int, ...] = ()


@dataclass(frozen=True)
class Grant:
    """The tokens that a job holds: how many cores, and the numbers of its devices.

    They are free when `descriptors` are closed by whoever has them, so a payload that inherits
    them keeps its tokens though its pilot died.
    """

    cores: int
    devices: tuple[int, ...]
    descriptors: tuple[int, ...] = ()
    since: float = 0.0
    """When they were taken, by the monotonic clock."""


class _Ticket:
    """A job of this process that waits for tokens. `woken` is free once it should look again."""

    def __init__(self, need: Resources) -> None:
        self.need = need
        self.grant: Grant | None = None
        self._woken = threading.Semaphore(0)

    def wake(self) -> None:
        self._woken.release()

    def sleep(self, limit_s: float) -> None:
        self._woken.acquire(timeout=limit_s)


class Slots:
    """The tokens of one node, kept as locks on files under `directory`."""

    def __init__(self, directory: Path, capacity: Capacity) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._capacity = capacity
        self._cores, self._memory = directory / "cores", directory / "memory"
        self._devices = {number: directory / f"device-{number}" for number in capacity.devices}
        self._queue: deque[_Ticket] = deque()
        self._lock = threading.Lock()
        self._want = _Want(directory / "wanted")

    def close(self) -> None:
        """Keep no file of the node open; nothing can be taken any more."""
        self._want.close()

    def can_ever(self, need: Resources) -> bool:
        """Whether the node has as many devices as a job needs."""
        return need.devices <= len(self._devices)

    @contextmanager
    def take(self, need: Resources, stop: threading.Event | None = None) -> Iterator[Grant | None]:
        """Wait for the tokens of a job; None where `stop` came first.

        The jobs of one process are served in the order in which they ask. A job that asks for more
        cores or memory than the node has gets all of them: it runs alone.
        """
        grant = self._wait(need, stop)
        try:
            yield grant
        except BaseException:
            if grant is not None:
                # What a payload left that can't be ended may still hold them.
                self._give(grant, None)
            raise
        if grant is not None:
            self._give(grant, need)

    def _wait(self, need: Resources, stop: threading.Event | None) -> Grant | None:
        """Queue up; who is first looks for tokens, which other processes give back unheard."""
        ticket, wait_s = _Ticket(need), _POLL_S[0]
        with self._lock:
            self._queue.append(ticket)
        try:
            while ticket.grant is None:
                with self._lock:
                    first = bool(self._queue) and self._queue[0] is ticket
                if first and (grant := self._try(need)) is not None:
                    return grant
                if stop is not None and stop.is_set():
                    return None
                if first:
                    self._want.say(True)
                ticket.sleep(wait_s if first else _STOP_S)
                wait_s = min(wait_s * 1.5, _POLL_S[1]) if first else wait_s
            handed, ticket.grant = ticket.grant, None
            return handed
        finally:
            self._leave(ticket)

    def _leave(self, ticket: _Ticket) -> None:
        with self._lock:
            if ticket in self._queue:
                self._queue.remove(ticket)
            # Handed over while it found tokens of its own, or was stopped.
            spare = ticket.grant
            if not self._queue:
                self._want.say(False)
            else:
                self._queue[0].wake()
        if spare is not None:
            _close(spare)

    def _give(self, grant: Grant, need: Resources | None) -> None:
        """Hand tokens over to this process's next job that needs just them, or to the node.

        Looking for free tokens costs as much as a short job, so they are kept for a while even
        though other processes wait for some, and for as long as none does.
        """
        kept = time.monotonic() - grant.since < _KEEP_S or not self._want.by_others()
        with self._lock:
            head = self._queue[0] if self._queue else None
            if head is not None and head.need == need and kept:
                self._queue.popleft()
                head.grant = grant
                head.wake()
                return
        _close(grant)
        if head is not None and kept:
            head.wake()

    def _try(self, need: Resources) -> Grant | None:
        """All tokens at once, or none: so no two jobs wait for each other."""
        has = self._capacity
        cores = min(max(1, math.ceil(need.cores)), has.cores)
        memory = min(need.ram_mib, has.memory_mib)
        share = DEVICE_TOKENS // need.jobs_per_device
        with ExitStack() as taken:
            held = [
                _lock(self._cores, has.cores, cores, taken),
                _lock(self._memory, has.memory_mib, memory, taken),
            ]
            numbers: list[int] = []
            for number, path in self._devices.items():
                if len(numbers) == need.devices or None in held:
                    break
                if (got := _lock(path, DEVICE_TOKENS, share, taken)) is not None:
                    held.append(got)
                    numbers.append(number)
            if None in held or len(numbers) < need.devices:
                return None
            taken.pop_all()
            descriptors = tuple(fd for fd in held if fd is not None)
            return Grant(cores, tuple(numbers), descriptors, time.monotonic())


class _Want:
    """Tells other processes that this one waits for tokens: a lock that it shares with them."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.close = weakref.finalize(self, os.close, self._descriptor)
        self._said = False

    def say(self, wanted: bool) -> None:
        """Begin or end to want some; called by one thread at a time."""
        if wanted != self._said:
            kind = fcntl.F_RDLCK if wanted else fcntl.F_UNLCK
            fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, _LOCK.pack(kind, os.SEEK_SET, 0, 1, 0))
            self._said = wanted

    def by_others(self) -> bool:
        """Whether another process wants some."""
        asked = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
        told = fcntl.fcntl(self._descriptor, fcntl.F_OFD_GETLK, asked)
        return bool(_LOCK.unpack(told)[0] != fcntl.F_UNLCK)


def _close(grant: Grant) -> None:
    for descriptor in grant.descriptors:
        os.close(descriptor)


def _lock(path: Path, size: int, count: int, taken: ExitStack) -> int | None:
    """Lock `count` free bytes of the first `size`; gives the descriptor that holds them.

    Locks of an open file description end with its last descriptor, whoever holds it. None, and
    nothing locked, where there are not as many.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        left = _lock_bytes(descriptor, size, count)
    except BaseException:
        os.close(descriptor)  # with what it has locked
        raise
    if left:
        os.close(descriptor)
        return None
    taken.callback(os.close, descriptor)
    return descriptor


def _lock_bytes(descriptor: int, size: int, count: int) -> int:
    """Lock up to `count` free bytes of the first `size`; gives how many there were too few."""
    start, left = 0, count
    while left and start < size:
        busy_at, busy = _first_locked(descriptor, start, size)
        length = min(busy_at - start, left)
        if length and not _try_lock(descriptor, start, length):
            continue
        left -= length
        start = busy_at + busy
    return left


def _first_locked(descriptor: int, start: int, size: int) -> tuple[int, int]:
    """Where another's next lock begins, and its length; (size, 0) where there is none.

    The kernel tells of any lock that is in the way, not of the first: so what lies before it is
    asked for, too.
    """
    busy_at, end = size, size
    while busy_at > start:
        asked = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, busy_at - start, 0)
        told = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked)
        kind, _, begins, length, _ = _LOCK.unpack(told)
        if kind == fcntl.F_UNLCK:
            break
        # Neighbouring locks of one job are told as one, which may begin before `start`.
        busy_at, end = max(begins, start), begins + length
    return busy_at, end - busy_at


def _try_lock(descriptor: int, start: int, length: int) -> bool:
    wanted = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wanted)
    except BlockingIOError:
        return False
    return True
