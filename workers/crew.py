"""The crew of a pilot: processes that run its jobs, so that they don't wait for each other.

Threads of one Python take turns at every step of a short job. `workers.slotprocess` is what the
processes do.
"""

import logging
import math
import select
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any

from catalog.errors import ErrorCode, StorageError, Unavailable
from catalog.refs import StorageTrouble
from catalog.states import Phase
from workers.job import RunningJob, lost, stopped, unprepared
from workers.messages import Channel, NotWritten, connection
from workers.slotprocess import (
    ASK,
    DIED,
    FAULT,
    PHASE,
    RESULT,
    STOP,
    TAKEN,
    THREADS,
    TROUBLE,
    Plan,
)
from workers.spec import JobResult
from workers.taken import Key

log = logging.getLogger(__name__)

MOST_PROCESSES = 8
"""More jobs at once share processes: then they are not short."""
_GATHER_S = 0.02
"""Ends that come within this time are taken together."""
_END_S = 20.0
_DOUBT_S = 1.0
"""A process that has read a job says so in the table long before."""


def processes_for(slots: int) -> int:
    """How many processes run the jobs of so many slots."""
    return min(slots, MOST_PROCESSES)


def threads_for(jobs: int, processes: int) -> int:
    """How many threads each process needs to run so many jobs at once."""
    return math.ceil(jobs / processes)


class Unready(StorageError):
    """The task can't be made ready on this node."""

    def __init__(self, code: ErrorCode, message: str, storage_id: int | None) -> None:
        super().__init__(code, message)
        self.storage_id = storage_id


class CrewLost(Unavailable):
    """The processes of a pilot could not be started, or are gone: it can't go on."""


