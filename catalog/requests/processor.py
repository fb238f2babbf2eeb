"""Doing what requests ask for, in batches; one process has this role at a time.

A batch is one transaction. Where one of its requests can't be done, whatever the reason, the batch
is halved until that one stands alone and is answered with ERROR; the order within a dataset is kept
throughout. Only what would meet every request, such as a catalog that is away, ends a turn.
"""

import gc
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace

from sqlalchemy.exc import DataError, IntegrityError
from sqlmodel import Session

from catalog import storages
from catalog.db import Catalog
from catalog.errors import Conflict, NotFound, SpdfError
from catalog.failpoints import reach
from catalog.outage import in_halves, is_outage, isolated, sentence
from catalog.requests import queue, work
from catalog.requests.actions import Actions, Reply
from catalog.requests.kinds import RequestDocument, parse
from catalog.requests.looking import LOOK_S, Looking
from catalog.requests.looks import AWAY_S, MOST_FAULTS, Away, Look, Looker, Waits
from catalog.requests.queue import Answer, Answered, RequestInfo
from catalog.requests.rereading import with_known
from catalog.states import RequestState

log = logging.getLogger(__name__)

MOST = 1000
MOST_FILES = 20_000
_YOUNG = 20_000
"""Objects that are made between two searches for garbage among them."""

Fence = Callable[[Session], None]
"""Raises where this process has lost the role; called first in every transaction."""


@dataclass(frozen=True)
class Entry:
    """A request that is being done: its document, and what was seen of its files."""

    info: RequestInfo
    document: RequestDocument
    looks: tuple[Look, ...] = ()


@dataclass(frozen=True)
class Window:
    """Requests that may be done now: those to be tried, and answers to those that can't be.

    `is_whole` says that all that was found is answered with it, and no lane waits behind.
    """

    entries: Sequence[Entry] = ()
    answers: Sequence[Answer] = ()
    is_whole: bool = False


