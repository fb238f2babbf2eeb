"""A pilot's shift: lease jobs of one task, run them in the node's slots, register their ends."""

import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from catalog import attempts, pilots, storages
from catalog.db import Catalog
from catalog.drivers import driver_for
from catalog.errors import SpdfError
from catalog.outage import is_away, ride_out
from catalog.refs import StorageInfo
from catalog.settings import Settings
from catalog.states import PilotState
from flows.shift.committer import Committer
from flows.shift.hand import Hand
from flows.shift.heart import Heart
from flows.shift.idle import Idle
from flows.shift.leases import Leases
from flows.taskspecs import load_task
from workers.crew import Crew, processes_for, threads_for
from workers.cwl.containers import Containers
from workers.job import RunningJob, run_attempt, unprepared
from workers.node import Node
from workers.orphans import PayloadLedger, clean_dead
from workers.prepare import PreparedTask, prepare
from workers.slotprocess import Plan
from workers.slots import Capacity, Slots
from workers.spec import JobResult

log = logging.getLogger(__name__)

Submit = Callable[[Sequence[RunningJob]], Iterable[object]]
"""Starts jobs soon, each by a call of `Shift.run_job`; the window's futures are not kept."""

_AHEAD_S = 1.0
_POLL_S = 0.25
_SHORT_S = 0.05
_RECENT = 20
"""Jobs that the mean time of recent ones looks back on, roughly."""


@dataclass(frozen=True)
class Roster:
    """Who a pilot is: where it runs, for which task, and how much it may do."""

    task_id: int
    pool: str
    capacity: Capacity
    flow_run_id: str | None

    @property
    def slots(self) -> int:
        """How many jobs of one core run at once."""
        return self.capacity.cores


