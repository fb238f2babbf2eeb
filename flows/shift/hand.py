"""What a pilot has in hand: leased jobs, from the lease to the commit of their end."""

import threading
from collections.abc import Iterable, Mapping

from catalog.states import Phase
from workers.job import RunningJob

_TOLD_S = 1.0
"""A job that has begun within this time isn't told of: most such will have ended by then."""


class Hand:
    """The leased jobs of a pilot by job id; shared by its threads."""

    def __init__(self) -> None:
        self._jobs: dict[int, RunningJob] = {}
        self._told: dict[int, Phase] = {}
        self.changed = threading.Condition()

    def __len__(self) -> int:
        with self.changed:
            return len(self._jobs)

    def __contains__(self, job: RunningJob) -> bool:
        """Whether it is in hand by this very lease."""
        with self.changed:
            return self._jobs.get(job.spec.job_id) is job

    def add(self, jobs: Iterable[RunningJob]) -> None:
        """Take new leases in hand."""
        with self.changed:
            self._jobs.update((job.spec.job_id, job) for job in jobs)

    def drop(self, attempts: Iterable[tuple[int, int]]) -> None:
        """Let go of attempts (job id and number) that have ended, or are another's by now.

        The same job may be in hand again, leased as soon as its last attempt's end was registered.
        """
        with self.changed:
            for job_id, number in attempts:
                job = self._jobs.get(job_id)
                if job is not None and job.spec.number == number:
                    del self._jobs[job_id]
            self.changed.notify_all()

    def all(self) -> list[RunningJob]:
        """The jobs in hand."""
        with self.changed:
            return list(self._jobs.values())

    def wait(self, timeout_s: float) -> None:
        """Wait until something is let go, or for that long."""
        with self.changed:
            self.changed.wait(timeout_s)

    def new_phases(self) -> dict[int, Phase]:
        """Phases by attempt id that changed since those told of, of jobs that take a while."""
        new: dict[int, Phase] = {}
        for job in self.all():
            phase, attempt = job.phase_after(_TOLD_S), job.spec.attempt_id
            if phase is not None and self._told.get(attempt) is not phase:
                new[attempt] = phase
        return new

    def told(self, phases: Mapping[int, Phase]) -> None:
        """Remember what the catalog was told, of jobs that are still in hand."""
        mine = {job.spec.attempt_id for job in self.all()}
        self._told = {a: phase for a, phase in {**self._told, **phases}.items() if a in mine}