class Processor:
    """Does QUEUED requests, a window at a time; the next is read while the database works."""

    def __init__(self, catalog: Catalog, fence: Fence) -> None:
        self._catalog, self._fence = catalog, fence
        self._looking = Looking(Away())
        self._aside: dict[str, tuple[int, float]] = {}
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        self._ahead: Future[Window] | None = None
        self._glance = queue.glance(catalog)

    def close(self) -> None:
        """End the threads."""
        # The looks first: what is read ahead now is for nobody, and may be long.
        self._looking.close()
        self._reader.shutdown(cancel_futures=True)

    def try_again(self) -> None:
        """Try at once what waits for a storage that was away."""
        self._looking.away = Away()
        self._aside.clear()

    def turn(self, wait_s: float = LOOK_S) -> int:
        """Do what may be done now; gives 0 where there was nothing, and nothing came about.

        With nothing to do it waits up to `wait_s` for a look that goes on.
        """
        ahead, self._ahead = self._ahead, None
        if not self._catalog.glance(self._glance)[0]:
            self._looking.forget(self._looking.begun)
            return 0
        with self._catalog.read() as session:
            begun = queue.in_work(session)
        done = self._settle(begun)
        window = self._next(ahead)
        reach("requests.looked")
        if window.entries or window.answers:
            following = self._read_ahead(window)
            self._do(window)
            self._ahead = following
        count = done + len(window.answers) + len(window.entries)
        # With nothing else to do a look that ends is the next thing to be done.
        return count or self._looking.wait(wait_s)

    def _next(self, ahead: Future[Window] | None) -> Window:
        """What is to be done now: what was read ahead, unless there was nothing yet."""
        window = ahead.result() if ahead else Window()
        return window if window.entries or window.answers else self._read(())

    def _read_ahead(self, window: Window) -> Future[Window] | None:
        """Begin to read what follows a window that is about to be done.

        Order holds within a dataset: of a whole window no request is left behind, and none begins
        work for which others must wait. Where the window fails, what was read is not used.
        """
        if not window.is_whole:
            return None
        return self._reader.submit(self._read, [entry.info.id for entry in window.entries])

    def _read(self, besides: Sequence[int]) -> Window:
        """What may be done once those `besides` are answered."""
        aside, looked_at = self._lanes_aside(), self._looking.begun
        with self._catalog.read() as session:
            if looked_at:
                self._looking.forget(set(looked_at) - set(queue.waiting(session, looked_at)))
            found = queue.window(session, besides, aside, most=MOST, most_files=MOST_FILES)
            # Read after the requests: a storage that was there before a request is known.
            places = storages.list_all(session)
        if not found:
            return Window()
        entries, answers = self._look(_heads(found), Looker(places, self._looking.away))
        is_long = any(work.is_long(info.kind) for info in found)
        return Window(entries, answers, len(entries) == len(found) and not is_long)

    def _lanes_aside(self) -> list[str]:
        """Lanes whose first request waits: with it in the window there is no place for others."""
        self._aside = {
            lane: (request_id, until)
            for lane, (request_id, until) in self._aside.items()
            if time.monotonic() < until or not self._looking.is_done(request_id)
        }
        return list(self._aside)

    def _set_aside(self, info: RequestInfo, why: Waits) -> None:
        is_read = info.id in self._looking.begun
        self._aside[info.lane] = info.id, time.monotonic() + (0.0 if is_read else AWAY_S)
        log.debug("request waits", extra={"request": info.id, "why": str(why)})

    def _settle(self, begun: Sequence[RequestInfo]) -> int:
        """Answer the requests whose long work has ended."""
        answers: list[Answer] = []
        for info in begun:
            refuse = lambda error, info=info: answers.append(_refusal(info, error))  # noqa: E731
            with isolated("request", info.id, refuse), self._catalog.read() as session:
                outcome = work.outcome(session, info)
                if outcome is not None:
                    answers.append(Answer(info.id, *outcome))
        if answers:
            self._answer(answers)
        return len(answers)

    def _look(
        self, found: Sequence[RequestInfo], looker: Looker
    ) -> tuple[list[Entry], list[Answer]]:
        """What can be tried, and answers to what can't be.

        Behind a request whose storage is away the others of its dataset wait, too.
        """
        entries: list[Entry] = []
        answers: list[Answer] = []
        parsed: list[tuple[RequestInfo, RequestDocument]] = []
        for info in found:
            try:
                parsed.append((info, parse(info.document, f"request {info.key!r}")))
            except Exception as error:
                if is_outage(error):
                    raise
                answers.append(_refusal(info, error))
        with self._catalog.read() as session:
            documents = with_known(session, looker, [document for _, document in parsed])
        wanted = [
            (info.id, info.lane, document)
            for (info, _), document in zip(parsed, documents, strict=True)
        ]
        seen = self._looking.look(looker, wanted)
        for (info, document), looks in zip(parsed, seen, strict=True):
            if info.lane in self._aside:
                continue
            if isinstance(looks, Waits):
                self._set_aside(info, looks)
            elif isinstance(looks, SpdfError):
                answers.append(_refusal(info, looks))
            else:
                entries.append(Entry(info, document, looks))
        return entries, answers

    def _answer(self, answers: Sequence[Answer]) -> None:
        with self._catalog.write() as session:
            self._fence(session)
            _answer(session, answers)

    def _do(self, window: Window) -> None:
        """Do its requests in one transaction; those that can't be done are answered with why."""
        refused: list[Answer] = []
        with self._catalog.write() as session:
            self._fence(session)
            _answer(session, window.answers)

            def refuse(entry: Entry, error: Exception) -> None:
                if not isinstance(error, Answered):
                    refused.append(_refuse(session, entry, error))

            def attempt(some: Sequence[Entry]) -> None:
                for entry, error in _attempt(session, some):
                    refuse(entry, error)

            in_halves(window.entries, attempt, refuse)
            if refused:
                queue.answer(session, refused)
            reach("requests.answered")
        reach("requests.committed")


