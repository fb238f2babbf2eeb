"""`python -m flows.intake.lister`: looks at one storage for whoever asks on its standard input.

A process of its own, since a mount that hangs can't be told from one that is slow, and a system
call on it can't be given up. A question and each part of an answer is a line of JSON.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from catalog.drivers import StorageDriver, driver_for
from catalog.errors import SpdfError, StorageError
from catalog.refs import StorageInfo, StorageKind, StorageRole
from flows.intake.roles import Errand
from flows.intake.sightings import Sighting, look, written

log = logging.getLogger(__name__)

_TICK_S = 1.0


class Answerer:
    """Answers questions on standard output."""

    def __init__(self) -> None:
        self._drivers: dict[StorageInfo, StorageDriver] = {}
        self._told = 0.0

    def answer(self, question: dict[str, Any]) -> None:
        """Look, and say how it went."""
        try:
            errand = errand_of(question)
            look(self._driver(errand.storage), errand, self._take, self._tick)
        except SpdfError as error:
            code = error.code if isinstance(error, StorageError) else None
            _say({"error": str(error), "code": code})
        except BrokenPipeError:
            raise
        except Exception as error:
            log.exception("a look failed")
            _say({"error": f"the look failed: {type(error).__name__}: {error}", "code": None})
        else:
            _say({"end": True})

    def _driver(self, storage: StorageInfo) -> StorageDriver:
        if storage not in self._drivers:
            self._drivers = {storage: driver_for(storage)}
        return self._drivers[storage]

    def _take(self, page: Sequence[Sighting]) -> None:
        _say({"page": [written(sighting) for sighting in page]})

    def _tick(self) -> None:
        if time.monotonic() - self._told >= _TICK_S:
            self._told = time.monotonic()
            _say({})


def errand_of(question: dict[str, Any]) -> Errand:
    """An errand that `json` has written."""
    place = question["storage"]
    storage = StorageInfo(
        **{**place, "kind": StorageKind(place["kind"]), "role": StorageRole(place["role"])}
    )
    return Errand(**{**question, "storage": storage, "markers": tuple(question["markers"])})


def _say(part: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(part) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Answer until standard input ends."""
    answerer = Answerer()
    try:
        for line in sys.stdin:
            answerer.answer(json.loads(line))
    except (BrokenPipeError, KeyboardInterrupt):
        # Whoever asked is gone; what is left to write would fail once more at the end.
        os._exit(0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
