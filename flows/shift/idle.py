"""A pilot without jobs: what it looks at, how often, and when it goes."""

import time

from catalog import pilots, signs, tasks
from catalog.db import Catalog
from catalog.settings import Settings
from catalog.states import is_final
from flows.lookout import Pause

_THINK_S = 1.0
"""Time between two thoughts of going."""
_OVER_S = 5.0
"""Longest stay where nothing more comes: jobs may yet be handed back, or tried again."""
_START_S = 10.0
"""A pilot that was asked for is there by then, if its node has room."""


class Idle:
    """The time of a pilot since it last had a job."""

    def __init__(self, catalog: Catalog, settings: Settings, task_id: int, pool: str) -> None:
        self._catalog, self._settings = catalog, settings
        self._task_id, self._pool = task_id, pool
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
        """Whether the task has a job to be leased; one statement, so that it can be asked often."""
        with self._catalog.read() as session:
            return signs.has_ready(session, self._task_id)

    def wait(self) -> None:
        """Wait until the next look."""
        time.sleep(self._pause.next_s())

    def reason_to_go(self) -> str | None:
        """Why the pilot should go: nothing more comes, others need its place, or it waited long."""
        if time.monotonic() - self._thought < _THINK_S:
            return None
        self._thought = time.monotonic()
        settings = self._settings
        with self._catalog.read() as session:
            if is_final(tasks.get(session, self._task_id).state):
                return "no jobs left"
            here = len(pilots.live_on(session, settings.node, self._pool))
            waited_s = _START_S if here < settings.pilots_at_once else 0.0
            if tasks.others_ready(session, self._pool, self._task_id, waited_s=waited_s):
                return "other tasks wait"
            stay_s = settings.pilot_idle_s
            if not signs.more_may_come(session, self._task_id):
                stay_s = min(stay_s, _OVER_S)
        return "no jobs left" if self.idle_s > stay_s else None
