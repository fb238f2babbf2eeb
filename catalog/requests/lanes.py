"""Threads that take what is to be done from many lanes in turn: a long lane holds up no other."""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

_Work = tuple["Future[Any]", Callable[[], Any]]


class Lanes:
    """Does calls in up to `threads` threads: those of a lane in order, lanes one after the other.

    A thread that is stuck in a call keeps no process from ending.
    """

    def __init__(self, name: str, threads: int) -> None:
        self._name, self._most = name, threads
        self._changed = threading.Condition()
        self._waiting: OrderedDict[str, deque[_Work]] = OrderedDict()
        self._threads = self._idle = self._queued = 0
        self._is_closed = False

    def submit(self, lane: str, call: Callable[[], Any]) -> "Future[Any]":
        """What `call` will give."""
        future: Future[Any] = Future()
        with self._changed:
            self._waiting.setdefault(lane, deque()).append((future, call))
            self._queued += 1
            self._changed.notify()
            # One that is idle may be woken for another call already, and get stuck in that.
            if self._queued > self._idle and self._threads < self._most:
                self._threads += 1
                name = f"{self._name}-{self._threads}"
                threading.Thread(target=self._work, name=name, daemon=True).start()
        return future

    def close(self) -> None:
        """End the threads, each after the call that it is at; what waits is cancelled."""
        with self._changed:
            self._is_closed = True
            for queue in self._waiting.values():
                for future, _ in queue:
                    future.cancel()
            self._waiting.clear()
            self._queued = 0
            self._changed.notify_all()

    def _work(self) -> None:
        while (item := self._next()) is not None:
            future, call = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 - it is told to whoever waits
                future.set_exception(error)

    def _next(self) -> _Work | None:
        with self._changed:
            while not self._waiting:
                if self._is_closed:
                    return None
                self._idle += 1
                self._changed.wait()
                self._idle -= 1
            lane, queue = self._waiting.popitem(last=False)
            item = queue.popleft()
            self._queued -= 1
            if queue:
                self._waiting[lane] = queue
            return item
