"""A pilot's shift: lease jobs of one task, run them in the node's slots, register their ends."""

import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future

from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from catalog import attempts, outages, pilots, storages
from catalog.db import Catalog
from catalog.errors import SpdfError, Unavailable
from catalog.outage import is_away, ride_out
from catalog.refs import StorageInfo
from catalog.settings import Settings
from catalog.states import PilotState
from flows.shift.alarms import Alarms, Unprepared
from flows.shift.committer import Committer
from flows.shift.hand import Hand
from flows.shift.heart import Heart
from flows.shift.idle import Idle
from flows.shift.leases import Leases
from flows.shift.room import Roster as Roster
from flows.shift.room import make_node, make_plan
from flows.taskspecs import load_task
from workers.crew import Crew, CrewLost
from workers.cwl.faults import of_node
from workers.job import RunningJob, lost, unprepared
from workers.orphans import clean_dead
from workers.spec import JobResult

log = logging.getLogger(__name__)

Submit = Callable[[Sequence[RunningJob]], Iterable[object]]
"""Starts jobs, each by a call of `Shift.begin_job`; the window's futures are not kept."""

_AHEAD_S = 1.0
_POLL_S = 0.25
_SHORT_S = 0.05
_RECENT = 20
"""Jobs that the mean time of recent ones looks back on, roughly."""


