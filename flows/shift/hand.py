"""What a pilot has in hand: leased jobs, from the lease to the commit of their end."""

import threading
from collections.abc import Iterable

from catalog.states import Phase
from workers.job import RunningJob

_TOLD_S = 1.0
"""A job that has begun within this time isn't told of: most such will have ended by then."""


class Hand:
    """The leased jobs of a pilot by job id; shared by its threads."""

    def __init__(self) -> None:
        self._jobs: dict[int, RunningJob] = {}
        self._phases: dict[int, Phase | None] = {}
        self.changed = threading.Condition()

    def __len__(self) -> int:
        with self.changed:
            return len(self._jobs)

    def add(self, jobs: Iterable[RunningJob]) -> None:
        """Take new leases in hand."""
        with self.changed:
            self._jobs.update((job.spec.job_id, job) for job in jobs)

    def drop(self, job_ids: Iterable[int]) -> None:
        """Let go of jobs whose end is registered, or that are another's by now."""
        with self.changed:
            for job_id in job_ids:
                self._jobs.pop(job_id, None)
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
        """Phases by attempt id that changed since the last call, of jobs that take a while."""
        new: dict[int, Phase] = {}
        seen: dict[int, Phase | None] = {}
        for job in self.all():
            phase, attempt = job.phase_after(_TOLD_S), job.spec.attempt_id
            seen[attempt] = phase
            if phase is not None and self._phases.get(attempt) is not phase:
                new[attempt] = phase
        self._phases = seen
        return new
