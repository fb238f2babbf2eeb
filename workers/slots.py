"""Cores and devices of a node as tokens: one locked file each, shared by all its pilots."""

import fcntl
import math
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_POLL_S = (0.002, 0.05)


@dataclass(frozen=True)
class Grant:
    """The tokens that a job holds: how many cores, and the numbers of its devices."""

    cores: int
    devices: tuple[int, ...]


class Slots:
    """The tokens of one node, kept as locks on files under `directory`.

    A lock ends with the process that holds it, so a dead pilot frees its tokens at once.
    """

    def __init__(self, directory: Path, cores: int, devices: Sequence[int] = ()) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._cores = [directory / f"core-{i}" for i in range(cores)]
        self._devices = {number: directory / f"device-{number}" for number in devices}
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def take(
        self, cores: float, devices: int, stop: threading.Event | None = None
    ) -> Iterator[Grant | None]:
        """Wait for that many tokens; None where `stop` came first.

        The jobs of one process are served in the order in which they ask. A job that asks for more
        cores than the node has gets them all: it runs alone.
        """
        want = min(max(1, math.ceil(cores)), len(self._cores))
        held = self._wait(want, devices, stop)
        if held is None:
            yield None
            return
        descriptors, numbers = held
        try:
            yield Grant(want, numbers)
        finally:
            _close(descriptors)
            with self._changed:
                self._changed.notify_all()

    def _wait(
        self, cores: int, devices: int, stop: threading.Event | None
    ) -> tuple[list[int], tuple[int, ...]] | None:
        """Queue up; who is first looks for tokens, which other processes give back unheard."""
        ticket, wait_s = object(), _POLL_S[0]
        with self._changed:
            self._queue.append(ticket)
            try:
                while True:
                    first = self._queue[0] is ticket
                    if first and (held := self._try(cores, devices)) is not None:
                        return held
                    if stop is not None and stop.is_set():
                        return None
                    self._changed.wait(wait_s if first else _POLL_S[1])
                    wait_s = min(wait_s * 1.5, _POLL_S[1]) if first else wait_s
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()

    def _try(self, cores: int, devices: int) -> tuple[list[int], tuple[int, ...]] | None:
        """All tokens at once, or none: so no two jobs wait for each other."""
        held: list[int] = []
        for path in self._cores:
            if len(held) == cores:
                break
            held += _lock(path)
        if len(held) < cores:
            _close(held)
            return None
        numbers: list[int] = []
        for number, path in self._devices.items():
            if len(numbers) == devices:
                break
            if got := _lock(path):
                held += got
                numbers.append(number)
        if len(numbers) < devices:
            _close(held)
            return None
        return held, tuple(numbers)


def _lock(path: Path) -> list[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return []
    return [descriptor]


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
