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
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from catalog.drivers import driver_for
from catalog.errors import SpdfError
from catalog.refs import StorageInfo
from catalog.states import Phase
from workers.cwl.containers import Containers
from workers.job import RunningJob, code_of, run_attempt
from workers.messages import Channel, connection
from workers.node import Node
from workers.orphans import PayloadLedger
from workers.prepare import PreparedTask, prepare
from workers.slots import Capacity, Slots
from workers.spec import JobSpec, TaskSpec

log = logging.getLogger(__name__)

READY, FAULT, DIED = "ready", "fault", "died"
"""What the pilot is told of the processes, each with a word or two."""
STOP, THREADS = "stop", "threads"
"""What it tells them: to stop an attempt, and how many jobs each runs at once."""
RESULT, PHASE = "result", "phase"
"""What they tell of an attempt."""

_TELL_S = 1.0
_END_S = 10.0

Key = tuple[int, int]
"""An attempt: the job's id and the number."""


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

    def node(self, held: int) -> Node:
        """The node as a process of the pilot has it. `held` is the ledger's descriptor."""
        return Node(
            name=self.name,
            ledger=PayloadLedger.shared(self.directory, held),
            slots=Slots(self.work_dir / "slots", self.capacity),
            storages={storage.id: driver_for(storage) for storage in self.storages},
            verify_linked=self.verify_linked,
            patience_s=self.patience_s,
            containers=Containers(self.engine, str(self.directory)) if self.engine else None,
        )


class _SlotProcess:
    """One process that runs jobs, each in a thread."""

    def __init__(
        self, node: Node, task: PreparedTask, jobs: Channel, results: Channel, most: int
    ) -> None:
        self._node, self._task = node, task
        self._jobs, self._results = jobs, results
        self._limit, self._most = 1, most
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
                self._run(self._jobs.receive())
        except (EOFError, OSError):
            return
        except BaseException:
            log.exception("defect in a slot process")
            os._exit(1)

    def _run(self, spec: JobSpec) -> None:
        key, job = (spec.job_id, spec.number), RunningJob(spec)
        with self._changed:
            self._running[key] = job
            if key in self._stopped:
                _stop(job, self._stopped[key])
        result = run_attempt(self._node, self._task, job)
        job.ended = True
        try:
            self._results.send((RESULT, key, result))
        finally:
            with self._changed:
                del self._running[key]
                self._stopped.pop(key, None)
                if self._over.is_set():
                    self._changed.notify_all()

    def _tell_phases(self) -> None:
        """Tell the phases of jobs that take a while, as they change."""
        told: Mapping[Key, Phase] = {}
        while not self._over.wait(_TELL_S):
            with self._changed:
                found = {key: job.phase_after(_TELL_S) for key, job in self._running.items()}
            phases = {key: phase for key, phase in found.items() if phase is not None}
            for key, phase in phases.items():
                if told.get(key) is not phase:
                    try:
                        self._results.send((PHASE, key, phase))
                    except OSError:
                        return
            told = phases


def _stop(job: RunningJob, draining: bool) -> None:
    job.draining = draining
    job.stop.set()


@dataclass(frozen=True)
class _Member:
    """A forked process, as the first one knows it."""

    pid: int
    control: Channel


def _fork(
    plan: Plan, held: int, task: PreparedTask, jobs: Channel, results: Channel, pilot: Channel
) -> list[_Member]:
    members: list[_Member] = []
    for _ in range(plan.processes):
        ours, theirs = connection()
        pid = os.fork()
        if not pid:
            code = 1
            try:
                pilot.close()
                ours.close()
                for member in members:
                    member.control.close()
                # Drivers of its own: processes must not share the connections of one.
                process = _SlotProcess(plan.node(held), task, jobs, results, plan.threads)
                process.serve(Channel(theirs, plan.directory))
                code = 0
            except BaseException:
                log.exception("defect in a slot process")
            finally:
                os._exit(code)
        theirs.close()
        members.append(_Member(pid, Channel(ours, plan.directory)))
    return members


def _pass_on(pilot: Channel, members: list[_Member]) -> None:
    """Pass on what the pilot says until it is gone; tell it of a process that died."""
    poll = select.poll()
    for channel in (pilot, *(member.control for member in members)):
        poll.register(channel.socket, select.POLLIN)
    by_descriptor = {member.control.socket.fileno(): member for member in members}
    while True:
        for descriptor, _ in poll.poll():
            if member := by_descriptor.get(descriptor):
                poll.unregister(descriptor)
                _, status = os.waitpid(member.pid, 0)
                pilot.send((DIED, os.waitstatus_to_exitcode(status)))
                members.remove(member)
                continue
            message = pilot.receive()
            for member in members:
                # One that has just died is told of in the next round.
                with suppress(OSError):
                    member.control.send(message)


def main() -> None:
    """Serve the pilot at the other end of the descriptors that are named."""
    control, work, ends, held = (int(word) for word in sys.argv[1:])
    # They end with their pilot, which has its own way with these; payloads don't inherit handlers.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    pilot = Channel(socket.socket(fileno=control), Path())
    try:
        plan: Plan = pilot.receive()
        jobs, results = (
            Channel(socket.socket(fileno=number), plan.directory) for number in (work, ends)
        )
        try:
            task = prepare(plan.node(held), plan.task)
        except (SpdfError, OSError) as error:
            pilot.send((FAULT, code_of(error), str(error) or type(error).__name__))
            return
        members = _fork(plan, held, task, jobs, results, pilot)
        jobs.close()
        results.close()
        pilot.send((READY,))
    except (EOFError, OSError):
        return
    try:
        _pass_on(pilot, members)
    except (EOFError, OSError):
        for member in members:
            member.control.close()
        for member in members:
            os.waitpid(member.pid, 0)


if __name__ == "__main__":
    main()
