"""What a pilot says of outages that it meets before, or beside, the ends of its jobs."""

import time
from collections import deque
from dataclasses import dataclass

from catalog import obstacles, outages
from catalog.db import Catalog
from catalog.errors import ERRORS, ErrorClass, ErrorCode, StorageError
from catalog.outages import Met
from catalog.refs import JobResult, StorageTrouble
from catalog.states import Phase
from catalog.verdicts import OF_NODES
from workers.cwl.faults import code_of, told

_AGAIN_S = 5.0
"""Time between two words about one storage."""


class Alarms:
    """What the jobs of a pilot met; others of its task that have not begun would meet it, too."""

    def __init__(self, task_id: int, node: str) -> None:
        self._task_id, self._node = task_id, node
        self._troubles: deque[StorageTrouble] = deque()
        self._told: dict[tuple[int, ErrorCode], float] = {}
        self._rung = False

    def put(self, trouble: StorageTrouble) -> None:
        """A job waits for a storage."""
        self._troubles.append(trouble)

    def see(self, result: JobResult) -> None:
        """A job has ended."""
        if result.error is not None and ERRORS[result.error].error_class is ErrorClass.OUTAGE:
            self._rung = True

    def rung(self) -> bool:
        """Whether there was something since this was asked last."""
        rung, self._rung = self._rung, False
        return rung

    def met(self) -> list[Met]:
        """What the catalog is to be told of: the same of one storage not all the time."""
        found, now = [], time.monotonic()
        while self._troubles:
            one = self._troubles.popleft()
            known = one.storage_id, one.code
            if now - self._told.get(known, -_AGAIN_S) >= _AGAIN_S:
                self._told[known], self._rung = now, True
                found.append(self._met(one))
        return found

    def _met(self, trouble: StorageTrouble) -> Met:
        return Met(
            self._task_id,
            self._node,
            trouble.code,
            trouble.message,
            trouble.storage_id,
            trouble.writing,
            trouble.needed_bytes,
        )


@dataclass(frozen=True)
class Unprepared:
    """A task that could not be made ready on a node of a pool."""

    node: str
    pool: str
    task_id: int
    error: Exception

    def note(self, catalog: Catalog) -> bool:
        """Remember an outage, or what the node lacks where others may have it; whether it is one.

        Then no attempt is spent on it: the task's jobs wait, or are others'.
        """
        code = code_of(self.error, Phase.STAGE_IN)
        storage_id = self.error.storage_id if isinstance(self.error, StorageError) else None
        of_node, lacking = code in OF_NODES, ERRORS[code].elsewhere
        outage = ERRORS[code].error_class is ErrorClass.OUTAGE
        with catalog.write() as session:
            if lacking and not obstacles.others_there(session, self.node, self.pool, self.task_id):
                return False
            if not lacking and not (outage and (of_node or storage_id is not None)):
                return False
            met = Met(
                self.task_id,
                self.node,
                code,
                told(self.error),
                None if of_node or lacking else storage_id,
                lacking=lacking,
            )
            outages.note(session, [met])
        return True
