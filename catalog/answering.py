"""Whether a directory answers at all: the server of a mount that is gone keeps who asks for ever.

A thread of its own asks, which nobody waits for longer than the limit. While one is stuck no second
one joins it, and who asks is told at once.
"""

import os
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from catalog.errors import ErrorCode, StorageError

LIMIT_S = 5.0
"""How long a storage may take until it is told to be away."""
LATELY_S = 0.5
"""How long an answer is one that came a moment ago."""


class _Question:
    """A directory that is asked."""

    def __init__(self, place: str) -> None:
        self.place, self.until = place, time.monotonic() + LIMIT_S
        self.thread = threading.Thread(target=self._ask, name="answering", daemon=True)
        # Where there is room for no thread, whoever asks has to see for himself.
        with suppress(RuntimeError):
            self.thread.start()

    def is_answered(self) -> bool:
        """Wait for the answer as long as there is time."""
        if self.thread.ident is not None:
            self.thread.join(max(0.0, self.until - time.monotonic()))
        return not self.thread.is_alive()

    def _ask(self) -> None:
        """What a `stat` says may be remembered from before; a `statvfs` asks the server."""
        with suppress(OSError, ValueError):
            Path(self.place).stat()
            os.statvfs(self.place)


_questions: dict[str, _Question] = {}
_answered: dict[str, float] = {}
"""When a place that was asked has answered last."""
_lock = threading.Lock()


def hanging(places: Iterable[str | Path]) -> frozenset[str]:
    """Those of the directories that don't answer within `LIMIT_S`; all are asked at once."""
    asked = [_ask(str(place)) for place in places]
    silent = frozenset(question.place for question in asked if not question.is_answered())
    moment = time.monotonic()
    _answered.update((q.place, moment) for q in asked if q.place not in silent)
    return silent


def require(name: str, place: str | Path, *, lately: bool = False) -> None:
    """Raise `StorageError` `STORAGE_UNAVAILABLE` where the directory of a storage gives no answer.

    Any answer will do, also that there is none. With `lately` one that came a moment ago will, too:
    for whoever has just had another answer from there, of many.
    """
    if lately and time.monotonic() - _answered.get(str(place), float("-inf")) < LATELY_S:
        return
    if hanging([place]):
        raise StorageError(ErrorCode.STORAGE_UNAVAILABLE, f"{words(name, place)}.")


def words(name: str, place: str | Path) -> str:
    """What is said of a storage whose directory doesn't answer."""
    return (
        f"storage {name!r}: {place} doesn't answer within {LIMIT_S:g} s; check its mount or server"
    )


def _ask(place: str) -> _Question:
    with _lock:
        for old in [p for p, q in _questions.items() if not q.thread.is_alive()]:
            del _questions[old]
        if place not in _questions:
            _questions[place] = _Question(place)
        return _questions[place]
