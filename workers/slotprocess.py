"""The processes that a pilot's jobs run in: `python -m workers.slotprocess`, started by `Crew`.

The first makes the task ready, then forks the others, which so share what it holds, and passes on
what the pilot tells them. They end with the pilot: at the end of its connection they kill their
payloads.
"""

import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from catalog.drivers import Drivers
from catalog.errors import SpdfError, StorageError
from catalog.refs import StorageInfo, StorageTrouble
from catalog.states import Phase
from workers.cwl.containers import Containers
from workers.cwl.faults import code_of, told
from workers.job import RunningJob, run_attempt, untold
from workers.messages import Channel, NotWritten, connection
from workers.node import Node
from workers.orphans import PayloadLedger, living_reapers
from workers.prepare import PreparedTask, prepare
from workers.reaper import Spent, become_subreaper, end_below
from workers.slots import Capacity, Slots
from workers.spec import JobResult, JobSpec, TaskSpec
from workers.taken import Key, Taken

log = logging.getLogger(__name__)

READY, FAULT, DIED, TAKEN = "ready", "fault", "died", "taken"
"""What the pilot is told of the processes, each with a word or two."""
STOP, THREADS, ASK = "stop", "threads", "ask"
"""What it tells them: to stop an attempt, how many jobs each runs at once, to say what they run."""
RESULT, PHASE, TROUBLE = "result", "phase", "trouble"
"""What they tell of an attempt, and of a storage that is out."""

_TELL_S = 1.0
_END_S, _PAUSE_S = 10.0, 0.01
_QUICK_S, _MOST_QUICK = 1.0, 20
"""A process that dies so soon is of no use; after so many of them the pilot can't go on."""


@dataclass(frozen=True)
class Plan:
    """What the processes work on, and with; `threads` is the most that each will run at once."""

    name: str
    task: TaskSpec
    work_dir: Path
    directory: Path
    """The pilot's own."""
    capacity: Capacity
    storages: tuple[StorageInfo, ...]
    verify_linked: bool
    patience_s: float
    engine: str | None
    processes: int
    threads: int

    def node(
        self, held: int, tell: Callable[[StorageTrouble], None] = lambda trouble: None
    ) -> Node:
        """The node as a process of the pilot has it. `held` is the ledger's descriptor."""
        return Node(
            name=self.name,
            ledger=PayloadLedger.shared(self.directory, held),
            slots=Slots(self.work_dir / "slots", self.capacity),
            storages=Drivers(self.storages),
            verify_linked=self.verify_linked,
            patience_s=self.patience_s,
            containers=Containers(self.engine, str(self.directory)) if self.engine else None,
            tell=tell,
        )