class Crew:
    """The processes of one pilot. `ended` is called with each job's end, in a thread of ours.

    One that dies loses what it had in hand, and is replaced. `troubled` is called with storages
    that a job found to be out and waits for.
    """

    def __init__(
        self,
        plan: Plan,
        held: int,
        ended: Callable[[JobResult], None],
        troubled: Callable[[StorageTrouble], None] = lambda trouble: None,
    ) -> None:
        self._ended, self._troubled = ended, troubled
        self._doubtful: set[Key] = set()
        self._doubt_since = 0.0
        self._lock = threading.Lock()
        self._waiting: deque[RunningJob] = deque()
        self._out: dict[Key, tuple[RunningJob, Future[JobResult]]] = {}
        self._processes = plan.processes
        self._threads = 1
        self._fault: str | None = None
        self._closing = False
        control, work, ends = connection(), connection(), connection()
        theirs = [pair[1].fileno() for pair in (control, work, ends)]
        words = [sys.executable, "-m", "workers.slotprocess", *map(str, (*theirs, held))]
        self._process = subprocess.Popen(words, pass_fds=(*theirs, held), stdin=subprocess.DEVNULL)
        self._control, self._jobs, self._results = (
            Channel(pair[0], plan.directory) for pair in (control, work, ends)
        )
        self._recalled = Channel(work[1], plan.directory)
        """The readers' end of the jobs: what lies there has not begun."""
        control[1].close()
        ends[1].close()
        self._plan = plan
        self._reader = threading.Thread(target=self._read, name="crew", daemon=True)

    def prepare(self) -> None:
        """Wait until the task is ready to be run.

        Raises `Unready` where it can't be, `NotWritten` where the node's disk has no room to say
        what is to be made ready, `CrewLost` where none of these is why.
        """
        try:
            self._control.send(self._plan)
            word, *what = self._control.receive()
        except NotWritten:
            raise
        except (EOFError, OSError):
            raise CrewLost("the processes that run its jobs could not be started.") from None
        if word == FAULT:
            raise Unready(*what)
        self._reader.start()

    @property
    def fault(self) -> str | None:
        """What happened to the first process, if it died; then the pilot can't go on."""
        return self._fault

    def resize(self, jobs: int) -> None:
        """Run so many jobs at once."""
        threads = threads_for(jobs, self._processes)
        if threads != self._threads:
            self._threads = threads
            self._tell((THREADS, threads))

    def submit(self, job: RunningJob) -> "Future[JobResult]":
        """Have a job run soon."""
        future: Future[JobResult] = Future()
        with self._lock:
            self._out[_key(job)] = (job, future)
            self._waiting.append(job)
        job.on_stop = partial(self._stop, job)
        if job.stop.is_set():
            self._stop(job)
        self._send_waiting()
        return future

    def recall(self) -> list[RunningJob]:
        """Take back all jobs that have not begun."""
        with self._lock:
            found = [_key(job) for job in self._waiting] + self._unread()
            self._waiting.clear()
            # One that was sent twice may have ended meanwhile.
            back = [self._out.pop(key) for key in found if key in self._out]
        for _, future in back:
            future.cancel()
        return [job for job, _ in back]

    def _unread(self) -> list[Key]:
        """Take back what was sent, and no process has read."""
        found: list[Key] = []
        try:
            while True:
                spec = self._recalled.receive(wait=False)
                found.append((spec.job_id, spec.number))
        except (BlockingIOError, EOFError):
            return found
        except OSError as error:
            self._break(f"a job that was sent can't be read again: {error}")
            return found

    def close(self) -> None:
        """End the processes, and the jobs that they still run."""
        self._closing = True
        for channel in (self._jobs, self._control):
            with suppress(OSError):
                channel.socket.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            log.warning("the processes of the pilot don't end")
            self._process.kill()
            self._process.wait()
        if self._reader.is_alive():
            self._reader.join(_END_S)
        for channel in (self._jobs, self._recalled, self._control, self._results):
            channel.close()

    def _stop(self, job: RunningJob) -> None:
        self._tell((STOP, _key(job), job.draining))

    def _tell(self, message: tuple[Any, ...]) -> None:
        try:
            self._control.send(message)
        except OSError as error:
            self._break(f"they can't be reached: {error}")

    def _break(self, fault: str) -> None:
        if self._fault is None and not self._closing:
            log.error("a slot process is gone", extra={"fault": fault})
            self._fault = fault

    def _send_waiting(self) -> None:
        """Send what there is room for; the rest follows as jobs end."""
        over: list[JobResult] = []
        with self._lock:
            while self._waiting:
                job = self._waiting[0]
                if not job.begin():
                    over.append(stopped(self._waiting.popleft()))
                    continue
                try:
                    self._jobs.send(job.spec, wait=False)
                except BlockingIOError:
                    break
                except NotWritten as error:
                    over.append(unprepared(self._waiting.popleft(), error))
                    continue
                except OSError as error:
                    self._break(f"they can't be reached: {error}")
                    break
                self._waiting.popleft()
        for result in over:
            self._end((result.job_id, result.number), result)

    def _read(self) -> None:
        """Take the ends of jobs, and word of processes that died, until all are gone."""
        poll = select.poll()
        poll.register(self._results.socket, select.POLLIN)
        poll.register(self._control.socket, select.POLLIN)
        rest = threading.Event()
        results = self._results.socket.fileno()
        try:
            while True:
                for descriptor, _ in poll.poll(_DOUBT_S * 1000 if self._doubtful else None):
                    if descriptor == results:
                        self._take_results()
                        self._send_waiting()
                    else:
                        self._take_word()
                if self._doubtful and time.monotonic() - self._doubt_since >= _DOUBT_S:
                    self._doubt_since = time.monotonic()
                    self._tell((ASK,))
                rest.wait(_GATHER_S)
        except EOFError:
            self._break("the first one is gone")
        except Exception as error:
            if not self._closing:
                log.exception("defect in the crew")
            self._break(repr(error))

    def _take_results(self) -> None:
        try:
            while True:
                word, key, what = self._results.receive(wait=False)
                if word == RESULT:
                    self._end(key, what)
                elif word == TROUBLE:
                    self._troubled(what)
                elif word == PHASE and key in self._out:
                    self._out[key][0].phase = what
        except BlockingIOError:
            return

    def _end(self, key: Key, result: JobResult) -> None:
        with self._lock:
            if key not in self._out:
                return
            job, future = self._out.pop(key)
        job.phase, job.ended = result.phase, True
        self._ended(result)
        future.set_result(result)

    def _take_word(self) -> None:
        word, *what = self._control.receive()
        # What was told before comes first: a job whose end was sent is not lost.
        self._take_results()
        if word == DIED:
            self._bury(*what)
        elif word == TAKEN:
            self._send_again(*what)

    def _bury(self, code: int, in_hand: Mapping[Key, Phase | None], taken: Collection[Key]) -> None:
        """End what a process had in hand that died, and find out what it had only just read."""
        how = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
        log.error("a slot process died", extra={"how": how, "jobs": len(in_hand)})
        for key, phase in in_hand.items():
            if (out := self._out.get(key)) is not None:
                self._end(key, lost(out[0], how, phase))
        with self._lock:
            unread = self._unread()
            unread = [key for key in unread if key in self._out]
            self._waiting.extendleft(self._out[key][0] for key in reversed(unread))
            known = {_key(job) for job in self._waiting} | set(taken)
            self._doubtful |= self._out.keys() - known
        self._doubt_since = time.monotonic()
        self._send_waiting()

    def _send_again(self, taken: Collection[Key]) -> None:
        """Have what nobody took run by another: it was read by a process that died at once."""
        with self._lock:
            gone = (self._doubtful & self._out.keys()) - set(taken)
            self._waiting.extend(self._out[key][0] for key in sorted(gone))
            self._doubtful.clear()
        self._send_waiting()


def _key(job: RunningJob) -> Key:
    return job.spec.job_id, job.spec.number