class Shift:
    """One pilot at work. Use as a context manager; leaving it drains."""

    def __init__(self, catalog: Catalog, settings: Settings, roster: Roster) -> None:
        self._catalog, self._settings, self._roster = catalog, settings, roster
        assert settings.work_dir is not None
        self._alarms = Alarms(roster.task_id, settings.node)
        clean_dead(settings.work_dir)
        self._places = ride_out(self._sign_on, limit_s=settings.outage_s)
        self._hand = Hand()
        known = {place.id for place in self._places}
        self._leases = Leases(catalog, settings, self.pilot_id, self._spec, self._hand, known)
        self._heart = Heart(
            catalog,
            self._hand,
            self.pilot_id,
            beat_s=settings.heartbeat_s,
            lease_s=settings.lease_s,
        )
        self._idle = Idle(catalog, settings, roster.task_id, roster.pool)
        self._ready = False
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

    def _settle(self) -> None:
        """Take up room on the node, and wait for it where a disk of the node is full."""
        while True:
            try:
                self._node = make_node(
                    self._settings, self._roster, self.pilot_id, self._places, self._alarms.put
                )
                break
            except OSError as error:
                if of_node(error) is None:
                    raise
                self._note_unprepared(error)
            if not self._is_wanted():
                raise Unavailable(f"the node can't run pilots: {self._reason}.")
        self._committer = Committer(
            self._catalog,
            self._node,
            self._hand,
            self.pilot_id,
            retry=self._spec.retry,
            most=self._settings.commit_jobs,
            wait_s=self._settings.commit_s,
        )

    @property
    def threads(self) -> int:
        """Jobs in progress at once: payloads in the slots, others staging meanwhile.

        Where jobs are short, more threads than slots would only wait for each other.
        """
        short = 0 < self._recent_s < _SHORT_S
        return self._roster.slots if short else 2 * self._roster.slots

    def __enter__(self) -> "Shift":
        """Start the heartbeat and, as soon as the node has room for a pilot, the committer."""
        self._heart.start()
        try:
            self._settle()
        except BaseException as error:
            self._sign_off(f"stopped by {type(error).__name__}")
            raise
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
        if broken:
            self._lose_all()
        self._committer.close()
        self._committer.join(self._settings.lease_s)
        self._committer.give_up.set()
        self._sign_off(self._reason)
        if broken:
            # Payloads may be left: the next pilot or the node's worker kills what the ledger names.
            raise RuntimeError(self._reason)
        self._node.reapers.close()
        self._node.ledger.close()
        self._node.slots.close()

    def _sign_off(self, reason: str) -> None:
        self._heart.stop()
        self._tell(lambda session: pilots.end(session, self.pilot_id, reason))

    def work(self, submit: Submit) -> int:
        """Work until there is nothing left to do or the shift is over; gives the jobs done.

        Raises `CrewLost` where the processes of its own can't be started.
        """
        while not self._ready and self._is_wanted():
            self._ready = self._prepare()
        self._begun = time.monotonic()
        self._idle.over()
        while self._ready and self._on_duty():
            self._heed_outages()
            self._leases.settle()
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

    def _is_wanted(self) -> bool:
        """Whether to begin: once no outage keeps the task's jobs from this node."""
        while self._on_duty():
            try:
                self._idle.work_there()
                if not self._idle.blocked:
                    return True
            except DBAPIError as error:
                if not is_away(error):
                    raise
            if self._leave():
                return False
            self._idle.wait()
        return False

    def _prepare(self) -> bool:
        """Make the task ready to be run; False where it can't be for now, and no job shall try."""
        try:
            self._make_ready()
        except CrewLost:
            raise
        except (SpdfError, OSError) as error:
            log.warning("task can't be prepared", extra={"fault": str(error)})
            self._fault = error
            return not self._note_unprepared(error)
        return True

    def _note_unprepared(self, error: Exception) -> bool:
        """Whether no job need meet what this pilot met: all know of it now."""
        met = Unprepared(self._settings.node, self._roster.pool, self._roster.task_id, error)
        return ride_out(lambda: met.note(self._catalog), limit_s=self._settings.outage_s)

    def _make_ready(self) -> None:
        """Raise `SpdfError`, `OSError` where the task can't be run."""
        plan = make_plan(self._settings, self._roster, self._node, self._spec, self._places)
        crew = Crew(plan, self._node.ledger.held, self._ended, self._alarms.put)
        try:
            crew.prepare()
        except BaseException:
            crew.close()
            raise
        self._crew = crew

    def _heed_outages(self) -> None:
        """Say what is out, and take no more of this task's jobs to it than have begun."""
        if met := self._alarms.met():
            self._tell(lambda session: outages.note(session, met))
        if self._alarms.rung() and self._crew is not None:
            self._return(self._crew.recall())

    def _return(self, unstarted: Sequence[RunningJob]) -> None:
        """Hand back leases that have not begun."""
        if unstarted:
            pairs = [(job.spec.job_id, job.spec.number) for job in unstarted]
            # First from the hand: the heart stops what it finds there without a lease.
            self._hand.drop(pairs)
            if not self._tell(lambda session: attempts.hand_back(session, self.pilot_id, pairs)):
                self._leases.doubt()

    def _lose_all(self) -> None:
        """Give back what is in hand: the processes that ran it are gone, and none is to blame."""
        for job in self._hand.all():
            self._committer.put(lost(job, "is gone with all of its pilot's", None))

    def begin_job(self, running: RunningJob) -> "Future[JobResult]":
        """Have a process run one attempt, whose end then goes to the committer."""
        if self._crew is not None:
            return self._crew.submit(running)
        result = unprepared(running, self._fault)
        running.ended = True
        self._committer.put(result)
        future: Future[JobResult] = Future()
        future.set_result(result)
        return future

    def _ended(self, result: JobResult) -> None:
        """Take the end of an attempt that a process has run."""
        if result.usage.wall_s:
            self._recent_s += (result.usage.wall_s - self._recent_s) / _RECENT
        self._alarms.see(result)
        self._committer.put(result)

    @property
    def _whole(self) -> bool:
        whole = self._crew is None or self._crew.fault is None
        return whole and self._heart.is_alive() and (not self._ready or self._committer.is_alive())

    def _on_duty(self) -> bool:
        if not self._whole:
            self._reason = "a defect ended one of its threads; see its log"
            if self._crew is not None and self._crew.fault is not None:
                self._reason = f"a process that runs its jobs died: {self._crew.fault}"
            return False
        if self._heart.state is not PilotState.ACTIVE:
            self._reason = f"told to stop: {self._heart.state}"
            return False
        if self._leases.stale:
            self._reason = "end of shift: a storage was added"
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

    def _tell(self, what: Callable[[Session], object]) -> bool:
        """One transaction, while a lease lasts; False where the catalog was away for so long.

        Of a pilot that leaves the lease's end says the rest.
        """

        def transaction() -> None:
            with self._catalog.write() as session:
                what(session)

        try:
            ride_out(transaction, limit_s=self._settings.lease_s)
        except DBAPIError as error:
            log.warning("catalog away too long", extra={"fault": str(error.orig)})
            return False
        return True

    def _drain(self) -> None:
        """Hand back leases that have not begun; give the others `drain_s`, then stop them."""
        back = self._crew.recall() if self._crew is not None else []
        recalled = {id(job) for job in back}
        self._return([job for job in self._hand.all() if job.abandon() or id(job) in recalled])
        deadline = time.monotonic() + self._settings.drain_s
        while len(self._hand) and time.monotonic() < deadline:
            self._hand.wait(_POLL_S)
        for job in self._hand.all():
            job.draining = True
            job.halt()
        deadline = time.monotonic() + self._settings.lease_s
        while len(self._hand) and time.monotonic() < deadline:
            self._hand.wait(_POLL_S)
