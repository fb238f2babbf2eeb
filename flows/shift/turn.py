"""Where in the queue of its task a pilot goes on to lease."""

import time
from collections.abc import Sequence

from catalog.attempts import Lease

_SHARE, _LEAST_S = 0.001, 1.0
"""Of its time, for looks at the whole queue, and the least time between two of them."""
_SHARE_IDLE, _LEAST_IDLE_S = 0.05, 0.2
"""The same for a pilot that found nothing behind its last lease."""
_MOST_S, _MOST_IDLE_S = 300.0, 5.0
"""However long a look took: it may have waited for a connection, not for the queue."""


class Turn:
    """The ordinal beyond which a pilot looks for READY jobs, most of the time.

    Each job that was leased leaves a dead entry at the front of the index, which the next lease
    passes over until it is vacuumed, and it can't be as long as somebody reads (a backup). So a
    pilot goes on behind its last lease, and looks at the whole queue, for jobs that came back or
    were defined late, once a second; less often where that takes longer than a millisecond.
    """

    def __init__(self) -> None:
        self._last, self._whole = -1, True
        self._begun = self._looked = self._cost_s = 0.0
        self._due = 0.0

    def after(self) -> int:
        """The ordinal to lease beyond, now."""
        self._begun = time.monotonic()
        self._whole = self._last < 0 or self._begun >= self._due
        return -1 if self._whole else self._last

    def took(self, leases: Sequence[Lease]) -> None:
        """What the lease gave that began with `after`."""
        if self._whole:
            self._looked = time.monotonic()
            self._cost_s = self._looked - self._begun
            self._due = self._looked + min(_MOST_S, max(_LEAST_S, self._cost_s / _SHARE))
        if leases:
            self._last = max(lease.ordinal for lease in leases)
        else:
            idle_s = min(_MOST_IDLE_S, max(_LEAST_IDLE_S, self._cost_s / _SHARE_IDLE))
            self._due = min(self._due, self._looked + idle_s)
