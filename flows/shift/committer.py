"""The committer: registers the ends of attempts in groups, and settles what it can't."""

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from catalog import completion
from catalog.db import Catalog
from catalog.errors import Conflict, ErrorCode, StorageError
from catalog.outage import sentence
from catalog.refs import JobResult, NewFile, Outcome
from catalog.states import Phase
from flows.shift.hand import Hand
from workers.node import Node
from workers.stageout import discard, make_durable

log = logging.getLogger(__name__)

_RETRY_S = (0.2, 5.0)


class Committer(threading.Thread):
    """A thread of a pilot that commits results in groups of bounded size and age."""

    def __init__(
        self,
        catalog: Catalog,
        node: Node,
        hand: Hand,
        pilot_id: int,
        *,
        retry: int,
        most: int,
        wait_s: float,
    ) -> None:
        super().__init__(name="committer", daemon=True)
        self._catalog, self._node, self._hand, self._pilot_id = catalog, node, hand, pilot_id
        self._retry, self._most, self._wait_s = retry, most, wait_s
        self._results: list[JobResult] = []
        self._changed = threading.Condition()
        self._closing = False
        self.give_up = threading.Event()
        """Set where the catalog is away and the pilot must end all the same."""
        self.done = 0

    def put(self, result: JobResult) -> None:
        """Hand over the end of an attempt."""
        with self._changed:
            self._results.append(result)
            # Waking the thread for each result would cost more than the result.
            if len(self._results) == 1 or len(self._results) >= self._enough:
                self._changed.notify()

    def close(self) -> None:
        """Commit what was handed over, then end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def run(self) -> None:
        """Commit groups until closed."""
        while group := self._group():
            self._commit(group)

    def _group(self) -> list[JobResult]:
        """The next results, soon after the first of them; none once closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._results or self._closing)
            self._changed.wait_for(
                lambda: len(self._results) >= self._enough or self._closing, self._wait_s
            )
            group, self._results = self._results[: self._most], self._results[self._most :]
            return group

    @property
    def _enough(self) -> int:
        """Results that a commit waits for: where all in hand has ended there is no company more."""
        return min(self._most, len(self._hand))

    def _commit(self, group: Sequence[JobResult]) -> None:
        """Register a group; a transaction whose answer was lost is looked up, then tried again."""
        ends = self._stored([_ended(result) for result in group])
        accepted = self._register(ends) if ends else frozenset()
        if accepted is None:
            return
        self._discard([result for result in ends if result.job_id not in accepted])
        self.done += len(accepted)
        self._hand.drop((result.job_id, result.number) for result in group)

    def _stored(self, ends: Sequence[JobResult]) -> list[JobResult]:
        """The ends, with their files on the disk; where that can't be, the job has failed."""
        faults = make_durable(self._node, [file for result in ends for file in _files(result)])
        return [self._checked(result, faults) for result in ends] if faults else list(ends)

    def _checked(
        self, result: JobResult, faults: Mapping[tuple[int, str], StorageError]
    ) -> JobResult:
        for file in _files(result):
            if error := faults.get((file.storage_id, file.path)):
                self._discard([result])
                failed = replace(result, outcome=Outcome.FAILED, files=(), values={}, log=None)
                return replace(
                    failed,
                    error=error.code,
                    message=str(error),
                    phase=Phase.STAGE_OUT,
                    storage_id=file.storage_id,
                    needed_bytes=file.size_bytes,
                )
        return result

    def _register(self, ends: Sequence[JobResult]) -> frozenset[int] | None:
        """Ids of the jobs whose ends are registered; None where the pilot gave up waiting."""
        wait_s = _RETRY_S[0]
        while True:
            try:
                with self._catalog.write() as session:
                    known = completion.confirmed(session, ends)
                    open_ends = [result for result in ends if result.job_id not in known]
                    return known | completion.finish(
                        session, self._pilot_id, open_ends, retry=self._retry
                    )
            except (Conflict, IntegrityError, DataError, OverflowError) as error:
                return self._one_by_one(ends, error)
            except DBAPIError as error:
                log.warning("commit failed", extra={"fault": str(error.orig), "jobs": len(ends)})
                if self.give_up.wait(wait_s):
                    return None
                wait_s = min(wait_s * 2, _RETRY_S[1])

    def _one_by_one(self, ends: Sequence[JobResult], error: Exception) -> frozenset[int] | None:
        """Register a group that the catalog refuses singly: only what is to blame fails."""
        if len(ends) > 1:
            parts = [self._register([result]) for result in ends]
            return None if None in parts else frozenset().union(*filter(None, parts))
        (result,) = ends
        log.error("result refused", extra={"job": result.job_id, "fault": str(error)})
        if result.outcome is Outcome.FAILED and not result.files and result.log is None:
            return self._register_barely(result, error)
        refused = replace(
            result,
            outcome=Outcome.FAILED,
            error=ErrorCode.OUTPUT_INVALID,
            message=f"the catalog refused the outputs: {error}",
            files=(),
            values={},
            log=None,
        )
        accepted = self._register([refused])
        self._discard(ends)
        return accepted

    def _register_barely(self, result: JobResult, error: Exception) -> frozenset[int] | None:
        """Register that a job has failed, and nothing else: with a lease that its pilot renews and
        nobody in charge it would run for ever."""
        bare = JobResult(result.job_id, result.attempt_id, result.number, Outcome.FAILED)
        if result == replace(bare, error=result.error, message=result.message):
            return frozenset()
        message = f"the catalog refused what is known of its end: {sentence(error)}"
        return self._register([replace(bare, error=ErrorCode.INTERNAL, message=message)])

    def _discard(self, refused: Sequence[JobResult]) -> None:
        """Remove the bytes of superseded attempts: no row names them."""
        for result in refused:
            try:
                discard(self._node, _files(result))
            except StorageError as error:
                log.warning("outputs stay as dark data", extra={"fault": str(error)})


def _ended(result: JobResult) -> JobResult:
    """The result as it is registered, which changes only what is still its pilot's.

    A job is stopped that isn't any more; if it is all the same, it must not stay so.
    """
    if result.outcome is not Outcome.STOPPED:
        return result
    message = "it was stopped, though it was still its pilot's"
    return replace(result, outcome=Outcome.FAILED, error=ErrorCode.PILOT_STOPPED, message=message)


def _files(result: JobResult) -> list[NewFile]:
    return [*result.files, *([result.log] if result.log else [])]
