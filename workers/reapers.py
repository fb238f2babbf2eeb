"""The reapers of a process that runs payloads: as many as payloads ran at once, used again."""

import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from workers import reaper
from workers.reaper import Found, Order

log = logging.getLogger(__name__)

_DEATH_S = 15.0
"""How long an answer is waited for where all was to be ended at once."""
_BURIAL_S = 10.0


@dataclass(frozen=True)
class Ending:
    """How a payload ended, and what it and all that it started used.

    `status` is as wait(2) gives it, None where the payload itself can't be ended; `left` names the
    processes that can't be.
    """

    status: int | None
    cpu_s: float
    peak_rss_bytes: int
    left: Found


class NotStarted(OSError):
    """A program could not be started; `errno` is 0 where a text is none that it can be given."""


class ReaperLost(Exception):
    """A reaper is dead before its payload's end was told; `left` of it can't be ended."""

    def __init__(self, left: Found) -> None:
        self.left = left
        super().__init__("a reaper is dead")


class Reapers:
    """Runs payloads below reapers; `started` is called with the process number of each.

    Of several threads, each has a reaper of its own while its payload runs: else nobody could tell
    whose payload an orphan is of.
    """

    def __init__(self, started: Callable[[int], None] = lambda pid: None) -> None:
        self._started = started
        self._free: deque[_Reaper] = deque()
        self._all: list[_Reaper] = []
        self._lock = threading.Lock()

    def run(self, order: Order, files: Sequence[int], more_s: Callable[[], float]) -> Ending:
        """Run a payload to its end, with `files` as its stdin, stdout, stderr and more.

        `more_s` is asked again and again how long to wait for that; 0 ends it. Raises `NotStarted`,
        `ReaperLost`, and `OSError` where there can be no reaper.
        """
        one = self._start(order, files)
        try:
            while (ending := one.wait(limit_s := more_s())) is None and limit_s > 0:
                pass
            return ending or one.stop()
        except _Silence:
            raise ReaperLost(self._bury(one)) from None
        except NotStarted:
            raise
        except BaseException:
            with suppress(_Silence):
                one.stop()
            raise
        finally:
            if one.busy:
                # It ends with the last of what runs below it.
                one.let_go()
            else:
                self._free.append(one)

    def close(self) -> None:
        """End those that are free; the others end by themselves."""
        for one in self._all:
            one.let_go()
        for one in self._all:
            one.has_ended(0.0 if one.busy else _DEATH_S)

    def _start(self, order: Order, files: Sequence[int]) -> "_Reaper":
        while True:
            try:
                one = self._free.pop()
            except IndexError:
                return self._started_anew(order, files)
            try:
                one.start(order, files)
                return one
            except OSError:  # killed while it had nothing to do
                one.let_go()

    def _started_anew(self, order: Order, files: Sequence[int]) -> "_Reaper":
        one = self._make()
        try:
            self._started(one.pid)
            one.start(order, files)
        except BaseException:
            one.let_go()  # or each try would leave one that has nothing to do
            raise
        return one

    def _make(self) -> "_Reaper":
        with self._lock:
            self._all = [one for one in self._all if not one.has_ended()]
            one = _Reaper()
            self._all.append(one)
        return one

    def _bury(self, lost: "_Reaper") -> Found:
        """End what ran below a reaper that is dead, or doesn't answer; gives what can't be.

        What left its session is ours, where this process is a subreaper: no other children of it
        are of sessions of their own.
        """
        lost.die()
        try:
            with self._lock:
                known = {one.pid for one in self._all if one is not lost and not one.has_ended()}
                spared = frozenset({os.getsid(0), *known})
                left = reaper.end_below(reaper.Spent(), spared, _BURIAL_S)
                return left or reaper.end_session(lost.pid, _BURIAL_S)
        except OSError as error:
            # A node without files to open can't see its processes: they may be there or not.
            log.warning("processes of a payload may be left", extra={"fault": str(error)})
            return [(lost.pid, "a process")]


class _Silence(Exception):
    """A reaper is dead, or doesn't answer."""


class _Reaper:
    """One of them, and whether it is at work."""

    def __init__(self) -> None:
        self._end, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", reaper.__file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )
        self.pid, self.busy = self._process.pid, False
        self._poll = select.poll()
        self._poll.register(self._end, select.POLLIN)

    def start(self, order: Order, files: Sequence[int]) -> None:
        """Have a program run. Raises `OSError` where the reaper is dead."""
        reaper.send(self._end, order, files)
        self.busy = True

    def wait(self, limit_s: float) -> Ending | None:
        """The payload's end; None if it doesn't come in time. Raises `NotStarted`, `_Silence`."""
        if not self._poll.poll(limit_s * 1000):
            return None
        try:
            (word, *what), _ = reaper.receive(self._end)
        except (EOFError, OSError):
            raise _Silence from None
        if word == reaper.NOT_STARTED:
            self.busy = False
            raise NotStarted(*what)
        ending = Ending(*what)
        self.busy = bool(ending.left)
        return ending

    def stop(self) -> Ending:
        """Have the payload end at once. Raises `_Silence`."""
        with suppress(OSError):
            reaper.send(self._end, None)
        if (ending := self.wait(_DEATH_S)) is None:
            raise _Silence
        return ending

    def let_go(self) -> None:
        """Leave it to itself: it ends with the last of what runs below it."""
        self._end.close()

    def die(self) -> None:
        """End it before its time."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def has_ended(self, limit_s: float = 0.0) -> bool:
        """Whether it has ended, or does in time."""
        try:
            self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return False
        return True
