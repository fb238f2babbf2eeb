"""A lock that threads get in the order in which they came."""

import threading
from collections import deque


class Turnstile:
    """As `threading.Lock` in a `with`, which gives it to whoever is quickest, though.

    That is the thread which has just left it and wants it again: others may then wait for seconds.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._queue: deque[threading.Lock] = deque()

    @property
    def waiting(self) -> int:
        """How many threads wait."""
        return max(0, len(self._queue) - 1)

    def __enter__(self) -> None:
        ticket = threading.Lock()
        ticket.acquire()
        with self._guard:
            self._queue.append(ticket)
            if self._queue[0] is ticket:
                return
        try:
            ticket.acquire()
        except BaseException:
            self._leave(ticket)
            raise

    def __exit__(self, *_: object) -> None:
        self._leave(self._queue[0])

    def _leave(self, ticket: threading.Lock) -> None:
        with self._guard:
            was_first = self._queue[0] is ticket
            self._queue.remove(ticket)
            if was_first and self._queue:
                self._queue[0].release()
