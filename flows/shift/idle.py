"""A pilot without jobs: what it looks at, how often, and when it goes."""

import time

from catalog.db import Catalog
from catalog.settings import Settings
from catalog.signs import TaskSigns
from flows.lookout import Pause

_THINK_S = 2.0
"""Time between two thoughts of going."""
_OVER_S = 5.0
"""Longest stay where nothing more comes: jobs may yet be handed back, or tried again."""
_START_S = 10.0
"""A pilot that was asked for is there by then, if its node has room."""


class Idle:
    """The time of a pilot since it last had a job."""

    def __init__(self, catalog: Catalog, settings: Settings, task_id: int, pool: str) -> None:
        self._settings = settings
        self._signs = TaskSigns(catalog, task_id, pool=pool, node=settings.node, long_s=_START_S)
        self._pause = Pause()
        self.over()

    def over(self) -> None:
        """There are jobs again."""
        self._since = time.monotonic()
        self._thought = self._since - _THINK_S
        self._pause.reset()

    @property
    def idle_s(self) -> float:
        """Seconds without a job."""
        return time.monotonic() - self._since

    def work_there(self) -> bool:
        """Whether the task has a job to be leased; it costs little to ask."""
        return self._signs.work_there()

    def wait(self) -> None:
        """Wait until the next look."""
        time.sleep(self._pause.next_s())

    def reason_to_go(self) -> str | None:
        """Why the pilot should go: nothing more comes, others need its place, or it waited long."""
        if time.monotonic() - self._thought < min(_THINK_S, self._settings.pilot_idle_s):
            return None
        self._thought = time.monotonic()
        seen, stay_s = self._signs.outlook(), self._settings.pilot_idle_s
        if seen.ended:
            return "no jobs left"
        room = seen.here < self._settings.pilots_at_once
        if seen.others_waited if room else seen.others_wait:
            return "other tasks wait"
        if not seen.more_may_come:
            stay_s = min(stay_s, _OVER_S)
        return "no jobs left" if self.idle_s > stay_s else None
