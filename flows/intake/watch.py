"""Watching for one rule: files that arrive, and stay as they are, become requests.

What is asked for has a key made of the rule, the dataset, the path and the file's state, so that a
watch that begins anew asks for the same things. Only what isn't registered yet is kept in memory,
and when the files of OPEN datasets were written that have no stamp.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Any

from sqlmodel import Session

from catalog import intakelooks, refusals, storages
from catalog.arrivals import Place, Registered
from catalog.bulk import chunks
from catalog.db import Catalog
from catalog.drivers import driver_for
from catalog.errors import BadInput
from catalog.names import shown
from catalog.outage import in_halves, sentence
from catalog.refs import RefusalKind, Settlement, StorageInfo, StorageKind
from catalog.refusals import MOST, MOST_DETACHED, Likeness, NewRefusal
from catalog.requests import queue
from catalog.rule import Rule
from catalog.stamps import same_time
from catalog.states import DatasetState, RequestState
from flows.intake import asking, closing
from flows.intake.known import known
from flows.intake.roles import Errand
from flows.intake.rounds import Arrival, Round
from flows.intake.sightings import Sighting, Take, look

log = logging.getLogger(__name__)

_PAGE = 2000
_SHARE = 0.25
"""Part of its time that a watch lists; the rest it waits."""
_LOOKS = 16
"""Looks of which the shortest says how long one takes: others had to wait for the machine."""
_LEAST_S, _MOST_S = 0.25, 60.0
_NOTE_S = 10.0
"""How often it is written down that looks go well."""
MOST_WAITING = 200_000
"""Files that may wait, to become older or to be registered; others are taken after them."""

Look = Callable[[Errand, Take], None]


@dataclass
class _Pending:
    """A file that isn't asked for yet: how it was found, and since when it is so."""

    state: tuple[int, int]
    since: float


@dataclass
class _Asked:
    """A file that was asked for: in which state, for which dataset, by which request.

    `is_open`: whether the dataset took files, as far as was seen since.
    """

    state: tuple[int, int]
    dataset_id: int
    request_id: int
    is_open: bool = True
    is_done: bool = False
    error: str | None = None

    def learn(self, state: RequestState, reply: Mapping[str, Any]) -> None:
        """It was answered."""
        self.is_done, self.error = state is RequestState.DONE, None
        if not self.is_done:
            told = reply.get("error", "it has no reason")
            self.error = f"request {self.request_id} was answered with {state}: {told}"


