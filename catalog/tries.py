"""Trying again: what is refused now and then is asked for once more, by itself, a while later.

The wait is drawn from all of a range that doubles (*full jitter*): who was refused together doesn't
come back together. Tries are bounded in number and in time, and who waits for the next one gives
its place to another.
"""

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from catalog.errors import ErrorCode, StorageError

P = ParamSpec("P")
R = TypeVar("R")

_THREADS_OF_A_PLACE = 4
"""So many may wait beside the one that has the place."""
_MOST_THREADS = 64


@dataclass(frozen=True)
class Pace:
    """How often something is tried, with waits below `first_s`, twice that, … up to `most_s`.

    No try begins later than `limit_s` after the first one did.
    """

    tries: int
    first_s: float
    most_s: float
    limit_s: float

    def wait_s(self, tried: int) -> float:
        """A wait, drawn for after the try of that number, from 1 on."""
        return random.uniform(0.0, min(self.most_s, self.first_s * 2.0 ** (tried - 1)))


REQUEST = Pace(tries=10, first_s=0.1, most_s=5.0, limit_s=30.0)
"""Of a request to a server that answers: it is busy, or breaks a connection off."""
FILE = Pace(tries=5, first_s=0.05, most_s=1.0, limit_s=10.0)
"""Of a call to a file system that fails now and then."""
OUTAGE = Pace(tries=5, first_s=1.0, most_s=8.0, limit_s=30.0)
"""Of a storage that is away: its server may be starting anew."""
ONCE = Pace(tries=1, first_s=0.0, most_s=0.0, limit_s=0.0)

_here = threading.local()


def pause(wait_s: float) -> None:
    """Wait; whoever waits for this thread's place may work meanwhile."""
    place: threading.Semaphore | None = getattr(_here, "place", None)
    if place is None:
        time.sleep(wait_s)
        return
    place.release()
    try:
        time.sleep(wait_s)
    finally:
        place.acquire()


def again(call: Callable[[], R], passes: Callable[[Exception], bool], pace: Pace) -> R:
    """What `call` gives, called again at that pace while it raises what `passes`.

    Raises the last error; others at once.
    """
    until = time.monotonic() + pace.limit_s
    for tried in range(1, pace.tries):
        try:
            return call()
        except Exception as error:
            if not passes(error) or time.monotonic() >= until:
                raise
        pause(pace.wait_s(tried))
    return call()


def may_be_back(error: Exception) -> bool:
    """Whether it is a storage that is away, and may be back without anybody's doing."""
    return isinstance(error, StorageError) and error.code is ErrorCode.STORAGE_UNAVAILABLE


def ride_out(check: Callable[[], object]) -> bool:
    """Whether a storage was away, by its `check`, and is back; it is waited for.

    Raises its `StorageError` where it stays away.
    """
    try:
        check()
    except StorageError as error:
        if not may_be_back(error):
            raise
    else:
        return False
    again(check, may_be_back, OUTAGE)
    return True


class Places(ThreadPoolExecutor):
    """An executor in which so many calls work at a time, and more may wait for their next try."""

    def __init__(self, count: int, name: str) -> None:
        self._places = threading.Semaphore(count)
        threads = max(count, min(count * _THREADS_OF_A_PLACE, _MOST_THREADS))
        super().__init__(threads, thread_name_prefix=name)

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """As that of the base; the call begins once it has a place."""
        return super().submit(lambda: self._in_place(lambda: fn(*args, **kwargs)))

    def _in_place(self, call: Callable[[], R]) -> R:
        with self._places:
            _here.place = self._places
            try:
                return call()
            finally:
                _here.place = None
