"""A share of the time: what costs more the more there is, is done less often."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Share:
    """How often something is done: every `every_s`, but never for more than `share` of the time.

    A query that counts a million jobs then costs a catalog no more than one that counts a hundred.
    """

    def __init__(self, every_s: float, share: float) -> None:
        self._every_s, self._share = every_s, share
        self._due = 0.0

    @property
    def is_due(self) -> bool:
        """Whether it may be done now."""
        return time.monotonic() >= self._due

    @contextmanager
    def spend(self) -> Iterator[None]:
        """Do it in this block, whose time is what it cost."""
        begun = time.monotonic()
        try:
            yield
        finally:
            took_s = time.monotonic() - begun
            self._due = begun + took_s + max(self._every_s, took_s / self._share)
