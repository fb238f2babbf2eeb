"""A pilot without jobs: what it looks at, how often, and when it goes."""

import math
import time

from catalog import pilots
from catalog.db import Catalog
from catalog.settings import Settings
from catalog.signs import TaskSigns
from flows.lookout import Pause
from flows.probing import Prober

_THINK_S = 2.0
"""Time between two thoughts of going."""
_OVER_S = 5.0
"""Longest stay where nothing more comes: jobs may yet be handed back, or tried again."""
_START_S = 10.0
"""A pilot that was asked for is there by then, if its node has room."""
_COUNT_S = 60.0
_ASKS_PER_S = 200.0
"""Looks for jobs that find none, of all pilots of a task together: those of a thousand pilots would
be by far the database's largest load."""


def quiet_s(pilots: int) -> float:
    """How long a pilot that found no job waits before it looks again, where a task has so many.

    A job that becomes READY meanwhile is another's: some pilot looks within a moment.
    """
    return pilots / _ASKS_PER_S


class Idle:
    """The time of a pilot since it last had a job."""

    def __init__(self, catalog: Catalog, settings: Settings, task_id: int, pool: str) -> None:
        self._catalog, self._settings, self._task_id = catalog, settings, task_id
        self._quiet_s, self._counted, self._look_at = 0.0, -math.inf, 0.0
        self._signs = TaskSigns(catalog, task_id, pool=pool, node=settings.node, long_s=_START_S)
        self._pause = Pause()
        self._prober = Prober(catalog, settings)
        self.over()

    def over(self) -> None:
        """There are jobs again."""
        self._since = time.monotonic()
        self._thought = self._since - _THINK_S
        self._pause.reset()

    @property
    def blocked(self) -> bool:
        """Whether the last look found jobs that an outage keeps from this node."""
        return self._signs.blocked

    @property
    def idle_s(self) -> float:
        """Seconds without a job."""
        return time.monotonic() - self._since

    def work_there(self) -> bool:
        """Whether the task has a job to be leased; False while it is others' turn to look."""
        if time.monotonic() < self._look_at:
            return False
        if self._signs.work_there():
            return True
        if self.blocked:
            self._prober.tick()
            return False
        self._count_peers()
        self._look_at = time.monotonic() + self._quiet_s
        return False

    def _count_peers(self) -> None:
        """Find out now and then with how many pilots this one shares the looking."""
        now = time.monotonic()
        if now - self._counted >= _COUNT_S:
            with self._catalog.read() as session:
                count = pilots.live_counts(session, [self._task_id]).get(self._task_id, 1)
            self._quiet_s, self._counted = quiet_s(count), now

    def wait(self) -> None:
        """Wait until the next look."""
        time.sleep(self._pause.next_s())

    def reason_to_go(self) -> str | None:
        """Why the pilot should go: nothing more comes, others need its place, or it waited long."""
        think_s = max(min(_THINK_S, self._settings.pilot_idle_s), self._quiet_s)
        if time.monotonic() - self._thought < think_s:
            return None
        self._thought = time.monotonic()
        seen, stay_s = self._signs.outlook(), self._settings.pilot_idle_s
        if seen.ended:
            return "no jobs left"
        room = seen.here < self._settings.pilots_at_once
        if seen.others_waited if room else seen.others_wait:
            return "other tasks wait"
        if not seen.more_may_come and not self.blocked:
            stay_s = min(stay_s, _OVER_S)
        left = "what its jobs need is out" if self.blocked else "no jobs left"
        return left if self.idle_s > max(stay_s, 2 * self._quiet_s) else None
