"""What a pilot takes on: jobs leased from the catalog, with all that its node needs to run them."""

import logging
import time
from collections.abc import Collection, Sequence

from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from catalog import attempts, jobfiles, restores
from catalog.attempts import Lease
from catalog.db import Catalog
from catalog.outage import is_away, ride_out
from catalog.refs import FileRef
from catalog.settings import Settings
from flows.shift.hand import Hand
from flows.shift.turn import Turn
from workers.job import RunningJob
from workers.node import program_version
from workers.spec import JobSpec, TaskSpec

log = logging.getLogger(__name__)

_AWAY_S = 1.0


class Leases:
    """The leases of one pilot. `count` is how many it has had so far."""

    def __init__(
        self,
        catalog: Catalog,
        settings: Settings,
        pilot_id: int,
        task: TaskSpec,
        hand: Hand,
        known: Collection[int],
    ) -> None:
        self._catalog, self._settings, self._pilot_id = catalog, settings, pilot_id
        self._task, self._hand = task, hand
        self._program = program_version()
        self._turn = Turn()
        self._doubtful = self._alone = False
        self._known = frozenset(known)
        self.stale = False
        """Whether files are on storages that were added after this pilot began."""
        self.count = 0

    def take(self, room: int) -> list[RunningJob]:
        """Lease up to `room` jobs, or one that must run alone; none while the catalog is away.

        Nothing is taken on beside one that runs alone.
        """
        if self._alone and len(self._hand):
            return []
        try:
            self._return_unheard()
            with self._catalog.write() as session:
                after = self._turn.after()
                leases = self._lease(session, room, after, alone=False)
                self._alone = not leases and after < 0 and not len(self._hand)
                if self._alone:
                    leases = self._lease(session, 1, after, alone=True)
                self._turn.took(leases)
        except DBAPIError as error:
            if not is_away(error):
                raise
            log.warning("catalog away", extra={"fault": str(error.orig)})
            self._doubtful = True
            time.sleep(_AWAY_S)
            return []
        running = self._running(leases) if leases else []
        if any(self._is_new(job) for job in running):
            # The next pilot knows them.
            self.stale = True
            self._give_back(leases)
            return []
        self.count += len(running)
        return running

    def _is_new(self, job: RunningJob) -> bool:
        refs = [ref for listed in job.spec.files.values() for ref in listed]
        refs += [other for ref in refs for other in ref.secondary]
        return any(place.storage_id not in self._known for ref in refs for place in ref.replicas)

    def _give_back(self, leases: Sequence[Lease]) -> None:
        pairs = [(lease.job_id, lease.number) for lease in leases]

        def transaction() -> None:
            with self._catalog.write() as session:
                attempts.hand_back(session, self._pilot_id, pairs)

        ride_out(transaction, limit_s=self._settings.outage_s)

    def doubt(self) -> None:
        """The catalog may have leases of this pilot that it doesn't have in hand."""
        self._doubtful = True

    def settle(self) -> None:
        """Hand back what is held and not in hand: the heart would keep it for ever."""
        try:
            self._return_unheard()
        except DBAPIError as error:
            if not is_away(error):
                raise
            time.sleep(_AWAY_S)

    def _return_unheard(self) -> None:
        """Hand back what was leased by a transaction whose answer was lost."""
        if not self._doubtful:
            return
        in_hand = {(job.spec.job_id, job.spec.number) for job in self._hand.all()}
        with self._catalog.write() as session:
            held = attempts.held(session, self._pilot_id)
            unheard = [pair for pair in held if pair not in in_hand]
            attempts.hand_back(session, self._pilot_id, unheard)
        self._doubtful = False

    def _lease(self, session: Session, limit: int, after: int, *, alone: bool) -> list[Lease]:
        return attempts.lease(
            session,
            self._pilot_id,
            self._task.task_id,
            limit,
            lease_s=self._settings.lease_s,
            node=self._settings.node,
            program=self._program,
            tool_digest=self._task.tool_digest,
            alone=alone,
            after=after,
        )

    def _running(self, leases: Sequence[Lease]) -> list[RunningJob]:
        files, generation = ride_out(lambda: self._files(leases), limit_s=self._settings.outage_s)
        return [
            RunningJob(
                JobSpec(
                    job_id=lease.job_id,
                    attempt_id=lease.attempt_id,
                    task_id=self._task.task_id,
                    key=lease.key,
                    ordinal=lease.ordinal,
                    number=lease.number,
                    files=files[lease.job_id],
                    values=lease.values,
                    generation=generation,
                )
            )
            for lease in leases
        ]

    def _files(
        self, leases: Sequence[Lease]
    ) -> tuple[dict[int, dict[str, tuple[FileRef, ...]]], int]:
        """Inputs of the jobs by id, and the generation of the catalog that their ids are of."""
        with self._catalog.read() as session:
            found = jobfiles.inputs(session, [lease.job_id for lease in leases])
            return found, restores.generation(session)
