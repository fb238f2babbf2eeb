"""A progress bar on Prefect's page, updated now and then; Prefect's errors are survived."""

import logging
import time
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.exceptions import PrefectException

from flows.progress import artifact_key

log = logging.getLogger(__name__)

_EVERY_S = 2.0


class Board:
    """One bar, of the run that makes it."""

    def __init__(self, name: str) -> None:
        self._key = artifact_key(name)
        self._id: UUID | None = None
        self._shown = float("-inf")

    def show(self, percent: float, words: str, *, force: bool = False) -> None:
        """Show it, unless it was just shown."""
        if not force and time.monotonic() - self._shown < _EVERY_S:
            return
        self._shown = time.monotonic()
        try:
            if self._id is None:
                made: object = create_progress_artifact(percent, key=self._key, description=words)
                assert isinstance(made, UUID)
                self._id = made
            else:
                update_progress_artifact(self._id, percent, description=words)
        except (httpx.HTTPError, PrefectException) as error:
            log.warning("progress not shown", extra={"fault": str(error)})