class Shift:
    """One pilot at work. Use as a context manager; leaving it drains.

    With `processes` jobs run in processes of their own (`begin_job`), else in the threads of
    whoever calls `run_job`.
    """

    def __init__(
        self, catalog: Catalog, settings: Settings, roster: Roster, *, processes: bool = False
    ) -> None:
        self._catalog, self._settings, self._roster = catalog, settings, roster
        assert settings.work_dir is not None
        clean_dead(settings.work_dir)
        places = ride_out(self._sign_on, limit_s=settings.outage_s)
        ledger = PayloadLedger(settings.work_dir, self.pilot_id)
        engine = settings.container_engine
        self._node = Node(
            name=settings.node,
            ledger=ledger,
            slots=Slots(settings.work_dir / "slots", roster.capacity),
            storages={place.id: driver_for(place, settings) for place in places},
            verify_linked=settings.verify_inputs,
            patience_s=settings.outage_s,
            containers=Containers(engine, str(ledger.directory)) if engine else None,
        )
        self._hand = Hand()
        self._leases = Leases(catalog, settings, self.pilot_id, self._spec, self._hand)
        self._heart = Heart(
            catalog,
            self._hand,
            self.pilot_id,
            beat_s=settings.heartbeat_s,
            lease_s=settings.lease_s,
        )
        self._committer = Committer(
            catalog,
            self._node,
            self._hand,
            self.pilot_id,
            retry=self._spec.retry,
            most=settings.commit_jobs,
            wait_s=settings.commit_s,
        )
        self._idle = Idle(catalog, settings, roster.task_id, roster.pool)
        self._prepared: PreparedTask | None = None
        self._plan = self._make_plan(places) if processes else None
        self._crew: Crew | None = None
        self._fault: Exception = SpdfError("the task was not prepared")
        self._begun, self._recent_s = time.monotonic(), 0.0
        self._reason = "no jobs left"

    def _sign_on(self) -> tuple[StorageInfo, ...]:
        """Become a pilot of the catalog; gives the storages that there are."""
        roster = self._roster
        with self._catalog.write() as session:
            self.pilot_id = pilots.start(
                session,
                roster.task_id,
                pool=roster.pool,
                node=self._settings.node,
                pid=os.getpid(),
                slots=roster.slots,
                flow_run_id=roster.flow_run_id,
            )
            self._spec = load_task(session, roster.task_id)
            return tuple(storages.list_all(session))

    def _make_plan(self, places: tuple[StorageInfo, ...]) -> Plan:
        """What the processes of this pilot work on."""
        settings, slots = self._settings, self._roster.slots
        assert settings.work_dir is not None
        processes = processes_for(slots)
        return Plan(
            name=settings.node,
            task=self._spec,
            work_dir=settings.work_dir,
            directory=self._node.directory,
            capacity=self._roster.capacity,
            storages=places,
            verify_linked=settings.verify_inputs,
            patience_s=settings.outage_s,
            engine=settings.container_engine or None,
            processes=processes,
            threads=threads_for(2 * slots, processes),
        )

    @property
    def threads(self) -> int:
        """Jobs in progress at once: payloads in the slots, others staging meanwhile.

        Where jobs are short, more threads than slots would only wait for each other.
        """
        short = 0 < self._recent_s < _SHORT_S
        return self._roster.slots if short else 2 * self._roster.slots

    def __enter__(self) -> "Shift":
        """Start the heartbeat and the committer."""
        self._heart.start()
        self._committer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Hand back what has not begun, wait for what has, register all, sign off."""
        if kind is not None:
            self._reason = f"stopped by {kind.__name__}"
        broken = self._crew is not None and self._crew.fault is not None
        if not broken:
            self._drain()
        if self._crew is not None:
            self._crew.close()
        self._committer.close()
        self._committer.join(self._settings.lease_s)
        self._committer.give_up.set()
        self._heart.stop()
        self._tell(lambda session: pilots.end(session, self.pilot_id, self._reason))
        if broken:
            # Payloads may be left: the next pilot or the node's worker kills what the ledger names.
            raise RuntimeError(self._reason)
        self._node.ledger.close()
        self._node.slots.close()

    def work(self, submit: Submit) -> int:
        """Work until there is nothing left to do or the shift is over; gives the jobs done."""
        try:
            self._prepare()
        except (SpdfError, OSError) as error:
            log.warning("task can't be prepared", extra={"fault": str(error)})
            self._fault = error
        self._begun = time.monotonic()
        self._idle.over()
        while self._on_duty():
            if window := self._take_on():
                self._hand.add(window)
                submit(window)
            if len(self._hand):
                self._idle.over()
                self._hand.wait(_POLL_S)
            elif self._leave():
                break
            else:
                self._idle.wait()
        while len(self._hand) and self._whole and self._heart.state is PilotState.ACTIVE:
            self._hand.wait(_POLL_S)
        return self._committer.done

    def _prepare(self) -> None:
        """Make the task ready to be run. Raises `SpdfError`, `OSError` where it can't be."""
        if self._plan is None:
            self._prepared = prepare(self._node, self._spec)
            return
        crew = Crew(self._plan, self._node.ledger.held, self._ended)
        try:
            crew.prepare()
        except BaseException:
            crew.close()
            raise
        self._crew = crew

    def begin_job(self, running: RunningJob) -> "Future[JobResult]":
        """Have a process run one attempt, whose end then goes to the committer."""
        if self._crew is not None:
            return self._crew.submit(running)
        future: Future[JobResult] = Future()
        future.set_result(self.run_job(running))
        return future

    def _ended(self, result: JobResult) -> None:
        """Take the end of an attempt that a process has run."""
        if result.usage.wall_s:
            self._recent_s += (result.usage.wall_s - self._recent_s) / _RECENT
        self._committer.put(result)

    def run_job(self, running: RunningJob) -> JobResult:
        """Run one attempt in this thread and hand its end to the committer."""
        begun = time.monotonic()
        if self._prepared is None:
            result = unprepared(running, self._fault)
        else:
            result = run_attempt(self._node, self._prepared, running)
        running.ended = True
        self._recent_s += (time.monotonic() - begun - self._recent_s) / _RECENT
        self._committer.put(result)
        return result

    @property
    def _whole(self) -> bool:
        whole = self._crew is None or self._crew.fault is None
        return whole and self._heart.is_alive() and self._committer.is_alive()

    def _on_duty(self) -> bool:
        if not self._whole:
            self._reason = "a defect ended one of its threads; see its log"
            if self._crew is not None and self._crew.fault is not None:
                self._reason = f"a process that runs its jobs died: {self._crew.fault}"
            return False
        if self._heart.state is not PilotState.ACTIVE:
            self._reason = f"told to stop: {self._heart.state}"
            return False
        if self._leases.count >= self._settings.pilot_shift_jobs:
            self._reason = "end of shift: jobs"
            return False
        if time.monotonic() - self._begun >= self._settings.pilot_shift_s:
            self._reason = "end of shift: time"
            return False
        return True

    def _target(self) -> int:
        """Jobs to have in hand: enough for about a second, at least one for each thread."""
        rate = self.threads / self._recent_s if self._recent_s else 0.0
        return max(self.threads, min(self._settings.window, math.ceil(rate * _AHEAD_S)))

    def _take_on(self) -> list[RunningJob]:
        """More jobs, where there is room for enough of them to be worth a transaction."""
        target = self._target()
        room = target - len(self._hand)
        if room < max(1, target // 2) or not self._heart.may_lease:
            return []
        try:
            if not self._idle.work_there():
                return []
        except DBAPIError as error:
            if not is_away(error):
                raise
            # The lease will find out, and wait.
        if self._crew is not None:
            self._crew.resize(self.threads)
        return self._leases.take(room)

    def _leave(self) -> bool:
        """Whether a pilot without jobs should go."""
        try:
            reason = self._idle.reason_to_go()
        except DBAPIError as error:
            if not is_away(error):
                raise
            return self._idle.idle_s > self._settings.outage_s
        self._reason = reason or self._reason
        return reason is not None

    def _tell(self, what: Callable[[Session], object]) -> None:
        """One last transaction of a pilot that leaves; if it can't be, the lease's end says it."""

        def transaction() -> None:
            with self._catalog.write() as session:
                what(session)

        try:
            ride_out(transaction, limit_s=self._settings.lease_s)
        except DBAPIError as error:
            log.warning("catalog away at the end", extra={"fault": str(error.orig)})

    def _drain(self) -> None:
        """Hand back leases that have not begun; give the others `drain_s`, then stop them."""
        back = self._crew.recall() if self._crew is not None else []
        recalled = {id(job) for job in back}
        unstarted = [job for job in self._hand.all() if job.abandon() or id(job) in recalled]
        if unstarted:
            pairs = [(job.spec.job_id, job.spec.number) for job in unstarted]
            self._tell(lambda session: attempts.hand_back(session, self.pilot_id, pairs))
            self._hand.drop((job.spec.job_id, job.spec.number) for job in unstarted)
        deadline = time.monotonic() + self._settings.drain_s
        while len(self._hand) and time.monotonic() < deadline:
            self._hand.wait(_POLL_S)
        for job in self._hand.all():
            job.draining = True
            job.halt()
        deadline = time.monotonic() + self._settings.lease_s
        while len(self._hand) and time.monotonic() < deadline:
            self._hand.wait(_POLL_S)
