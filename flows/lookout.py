"""Waiting for something to do: looking often while things happen, seldom while nothing does."""

import time
from collections.abc import Callable
from dataclasses import dataclass

LOOK_S = (0.1, 0.5)
"""Time between two looks: the first after something happened, and the longest."""
_GROWTH = 1.1
_SHARE = 0.1
"""Part of its time that who takes turns works at the most, so that busy turns find much to do."""


class Pause:
    """The time until the next look: it grows while nothing happens."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Something happened."""
        self._next_s = LOOK_S[0]

    def next_s(self) -> float:
        """Seconds to wait now."""
        this_s = self._next_s
        self._next_s = min(this_s * _GROWTH, LOOK_S[1])
        return this_s


@dataclass(frozen=True)
class Clock:
    """The time and the waiting; another one in tests."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class Lookout:
    """Says when the next turn is due: when the signs have changed, or after a while in any case.

    A turn is followed by a rest ten times as long as it took itself, `busy_s` at the most: under
    load it then finds a batch. Without a sign turns follow at `busy_s`, and ever more seldom, up
    to `quiet_s`, for what shows no sign.
    """

    def __init__(
        self,
        look: Callable[[], object],
        *,
        busy_s: float,
        quiet_s: float,
        clock: Clock = Clock(),
    ) -> None:
        self._look, self._clock = look, clock
        self._busy_s, self._quiet_s = busy_s, max(busy_s, quiet_s)
        self._pause, self._wait_s = Pause(), busy_s

    def begin(self) -> None:
        """A turn begins: what happens from now on is for the next."""
        self._seen, self._begun = self._look(), self._clock.now()

    def rest(self, meanwhile: Callable[[], object], *, awaited: bool = False) -> None:
        """Wait until the next turn is due, calling `meanwhile` now and then.

        `awaited`: something is expected that shows no sign, so turns don't become seldom.
        """
        took_s = self._clock.now() - self._begun
        self._clock.sleep(min(self._busy_s, max(LOOK_S[0], took_s / _SHARE)))
        until = self._begun + self._wait_s
        meanwhile()
        while self._look() == self._seen:
            left_s = until - self._clock.now()
            if left_s <= 0:
                self._wait_s = self._busy_s if awaited else min(2 * self._wait_s, self._quiet_s)
                return
            self._clock.sleep(min(left_s, self._pause.next_s()))
            meanwhile()
        self._pause.reset()
        self._wait_s = self._busy_s