class _SlotProcess:
    """One process that runs jobs, each in a thread."""

    def __init__(self, crew: "_First", place: int) -> None:
        # Drivers of its own: processes must not share the connections of one.
        self._node = crew.plan.node(crew.held, self._tell_trouble)
        self._task, self._jobs, self._results = crew.task, crew.jobs, crew.results
        self._taken, self._place = crew.taken, place
        self._limit, self._most = crew.limit, crew.plan.threads
        self._running: dict[Key, RunningJob] = {}
        self._stopped: dict[Key, bool] = {}
        self._changed = threading.Condition()
        self._over = threading.Event()

    def serve(self, control: Channel) -> None:
        """Run jobs until the other end of `control` is gone."""
        threads = [
            threading.Thread(target=self._work, args=(number,), name=f"slot-{number}", daemon=True)
            for number in range(self._most)
        ]
        threads.append(threading.Thread(target=self._tell_phases, name="phases", daemon=True))
        for thread in threads:
            thread.start()
        try:
            while True:
                self._obey(*control.receive())
        except (EOFError, OSError):
            self._give_up()

    def _obey(self, word: str, *what: object) -> None:
        with self._changed:
            if word == THREADS:
                (self._limit,) = what  # type: ignore[assignment]
                self._changed.notify_all()
            elif word == STOP:
                key, draining = what
                self._stopped[key] = bool(draining)  # type: ignore[index]
                if (job := self._running.get(key)) is not None:  # type: ignore[call-overload]
                    _stop(job, bool(draining))

    def _give_up(self) -> None:
        """Kill the payloads, and wait until they are dead."""
        self._over.set()
        with self._changed:
            for job in self._running.values():
                job.stop.set()
            self._changed.wait_for(lambda: not self._running, _END_S)

    def _work(self, number: int) -> None:
        try:
            while not self._over.is_set():
                with self._changed:
                    self._changed.wait_for(lambda: number < self._limit)
                self._run(self._jobs.receive(), number)
        except (EOFError, ConnectionError):
            return  # the pilot is gone
        except BaseException:
            # Nobody would know of the job, nor miss the thread: a process that ends is replaced.
            log.exception("defect in a slot process")
            os._exit(1)

    def _run(self, spec: JobSpec, number: int) -> None:
        key, job = (spec.job_id, spec.number), RunningJob(spec)
        self._taken.take(self._place, number, key)
        job.on_phase = partial(self._taken.enter, self._place, number)
        with self._changed:
            self._running[key] = job
            if key in self._stopped:
                _stop(job, self._stopped[key])
        result = run_attempt(self._node, self._task, job)
        job.ended = True
        try:
            self._tell_end(key, result)
            self._taken.free(self._place, number)
        finally:
            with self._changed:
                del self._running[key]
                self._stopped.pop(key, None)
                if self._over.is_set():
                    self._changed.notify_all()

    def _tell_end(self, key: Key, result: JobResult) -> None:
        try:
            self._results.send((RESULT, key, result))
        except NotWritten as error:
            self._results.send((RESULT, key, untold(self._node, result, error)))

    def _tell_trouble(self, trouble: StorageTrouble) -> None:
        with suppress(OSError):
            self._results.send((TROUBLE, (0, 0), trouble))

    def _tell_phases(self) -> None:
        """Tell the phases of jobs that take a while, as they change."""
        told: Mapping[Key, Phase] = {}
        while not self._over.wait(_TELL_S):
            with self._changed:
                found = {key: job.phase_after(_TELL_S) for key, job in self._running.items()}
            phases = {key: phase for key, phase in found.items() if phase is not None}
            try:
                for key, phase in phases.items():
                    if told.get(key) is not phase:
                        self._results.send((PHASE, key, phase))
            except OSError:
                continue  # and told again
            told = phases


def _stop(job: RunningJob, draining: bool) -> None:
    job.draining = draining
    job.stop.set()


@dataclass(frozen=True)
class _Member:
    """A forked process, as the first one knows it: its place in the table, and its begin."""

    pid: int
    place: int
    control: Channel
    begun: float


