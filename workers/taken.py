"""Which jobs the processes of a pilot have taken: a table in memory that they share.

A process that is killed can't say what it had in hand; what it wrote here stays.
"""

import mmap
import struct
from collections.abc import Mapping

from catalog.states import Phase

Key = tuple[int, int]
"""An attempt: the job's id and the number."""

_PHASES: tuple[Phase | None, ...] = (None, *Phase)
_NUMBER = struct.Struct("=q")
_JOB, _ATTEMPT, _PHASE, _ENTRY = 0, 8, 16, 24
"""Where in a thread's place each number stands, and how long it is."""


class Taken:
    """One place for each thread of each process. Make it before the processes are forked."""

    def __init__(self, processes: int, threads: int) -> None:
        self._processes, self._threads = processes, threads
        self._memory = mmap.mmap(-1, processes * threads * _ENTRY)

    def take(self, process: int, thread: int, key: Key) -> None:
        """A thread has a job in hand."""
        self._write(process, thread, _PHASE, 0)
        self._write(process, thread, _ATTEMPT, key[1])
        # The job's id comes last: a place without one is free, whatever else is in it.
        self._write(process, thread, _JOB, key[0])

    def enter(self, process: int, thread: int, phase: Phase) -> None:
        """Its job has come to that phase."""
        self._write(process, thread, _PHASE, _PHASES.index(phase))

    def free(self, process: int, thread: int) -> None:
        """The end of its job was told."""
        self._write(process, thread, _JOB, 0)

    def clear(self, process: int) -> None:
        """A process is gone, and another takes its places."""
        for thread in range(self._threads):
            self.free(process, thread)

    def of(self, process: int) -> Mapping[Key, Phase | None]:
        """What a process has in hand, with its phases."""
        found: dict[Key, Phase | None] = {}
        for thread in range(self._threads):
            if job_id := self._read(process, thread, _JOB):
                key = job_id, self._read(process, thread, _ATTEMPT)
                found[key] = _PHASES[self._read(process, thread, _PHASE)]
        return found

    def all(self) -> frozenset[Key]:
        """What all of them have in hand."""
        return frozenset(key for process in range(self._processes) for key in self.of(process))

    def _place(self, process: int, thread: int, what: int) -> int:
        return (process * self._threads + thread) * _ENTRY + what

    def _write(self, process: int, thread: int, what: int, number: int) -> None:
        _NUMBER.pack_into(self._memory, self._place(process, thread, what), number)

    def _read(self, process: int, thread: int, what: int) -> int:
        number: int
        (number,) = _NUMBER.unpack_from(self._memory, self._place(process, thread, what))
        return number
