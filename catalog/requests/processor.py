"""Doing what requests ask for, in batches; one process has this role at a time.

A batch is one transaction. Where one of its requests can't be done, the batch is halved until that
one stands alone and is answered with ERROR; the order within a dataset is kept throughout.
"""

import gc
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from sqlmodel import Session

from catalog import storages
from catalog.db import Catalog
from catalog.errors import Conflict, NotFound, SpdfError
from catalog.failpoints import reach
from catalog.requests import queue, work
from catalog.requests.actions import Actions
from catalog.requests.kinds import RequestDocument, parse
from catalog.requests.looks import Away, Look, Looker, Waits
from catalog.requests.queue import Answer, RequestInfo
from catalog.states import RequestState

log = logging.getLogger(__name__)

MOST = 1000
MOST_FILES = 20_000
MOST_NAMED = 20
"""Files that one answer names as offending."""
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
        self._pool = ThreadPoolExecutor(8, thread_name_prefix="look")
        self._away = Away()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        self._ahead: Future[Window] | None = None
        self._glance = queue.glance(catalog)

    def close(self) -> None:
        """End the threads."""
        # The looks first: what is read ahead now is for nobody, and may be long.
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._reader.shutdown(cancel_futures=True)

    def turn(self) -> int:
        """Do what may be done now; gives how many requests were answered or begun."""
        ahead, self._ahead = self._ahead, None
        if not self._catalog.glance(self._glance)[0]:
            return 0
        with self._catalog.read() as session:
            begun = queue.in_work(session)
        done = self._settle(begun)
        window = self._next(ahead)
        reach("requests.looked")
        if window.answers:
            self._answer(window.answers)
        if window.entries:
            following = self._read_ahead(window)
            self._do(window.entries)
            self._ahead = following
        return done + len(window.answers) + len(window.entries)

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
        with self._catalog.read() as session:
            found = queue.window(session, besides, most=MOST, most_files=MOST_FILES)
            # Read after the requests: a storage that was there before a request is known.
            places = storages.list_all(session)
        if not found:
            return Window()
        entries, answers = self._look(_heads(found), Looker(places, self._pool, self._away))
        is_long = any(work.is_long(info.kind) for info in found)
        return Window(entries, answers, len(entries) == len(found) and not is_long)

    def _settle(self, begun: Sequence[RequestInfo]) -> int:
        """Answer the requests whose long work has ended."""
        answers = []
        for info in begun:
            with self._catalog.read() as session:
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
            except SpdfError as error:
                answers.append(_refusal(info, error))
        waiting: set[str] = set()
        seen = looker.look([document for _, document in parsed])
        for (info, document), looks in zip(parsed, seen, strict=True):
            if info.lane in waiting:
                continue
            if isinstance(looks, Waits):
                waiting.add(info.lane)
                log.debug("request waits", extra={"request": info.id, "why": str(looks)})
            elif isinstance(looks, SpdfError):
                answers.append(_refusal(info, looks))
            else:
                entries.append(Entry(info, document, looks))
        return entries, answers

    def _answer(self, answers: Sequence[Answer]) -> None:
        with self._catalog.write() as session:
            self._fence(session)
            queue.answer(session, answers)

    def _do(self, entries: Sequence[Entry]) -> None:
        """Do them in one transaction; where one can't be done, in smaller ones."""
        try:
            with self._catalog.write() as session:
                self._fence(session)
                actions = Actions(session)
                replies = [actions.do(entry.document, entry.looks) for entry in entries]
                actions.flush()
                reach("requests.done")
                queue.answer(session, _answers(entries, replies))
                for entry, reply in zip(entries, replies, strict=True):
                    if reply is None:
                        queue.begin(session, entry.info.id)
                reach("requests.answered")
        except SpdfError as error:
            if len(entries) == 1:
                self._answer([self._refuse(entries[0], error)])
                return
            half = len(entries) // 2
            self._do(entries[:half])
            self._do(entries[half:])
        reach("requests.committed")

    def _refuse(self, entry: Entry, error: SpdfError) -> Answer:
        """The answer to a request that can't be done, with the files that are to blame."""
        answer = _refusal(entry.info, error)
        if len(entry.looks) < 2:
            return answer
        faults: list[dict[str, object]] = []
        for look in entry.looks:
            if len(faults) >= MOST_NAMED:
                break
            fault = self._fault(entry, look)
            if fault is not None:
                faults.append({**look.named, "error": str(fault)})
        return replace(answer, reply={**answer.reply, "files": faults}) if faults else answer

    def _fault(self, entry: Entry, look: Look) -> SpdfError | None:
        """Why a file of a request can't be registered; nothing stays of the try."""
        with self._catalog.write() as session:
            trial = session.begin_nested()
            try:
                actions = Actions(session)
                actions.do(entry.document, (look,))
                actions.flush()
            except SpdfError as fault:
                return fault
            finally:
                trial.rollback()
        return None


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


def _answers(entries: Sequence[Entry], replies: Sequence[dict[str, object] | None]) -> list[Answer]:
    return [
        Answer(entry.info.id, RequestState.DONE, reply)
        for entry, reply in zip(entries, replies, strict=True)
        if reply is not None
    ]


def _refusal(info: RequestInfo, error: SpdfError) -> Answer:
    reply: dict[str, object] = {"error": str(error)}
    if isinstance(error, Conflict):
        reply["code"] = "CONFLICT"
    elif isinstance(error, NotFound):
        reply["code"] = "NOT_FOUND"
    else:
        reply["code"] = "BAD_INPUT"
    files = getattr(error, "files", None)
    if files:
        reply["files"] = files
    return Answer(info.id, RequestState.ERROR, reply)