class _First:
    """The first process: it forks the others, and a new one where one has died."""

    def __init__(
        self, plan: Plan, held: int, task: PreparedTask, ends: tuple[Channel, Channel, Channel]
    ) -> None:
        self.plan, self.held, self.task = plan, held, task
        self.pilot, self.jobs, self.results = ends
        self.taken = Taken(plan.processes, plan.threads)
        self.limit, self._quick = 1, 0
        self._members: dict[int, _Member] = {}
        self._poll = select.poll()
        self._poll.register(self.pilot.socket, select.POLLIN)

    def begin(self) -> None:
        """Fork as many as are planned."""
        for place in range(self.plan.processes):
            self._fork(place)

    def _fork(self, place: int) -> None:
        ours, theirs = connection()
        pid = os.fork()
        if not pid:
            code = 1
            try:
                self.pilot.close()
                ours.close()
                for member in self._members.values():
                    member.control.close()
                # What a reaper that was killed leaves is this process's to end.
                become_subreaper()
                _SlotProcess(self, place).serve(Channel(theirs, self.plan.directory))
                code = 0
            except BaseException:
                log.exception("defect in a slot process")
            finally:
                os._exit(code)
        theirs.close()
        member = _Member(pid, place, Channel(ours, self.plan.directory), time.monotonic())
        self._members[ours.fileno()] = member
        self._poll.register(ours, select.POLLIN)

    def pass_on(self) -> None:
        """Pass on what the pilot says until it is gone; replace what dies, and tell of it."""
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor in self._members:
                    self._replace(descriptor)
                else:
                    self._obey(self.pilot.receive())

    def _obey(self, message: tuple[Any, ...]) -> None:
        word, *what = message
        if word == ASK:
            self.pilot.send((TAKEN, self.taken.all()))
            return
        if word == THREADS:
            (self.limit,) = what
        for member in self._members.values():
            # One that has just died is told of in the next round.
            with suppress(OSError):
                member.control.send(message)

    def _replace(self, descriptor: int) -> None:
        """Tell what a process had in hand that died, and fork another in its place."""
        self._poll.unregister(descriptor)
        member = self._members.pop(descriptor)
        _, status = os.waitpid(member.pid, 0)
        member.control.close()
        _end_orphans(self.plan.directory)
        lost = self.taken.of(member.place)
        self.taken.clear(member.place)
        self.pilot.send((DIED, os.waitstatus_to_exitcode(status), lost, self.taken.all()))
        self._quick += time.monotonic() - member.begun < _QUICK_S
        if self._quick >= _MOST_QUICK:
            raise EOFError
        self._fork(member.place)

    def end(self) -> None:
        """Let the others end, and wait for that."""
        for member in self._members.values():
            member.control.close()
        for member in self._members.values():
            os.waitpid(member.pid, 0)
        _end_orphans(self.plan.directory)


def _end_orphans(directory: Path) -> None:
    """End what ran below processes of ours that are dead: only that is of other sessions.

    Reapers that live end their payloads by themselves, and stay with what they can't end.
    """
    spent, deadline = Spent(), time.monotonic() + _END_S
    while living := living_reapers(directory):
        ours = [pid for pid, one in living.items() if one.parent == os.getpid()]
        if not ours or time.monotonic() > deadline:
            break
        time.sleep(_PAUSE_S)
        for pid in ours:
            spent.wait(pid)
    if left := end_below(spent, frozenset({os.getsid(0), *living}), _END_S):
        log.error("processes of payloads can't be ended", extra={"processes": left})


def main() -> None:
    """Serve the pilot at the other end of the descriptors that are named."""
    control, work, ends, held = (int(word) for word in sys.argv[1:])
    # They end with their pilot, which has its own way with these; payloads don't inherit handlers.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    pilot = Channel(socket.socket(fileno=control), Path())
    with suppress(EOFError, ConnectionError):
        try:
            first = _made_ready(pilot, work, ends, held)
        except (SpdfError, OSError) as error:
            storage_id = error.storage_id if isinstance(error, StorageError) else None
            pilot.send((FAULT, code_of(error, Phase.STAGE_IN), told(error), storage_id))
            return
        try:
            pilot.send((READY,))
            first.pass_on()
        except (EOFError, OSError) as error:
            if not isinstance(error, EOFError | ConnectionError):
                log.error("the pilot's processes can't go on", extra={"fault": repr(error)})
            first.end()


def _made_ready(pilot: Channel, work: int, ends: int, held: int) -> _First:
    """The first process and the others, once the task is ready. Raises `SpdfError`, `OSError`.

    Those that are there already where it raises end as soon as this process has.
    """
    plan: Plan = pilot.receive()
    jobs, results = (
        Channel(socket.socket(fileno=number), plan.directory) for number in (work, ends)
    )
    task = prepare(plan.node(held), plan.task)
    become_subreaper()
    first = _First(plan, held, task, (Channel(pilot.socket, plan.directory), jobs, results))
    first.begin()
    return first


if __name__ == "__main__":
    main()