def _answer(session: Session, answers: Sequence[Answer]) -> None:
    """Answer requests, but for those that another has answered meanwhile."""

    def write(some: Sequence[Answer]) -> None:
        with session.begin_nested():
            queue.answer(session, some)

    def tell(_answer: Answer, error: Exception) -> None:
        if not isinstance(error, Answered):
            raise error

    in_halves(answers, write, tell)


def _attempt(session: Session, entries: Sequence[Entry]) -> list[tuple[Entry, SpdfError]]:
    """Do requests, and answer them; gives those that can't be done, of which nothing stays.

    Raises where it isn't plain which one is to blame; then nothing stays of any.
    """
    with session.begin_nested():
        actions = Actions(session, [entry.document for entry in entries])
        done: list[tuple[Entry, Reply | None]] = []
        refused: list[tuple[Entry, SpdfError]] = []
        for entry in entries:
            actions.prepare(entry.document)
            try:
                actions.check(entry.document)
                # Files are only gathered here: what can fail of that has written nothing yet.
                apart = nullcontext() if entry.looks else session.begin_nested()
                with apart:
                    done.append((entry, actions.do(entry.document, entry.looks)))
            except SpdfError as error:
                if error.is_outage:
                    raise
                refused.append((entry, error))
        actions.flush()
        reach("requests.done")
        queue.answer(session, _answers(done))
        for entry, reply in done:
            if reply is None:
                queue.begin(session, entry.info.id)
    return refused


def _refuse(session: Session, entry: Entry, error: Exception) -> Answer:
    """The answer to a request that can't be done, with the files that are to blame."""
    answer = _refusal(entry.info, error)
    if len(entry.looks) < 2:
        return answer
    faults: list[dict[str, object]] = []

    def attempt(looks: Sequence[Look]) -> None:
        if len(faults) < MOST_FAULTS:
            _try_out(session, entry, looks)

    def blame(look: Look, fault: Exception) -> None:
        faults.append({**look.named, "error": sentence(fault)})

    in_halves(entry.looks, attempt, blame)
    return replace(answer, reply={**answer.reply, "files": faults}) if faults else answer


def _try_out(session: Session, entry: Entry, looks: Sequence[Look]) -> None:
    """Register files of a request as if it had no others; nothing stays of it."""
    trial = session.begin_nested()
    try:
        actions = Actions(session)
        actions.do(entry.document, looks)
        actions.flush()
    finally:
        trial.rollback()


def collect_rarely() -> None:
    """Have this process, which runs a `Processor`, search for cycles of garbage less often.

    A window's rows are hundreds of thousands of objects, all in use: to search them every 700 took
    half of the time that Python had.
    """
    gc.set_threshold(_YOUNG)


def _heads(found: Sequence[RequestInfo]) -> list[RequestInfo]:
    """Of each dataset's requests those up to the first whose work goes on for longer."""
    held: set[str] = set()
    heads = []
    for info in found:
        if info.lane not in held:
            heads.append(info)
        if work.is_long(info.kind):
            held.add(info.lane)
    return heads


def _answers(done: Sequence[tuple[Entry, Reply | None]]) -> list[Answer]:
    return [
        Answer(entry.info.id, RequestState.DONE, reply)
        for entry, reply in done
        if reply is not None
    ]


def _refusal(info: RequestInfo, error: Exception) -> Answer:
    reply: dict[str, object] = {"error": sentence(error), "code": _code(error)}
    files = getattr(error, "files", None)
    if files:
        reply["files"] = files
    return Answer(info.id, RequestState.ERROR, reply)


def _code(error: Exception) -> str:
    """What an answer's `code` says of an error: whose fault it is."""
    if isinstance(error, Conflict | IntegrityError):
        return work.CONFLICT
    if isinstance(error, NotFound):
        return "NOT_FOUND"
    what_was_given = SpdfError, DataError, OverflowError, UnicodeError, RecursionError, MemoryError
    return "BAD_INPUT" if isinstance(error, what_was_given) else "INTERNAL"