class Watch:
    """Follows one rule. `markers` are those of all rules of the storage; `looker` looks there."""

    def __init__(
        self,
        rule: Rule,
        catalog: Catalog,
        looker: Look | None = None,
        markers: Sequence[str] = (),
    ) -> None:
        self.rule, self._catalog = rule, catalog
        with catalog.read() as session:
            storage = storages.get(session, rule.storage_id)
            self._told = {
                item.path: NewRefusal(
                    item.path, item.dataset, item.kind, item.reason, item.size_bytes, item.mtime_us
                )
                for item in refusals.of_rule(session, rule.id, MOST + MOST_DETACHED)
            }
        self._storage = storage
        self._look = looker or _here(storage)
        self.markers = tuple(markers)
        # Objects of S3 are there whole or not at all.
        self._stable_s = rule.stable_s if storage.kind is StorageKind.LOCAL else 0.0
        self._pending: dict[str, _Pending] = {}
        self._asked: dict[str, _Asked] = {}
        self._taken: dict[str, int] = {}
        self._ended: set[str] = set()
        self._closer = closing.Closer(rule, catalog)
        self._took_s: deque[float] = deque(maxlen=_LOOKS)
        self._noted: tuple[float, int] | None = None
        self._learnt = time.monotonic()

    def turn(self) -> float:
        """Look once, and do what is due; gives the seconds until the next look."""
        return self.act(self.look())

    def look(self) -> Round:
        """What is there now; raises `BadInput` for a rule that can't be followed."""
        if (fault := self.rule.fault) is not None:
            raise BadInput(fault)
        errand, dismissed = self._errand()
        found = Round(self._told, dismissed=dismissed, watched=self._closer.suspects)
        # Before the look: what was done by then is seen as registered.
        self._learn()
        begun = time.monotonic()
        self._look(errand, lambda page: self._sort(found, page))
        self._took_s.append(time.monotonic() - begun)
        return found

    def act(self, found: Round) -> float:
        """Do what the last look calls for; gives the seconds until the next one."""
        self._forget(found)
        self._ask(found)
        # A listing that meets a marker may have passed files that came just before it; the next
        # one has them all.
        ended = found.markers.keys() & self._ended
        self._ended = set(found.markers)
        changes = self._closer.judge(found, ended)
        # Before a source ends: what isn't taken holds its dataset open.
        self._remember(found)
        self._closer.end(changes)
        return min(_MOST_S, max(_LEAST_S, min(self._took_s) / _SHARE))

    def _errand(self) -> tuple[Errand, dict[str, Likeness]]:
        """What to look for, on the storage as it is known by now, and what was said to leave out.

        The storage may have got its marker.
        """
        rule = self.rule
        with self._catalog.read() as session:
            self._storage = storages.get(session, rule.storage_id)
            dismissed = refusals.dismissed(session, rule.id)
        errand = Errand(
            self._storage, rule.prefix, rule.pattern, rule.dataset, rule.end_pattern, self.markers
        )
        return errand, dismissed

    def _sort(self, found: Round, page: Sequence[Sighting]) -> None:
        """Sort out what is new of a page."""
        files = {}
        for sighting in page:
            if sighting.refused is not None:
                found.refuse(sighting, sighting.refused, sighting.reason)
                found.all_busy |= self._may_hold_any(sighting)
            elif sighting.is_marker:
                assert sighting.dataset is not None
                found.markers[sighting.dataset] = sighting
            else:
                files[sighting.path] = sighting
        found.files += len(files)
        found.filled |= {str(sighting.dataset) for sighting in files.values()}
        with self._catalog.read() as session:
            of = known(session, self.rule.storage_id, files)
        for path, sighting in files.items():
            found.saw(sighting)
            if path in of.left:
                # What stayed of a dataset that was deleted is no file of it any more.
                if path not in of.forgone:
                    self._leave(found, sighting)
            else:
                place = of.places.get(str(sighting.dataset))
                self._judge(found, sighting, place, of.registered.get(path))

    def _leave(self, found: Round, sighting: Sighting) -> None:
        """A detached file: that it stays out was a person's decision, so its dataset may close."""
        found.refuse(
            sighting,
            RefusalKind.DETACHED,
            "it stayed when the dataset that had it was deleted, and is as it was left; `spdf "
            f"intake rescan --storage {self.rule.storage} --prefix {quote(shown(sighting.path))}` "
            "lets rules take it",
        )

    def _may_hold_any(self, sighting: Sighting) -> bool:
        """Whether files of any of the rule's datasets may lie in a folder that can't be read."""
        if sighting.dataset is not None or sighting.refused is not RefusalKind.UNREADABLE:
            return False
        return self.rule.may_lie_below(sighting.path)

    def _judge(
        self, found: Round, sighting: Sighting, place: Place | None, row: Registered | None
    ) -> None:
        """What is to become of a file; in its dataset it is as its `row` says, None: it isn't."""
        if place is None or place.state is DatasetState.OPEN:
            # Asked at any size: one that is written anew may have its old size again later.
            has_changed = row is not None and self._has_changed(found, sighting, row)
            if row is not None and row.size_bytes == sighting.size_bytes and not has_changed:
                found.known(sighting)
            else:
                kind = RefusalKind.REFUSED if row is None else RefusalKind.CHANGED
                self._consider(found, sighting, place, kind)
        elif row is None:
            found.refuse(
                sighting,
                RefusalKind.LATE,
                f"it came when {sighting.dataset} was {place.state}, and is not in it; another "
                "dataset can take it: `spdf dataset create`, then `spdf dataset add`",
            )
            # Who sent it finds an answer among the requests, too.
            self._consider(found, sighting, place, RefusalKind.LATE)
        elif row.size_bytes != sighting.size_bytes:
            found.refuse(
                sighting,
                RefusalKind.CHANGED,
                f"it has {sighting.size_bytes} bytes now, and {row.size_bytes} where it was "
                "registered",
            )
        elif row.mtime_us is not None and not same_time(row.mtime_us, sighting.mtime_us):
            found.refuse(
                sighting,
                RefusalKind.CHANGED,
                f"it was written to after it was registered, and has its size still; `spdf dataset "
                f"verify {sighting.dataset}` tells whether it has other bytes",
            )
        else:
            found.known(sighting)

    def _has_changed(self, found: Round, sighting: Sighting, row: Registered) -> bool:
        """Whether a registered file was written to since, by its time."""
        path = sighting.path
        if row.mtime_us is not None:
            return not same_time(row.mtime_us, sighting.mtime_us)
        before = self._taken.get(path)
        if before is None:
            asked, told = self._asked.get(path), self._told.get(path)
            if told is not None and told.kind is RefusalKind.CHANGED:
                return True
            before = sighting.mtime_us if asked is None else asked.state[1]
        if len(found.taken) < MOST_WAITING:
            found.taken[path] = before
        return before != sighting.mtime_us

    def _consider(
        self, found: Round, sighting: Sighting, place: Place | None, kind: RefusalKind
    ) -> None:
        """A file that isn't registered as it is: ready, asked for, refused, or still changing.

        `kind` is what it is once it was refused.
        """
        path, dataset = sighting.path, str(sighting.dataset)
        found.seen.add(path)
        dataset_id = None if place is None else place.id
        asked = self._asked.get(path)
        is_open = place is None or place.state is DatasetState.OPEN
        # What was refused of a dataset that was going is asked for again once that is undone.
        if asked is not None and (asked.is_open or not is_open) and (
            asked.state, asked.dataset_id
        ) == (sighting.state, dataset_id):  # fmt: skip
            asked.is_open = is_open
            if asked.error is not None and kind is not RefusalKind.LATE:
                found.refuse(sighting, kind, asked.error)
            elif asked.is_done and kind is RefusalKind.CHANGED:
                told = "it was written to since it was read, and has the time of an earlier writing"
                found.refuse(sighting, kind, f"{told}; `touch` has it read again")
            elif not asked.is_done:
                found.busy.add(dataset)
                found.wait_for(sighting)
            return
        found.busy.add(dataset)
        found.wait_for(sighting)
        moment = time.monotonic()
        pending = self._pending.get(path)
        if pending is None or pending.state != sighting.state:
            if pending is None and len(self._pending) + len(self._asked) >= MOST_WAITING:
                return
            pending = self._pending[path] = _Pending(sighting.state, moment)
        if moment - pending.since >= self._stable_s:
            found.ready.append(Arrival(sighting, dataset_id, is_open))

    def _learn(self) -> None:
        """What became of what was asked for; what was refused may have been asked for again."""
        is_due = time.monotonic() - self._learnt >= _NOTE_S
        if is_due:
            self._learnt = time.monotonic()
        by_id = {
            item.request_id: item
            for item in self._asked.values()
            if not item.is_done and (item.error is None or is_due)
        }
        for batch in chunks(sorted(by_id), _PAGE):
            with self._catalog.read() as session:
                answers = queue.answers(session, batch)
            for request_id, (state, reply) in answers.items():
                by_id[request_id].learn(state, reply)

    def _forget(self, found: Round) -> None:
        """Keep nothing of files that are registered, or gone."""
        self._pending = {p: item for p, item in self._pending.items() if p in found.seen}
        self._asked = {p: item for p, item in self._asked.items() if p in found.seen}
        self._taken = found.taken
        for path, item in self._asked.items():
            if item.is_done and len(self._taken) < MOST_WAITING:
                # Written to, and the same bytes still.
                self._taken[path] = item.state[1]

    def _ask(self, found: Round) -> None:
        """Ask for the files that are ready, in the order of their times."""
        ordered = sorted(found.ready, key=lambda a: (a.sighting.mtime_us, a.sighting.path))

        def refuse(arrival: Arrival, error: Exception) -> None:
            why = f"it can't be asked for: {sentence(error)}"
            found.refuse(arrival.sighting, RefusalKind.REFUSED, why)

        for page in chunks(ordered, _PAGE):
            in_halves(page, self._ask_together, refuse)
        if ordered:
            log.info("files arrived", extra={"rule": self.rule.name, "files": len(ordered)})

    def _ask_together(self, page: Sequence[Arrival]) -> None:
        with self._catalog.write() as session:
            asked = asking.ask(session, self.rule, self._storage, page)
        for arrival, (dataset_id, request_id) in zip(page, asked, strict=True):
            sighting = arrival.sighting
            self._asked[sighting.path] = _Asked(
                sighting.state, dataset_id, request_id, arrival.is_open
            )
            self._pending.pop(sighting.path, None)

    def _remember(self, found: Round) -> None:
        """Write down what isn't taken, and that the look went well."""
        new = [item for path, item in found.refused.items() if self._told.get(path) != item]
        over = self._told.keys() - found.refused.keys() - found.waiting
        moment = time.monotonic()
        is_noted = self._noted is not None and (
            moment - self._noted[0] < _NOTE_S and self._noted[1] == found.refusals
        )
        if not (new or over) and is_noted:
            return
        with self._catalog.write() as session:
            self._settle(session, found, over)
            refusals.note(session, self.rule.id, self.rule.storage_id, new)
            intakelooks.good(session, self.rule.id, files=found.files, refused=found.refusals)
        still = {path: self._told[path] for path in self._told.keys() & found.waiting}
        self._told, self._noted = {**still, **found.refused}, (moment, found.refusals)
        for item in new:
            log.warning(
                "left alone", extra={"rule": self.rule.name, "path": item.path, "why": item.reason}
            )

    def _settle(self, session: Session, found: Round, over: Iterable[str]) -> None:
        registered = [path for path in over if path in found.registered]
        gone = [path for path in over if path not in found.registered]
        refusals.settle(session, self.rule.id, registered, Settlement.REGISTERED)
        refusals.settle(session, self.rule.id, gone, Settlement.GONE)

    def failed(self, why: str) -> None:
        """Write down that a look went wrong."""
        self._noted = None
        with self._catalog.write() as session:
            intakelooks.failed(session, self.rule.id, why)


def _here(storage: StorageInfo) -> Look:
    """A look in this process."""
    driver = driver_for(storage)
    return lambda errand, take: look(driver, errand, take)
