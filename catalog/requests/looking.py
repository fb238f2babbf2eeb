"""Looking at the files of requests in time: what takes long goes on beside, and its request waits.

One large file, one storage that hangs, or one dataset with many files to be looked at keeps nobody
else from being done.
"""

import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from functools import partial

from catalog.errors import SpdfError
from catalog.refs import StorageKind
from catalog.requests.kinds import FileEntry, FileInput, FileProcess, RequestDocument, Verify
from catalog.requests.lanes import Lanes
from catalog.requests.looks import (
    Away,
    Look,
    Looker,
    Seen,
    Waits,
    is_looked_at,
    is_read,
    together,
)

LOOK_S = 0.1
"""How long a window waits for its quick looks; long ones it doesn't wait for."""
STUCK_S = 20.0
"""A quick look that takes so long is stuck in its storage."""
QUICK_BYTES = 8 * 2**20
"""Files up to this size are read among the quick looks."""
MOST_READ = 20_000
"""Files of one storage that are to be read at the same time; requests beyond that wait before they
begin."""
FEW = 100
"""Requests with no more files than this begin among twice as many: large ones keep none out."""
THREADS = {StorageKind.LOCAL: 2, StorageKind.S3: 8}
"""Quick looks at one storage at the same time. One at a file system takes a moment of this process,
and more of them would take it from whoever watches, accepts and registers; one at a server mostly
waits."""
READERS = max(1, min(8, len(os.sched_getaffinity(0)) // 2))
"""Files of one storage that are read at the same time: the other half of the cores is for whoever
watches, accepts and registers meanwhile."""


@dataclass
class _Begun:
    """The files of one request: what was seen of each, or will be.

    `reads` is how many of them are long, by their storage.
    """

    seen: list[Seen | Future[Seen]]
    reads: Counter[int]

    @property
    def is_done(self) -> bool:
        """Whether nothing is looked at any more."""
        return all(not isinstance(item, Future) or item.done() for item in self.seen)

    def results(self) -> list[Seen]:
        """What was seen of each. Raises an outage that one of them met."""
        return [item.result() if isinstance(item, Future) else item for item in self.seen]

    def cancel(self) -> None:
        """Look at no more of them; a read that goes on is ended with its file."""
        for item in self.seen:
            if isinstance(item, Future):
                item.cancel()


class Looking:
    """The threads that look at files, and the requests whose files are looked at now."""

    def __init__(self, away: Away) -> None:
        self.away = away
        self._quick: dict[int, Lanes] = {}
        self._long: dict[int, Lanes] = {}
        self._reading: Counter[int] = Counter()
        self._begun: dict[int, _Begun] = {}
        self._running: dict[int, tuple[int, float]] = {}
        self._number = 0

    def close(self) -> None:
        """End the threads; those that are stuck are left."""
        for lanes in (*self._quick.values(), *self._long.values()):
            lanes.close()

    @property
    def begun(self) -> list[int]:
        """Ids of the requests whose files are being looked at."""
        return list(self._begun)

    def is_done(self, request_id: int) -> bool:
        """Whether what is looked at for a request has all been seen."""
        begun = self._begun.get(request_id)
        return begun is None or begun.is_done

    def wait(self, most_s: float) -> int:
        """Wait for one of the looks that go on; gives how many more requests are seen whole then.

        `most_s` is how long, at most.
        """
        before = sum(begun.is_done for begun in self._begun.values())
        going = [
            item
            for begun in self._begun.values()
            for item in begun.seen
            if isinstance(item, Future) and not item.done()
        ]
        if going:
            wait(going, most_s, return_when=FIRST_COMPLETED)
        return sum(begun.is_done for begun in self._begun.values()) - before

    def forget(self, request_ids: Iterable[int]) -> None:
        """Keep nothing of requests that aren't to be done any more, such as cancelled ones."""
        for request_id in request_ids:
            if (begun := self._begun.pop(request_id, None)) is not None:
                begun.cancel()

    def look(
        self, looker: Looker, wanted: Sequence[tuple[int, str, RequestDocument]]
    ) -> list[tuple[Look, ...] | SpdfError]:
        """What the files of each request are, by its id and lane: () for one that names none.

        In place of those that can't be done stands why: `BadFiles` where files aren't as it says,
        `Waits` where a storage is away or there is more to be read than a moment allows.
        """
        self._note_stuck()
        self._reading = Counter()
        for begun in self._begun.values():
            if not begun.is_done:
                self._reading.update(begun.reads)
        quick: list[Future[Seen]] = []
        for request_id, lane, document in wanted:
            if request_id not in self._begun and isinstance(document, FileInput | FileProcess):
                quick += self._begin(looker, request_id, lane, document)
        if quick:
            wait(quick, LOOK_S)
        found: list[tuple[Look, ...] | SpdfError] = []
        waiting: set[str] = set()
        for request_id, lane, document in wanted:
            if lane in waiting and request_id in self._begun:
                # It comes after one that isn't seen yet, and what was seen of it is kept for then.
                found.append(Waits("files of requests before it are being read"))
                continue
            found.append(self._collect(request_id, document))
            if isinstance(found[-1], Waits):
                waiting.add(lane)
        return found

    def _begin(
        self, looker: Looker, request_id: int, lane: str, document: FileInput | FileProcess
    ) -> list[Future[Seen]]:
        """Begin to look at a request's files; gives the looks that are worth waiting for."""
        verify = document.verify
        reads = Counter(
            storage.id
            for file in document.files
            if _is_long(file, verify) and (storage := looker.storage(file)) is not None
        )
        most = MOST_READ if reads.total() > FEW else 2 * MOST_READ
        if any(self._reading[storage_id] >= most for storage_id in reads):
            return []
        self._reading.update(reads)
        begun = _Begun([self._one(looker, lane, file, verify) for file in document.files], reads)
        self._begun[request_id] = begun
        if reads:
            return []
        return [item for item in begun.seen if isinstance(item, Future)]

    def _one(
        self, looker: Looker, lane: str, file: FileEntry, verify: Verify
    ) -> Seen | Future[Seen]:
        storage = looker.storage(file)
        if storage is None or not is_looked_at(file, verify):
            return looker.look(file, verify)
        if _is_long(file, verify):
            return self._readers(storage.id).submit(lane, partial(looker.look, file, verify))
        if storage.id not in self._quick:
            # Each storage has its own: one may hang.
            self._quick[storage.id] = Lanes("look", THREADS[storage.kind])
        self._number += 1
        call = partial(self._timed, self._number, storage.id, looker, file, verify)
        return self._quick[storage.id].submit(lane, call)

    def _readers(self, storage_id: int) -> Lanes:
        """The threads that read files of a storage, each of which has its own."""
        if storage_id not in self._long:
            self._long[storage_id] = Lanes("read", READERS)
        return self._long[storage_id]

    def _timed(
        self, number: int, storage_id: int, looker: Looker, file: FileEntry, verify: Verify
    ) -> Seen:
        self._running[number] = storage_id, time.monotonic()
        try:
            return looker.look(file, verify)
        finally:
            del self._running[number]

    def _collect(self, request_id: int, document: RequestDocument) -> tuple[Look, ...] | SpdfError:
        if not isinstance(document, FileInput | FileProcess):
            return ()
        begun = self._begun.get(request_id)
        if begun is None:
            return Waits("many files of other requests are being read; this one comes after them")
        if not begun.is_done:
            return Waits("its files are being read")
        del self._begun[request_id]
        return together(begun.results())

    def _note_stuck(self) -> None:
        """Take a storage that doesn't answer for away."""
        for storage_id, since in list(self._running.values()):
            if time.monotonic() - since > STUCK_S:
                self.away.note(storage_id, f"a look at it has not ended for {STUCK_S:.0f} s")


def to_be_read(document: RequestDocument) -> int:
    """How many files of a request are read beside the rest, so that it waits for that."""
    if not isinstance(document, FileInput | FileProcess):
        return 0
    return sum(_is_long(file, document.verify) for file in document.files)


def _is_long(file: FileEntry, verify: Verify) -> bool:
    # Without a look at its size first nobody knows how long it takes.
    return is_read(file, verify) and (file.size > QUICK_BYTES or verify is Verify.NONE)
