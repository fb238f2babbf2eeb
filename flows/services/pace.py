"""How often a node's worker asks the Prefect server for pilots.

The nodes of a pool together ask a set number of times a second, however many they are, so the
server's work doesn't grow with them. Some node still asks within moments of a pilot being there:
only which one it is takes longer to be each one's turn.
"""

import random
import time
from pathlib import Path

BASE_S = 1.0
"""As often as a node asks where there are few."""
NEVER_S = 1e9
"""As often as a node asks that is out; it is told otherwise as soon as it is well."""
PROMPT_S = 10.0
"""How long a node asks that often after a pilot of it has ended: the next one is on its way."""


def period_s(nodes: int, polls_per_s: float) -> float:
    """Time between two questions of one of so many nodes."""
    return max(BASE_S, nodes / polls_per_s)


def tell(path: Path, seconds: float) -> None:
    """Set the period of the worker that reads `path`."""
    new, text = path.with_name(f".{path.name}.new"), f"{seconds:<20.3f}\n"
    try:
        new.write_text(text)
        new.replace(path)
    except OSError:
        # A disk without room still takes other bytes in the place of as many.
        with path.open("r+") as file:
            file.write(text)


class Pace:
    """The worker's side: the period is read anew each time, as nodes come and go."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._next = self._prompt_until = 0.0

    @property
    def period_s(self) -> float:
        """The period that was told last."""
        try:
            return max(BASE_S, float(self._path.read_text())) if self._path else BASE_S
        except (OSError, ValueError):
            return BASE_S

    def is_due(self, now: float | None = None) -> bool:
        """Whether to ask now. The next time is then a period away, give or take: nodes spread."""
        now = time.monotonic() if now is None else now
        period_s = self.period_s
        if period_s >= NEVER_S:
            return False
        if period_s <= BASE_S or now < self._prompt_until:
            return True
        if now < self._next <= now + 2 * period_s:
            return False
        self._next = now + period_s * random.uniform(0.7, 1.3)
        return True

    def hurry(self, now: float | None = None) -> None:
        """Ask as often as where there are few nodes, for a while: a pilot has ended here."""
        self._prompt_until = (time.monotonic() if now is None else now) + PROMPT_S
