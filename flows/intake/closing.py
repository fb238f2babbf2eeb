"""The ends of a rule's datasets, and closing those whose sources have all ended."""

import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlmodel import Session

from catalog import arrivals, closing, refusals, sources, unseen
from catalog.bulk import chunks
from catalog.db import Catalog
from catalog.outage import isolated, sentence
from catalog.refs import RefusalKind, SourceEnd
from catalog.rule import Rule
from catalog.sources import SourceInfo
from catalog.troubles import Of, Troubles
from flows.intake.asking import make
from flows.intake.rounds import Round
from flows.intake.sightings import Sighting

log = logging.getLogger(__name__)

_NAMES = 2000
_NOTE_S = 1.0
"""How much of a quiet that isn't over is written down at a time."""
EVERY_S = 0.5


def elapsed_s() -> float:
    """Seconds of this machine that no set clock moves, and no suspend stops."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass
class Changes:
    """What a look says of a rule's sources, and which of them end; of some all others, too."""

    seen: dict[int, dict[str, Any]] = field(default_factory=dict)
    ends: dict[int, SourceEnd] = field(default_factory=dict)
    ends_all: set[int] = field(default_factory=set)


class Closer:
    """Ends a rule's sources, by what its looks find."""

    def __init__(self, rule: Rule, catalog: Catalog) -> None:
        self._rule, self._catalog = rule, catalog
        self._quiet: dict[int, float] = {}
        self._seen_at: float | None = None
        self.suspects: frozenset[str] = frozenset()
        """Datasets of which the next look is to keep the paths that are there."""

    def judge(self, found: Round, ended: Collection[str]) -> Changes:
        """What a look says; `ended` are the datasets whose markers were there for two looks.

        What a dataset has and isn't there any more is refused to it, and so is the marker of a run
        without files.
        """
        now_s = elapsed_s()
        if self._seen_at is None:
            with self._catalog.write() as session:
                sources.join_standing(session, self._rule)
        passed_s = 0.0 if self._seen_at is None else now_s - self._seen_at
        self._seen_at = now_s
        with self._catalog.read() as session:
            mine = sources.of_rule(session, self._rule.id)
            is_blind = self._is_blind(session, found)
            counts = self._counts(session, mine)
            self._quiet = {info.id: self._quiet.get(info.id, 0.0) for info in mine}
            changes, due = Changes(), []
            for info in mine:
                files = max(info.files, found.members[info.dataset])
                is_busy = is_blind or info.dataset in found.busy
                self._learn(changes, info, files, is_blind, is_busy, passed_s)
                how = None
                if not is_busy and info.ended_by is None:
                    is_marked = info.dataset in ended
                    how = self._end_of(info, is_marked, counts.get(info.dataset_id, files))
                if how is not None:
                    changes.ends[info.id] = how
                    if self._rule.end_for_all and info.dataset in ended:
                        changes.ends_all.add(info.dataset_id)
                if how is not None or self._is_quiet(changes, info):
                    due.append(info)
            self._find_vanished(session, found, mine, due, changes, is_blind)
            empty = [] if is_blind else self._empty(session, found, ended)
        for name in empty:
            self._empty_run(found, name)
        for info in due:
            if self._rule.refused_after_s is None and info.dataset in found.held:
                # Not all that is refused has a row.
                self._put_off(changes, info)
        return changes

    def end(self, changes: Changes) -> None:
        """Write down what a look said."""
        if not (changes.seen or changes.ends):
            return
        with self._catalog.write() as session:
            sources.learn(session, list(changes.seen.values()))
            ends = changes.ends
            for others in sources.of_datasets(session, changes.ends_all).values():
                ends = {info.id: SourceEnd.OTHER for info in others} | ends
            sources.end(session, ends)

    def _find_vanished(
        self,
        session: Session,
        found: Round,
        mine: Sequence[SourceInfo],
        due: Sequence[SourceInfo],
        changes: Changes,
        is_blind: bool,
    ) -> None:
        """Look, before a dataset may be closed, for files that it has and that are there no more.

        Where there are fewer than it has, the next look keeps which: another rule's may be among
        them. Until then it doesn't end.
        """
        told = self._keep_vanished(session, found, mine)
        about = {i.dataset_id: i for i in mine if i.dataset in told or i in due}
        if is_blind or not about:
            self.suspects = frozenset()
            return
        counts = arrivals.counts_on(session, self._rule.storage_id, list(about))
        fewer = [
            i for i in about.values() if counts.get(i.dataset_id, 0) > found.members[i.dataset]
        ]
        self.suspects = frozenset(info.dataset for info in fewer)
        for info in fewer:
            if info.dataset not in found.watched:
                self._put_off(changes, info)
                found.waiting |= {p for p, one in found.told.items() if one.dataset == info.dataset}
                continue
            files = arrivals.only_there(session, self._rule.storage_id, info.dataset_id)
            for path, size_bytes in files:
                if path not in found.there and self._rule.takes(path) == info.dataset:
                    told_of = f"it is in {info.dataset}, and isn't there any more; put it back"
                    sighting = Sighting(path, info.dataset, size_bytes, 0)
                    found.refuse(sighting, RefusalKind.VANISHED, told_of)

    def _keep_vanished(
        self, session: Session, found: Round, mine: Sequence[SourceInfo]
    ) -> set[str]:
        """The datasets of which files were told to be gone; of CLOSED ones that stays told."""
        told = {p: i for p, i in found.told.items() if i.kind is RefusalKind.VANISHED}
        names = {item.dataset for item in told.values() if item.dataset is not None}
        others = names - {info.dataset for info in mine}
        if others:
            there = arrivals.places(session, others)
            found.waiting |= {p for p, i in told.items() if i.dataset in there} - found.registered
        return names

    def _put_off(self, changes: Changes, info: SourceInfo) -> None:
        """Have a source not end by this look."""
        changes.ends.pop(info.id, None)
        changes.ends_all.discard(info.dataset_id)
        if self._is_quiet(changes, info):
            row = changes.seen.pop(info.id)
            self._quiet[info.id] = row["quiet_for_s"] - info.quiet_for_s

    def _is_quiet(self, changes: Changes, info: SourceInfo) -> bool:
        """Whether its quiet is over by this look."""
        row, quiet_s = changes.seen.get(info.id), self._rule.quiet_s
        return row is not None and quiet_s is not None and row["quiet_for_s"] >= quiet_s

    def _is_blind(self, session: Session, found: Round) -> bool:
        """Whether files of any dataset may lie where nobody can look."""
        return found.all_busy or bool(unseen.folders(session, self._rule.dataset, self._rule.id))

    def _counts(self, session: Session, mine: Collection[SourceInfo]) -> dict[int, int]:
        """How many files datasets have of which the rule is the only source."""
        if self._rule.close_count is None or not mine:
            return {}
        ids = {info.dataset_id for info in mine if info.ended_by is None}
        alone = {i for i, found in sources.of_datasets(session, ids).items() if len(found) == 1}
        return {**dict.fromkeys(alone, 0), **arrivals.counts(session, alone)}

    def _learn(
        self,
        changes: Changes,
        info: SourceInfo,
        files: int,
        is_blind: bool,
        is_busy: bool,
        passed_s: float,
    ) -> None:
        """Note what is new of a source."""
        late = info.late + (files - info.files if info.ended_by is not None else 0)
        quiet_s = info.quiet_for_s
        if self._rule.quiet_s is not None and info.ended_by is None and files > 0:
            if files > info.files or (is_busy and not is_blind):
                quiet_s = self._quiet[info.id] = 0.0
            elif not is_blind:
                self._quiet[info.id] += passed_s
                total_s = info.quiet_for_s + self._quiet[info.id]
                if self._quiet[info.id] >= _NOTE_S or total_s >= self._rule.quiet_s:
                    quiet_s, self._quiet[info.id] = total_s, 0.0
        elif is_busy and not files:
            quiet_s = 0.0  # something of it is on its way
        if (files, late, quiet_s) != (info.files, info.late, info.quiet_for_s):
            row = {"id": info.id, "files": files, "late": late, "quiet_for_s": quiet_s}
            changes.seen[info.id] = row

    def _end_of(self, info: SourceInfo, is_marked: bool, files: int) -> SourceEnd | None:
        """What ends a source; None: nothing yet."""
        rule = self._rule
        if is_marked and (rule.either or rule.close_count is None):
            return SourceEnd.MARKER
        if rule.close_count is None or not files or files < rule.close_count:
            return None
        is_enough = rule.end_pattern is None or rule.either or is_marked
        return SourceEnd.COUNT if is_enough else None

    def _empty(self, session: Session, found: Round, ended: Collection[str]) -> list[str]:
        """Runs of which there is a marker, and no file: now or ever."""
        names = sorted(set(ended) - found.filled - found.busy - found.held)
        empty = []
        for batch in chunks(names, _NAMES):
            known = arrivals.known_names(session, batch)
            known |= refusals.held(session, batch, self._rule.id)
            empty += [name for name in batch if name not in known]
        return empty

    def _empty_run(self, found: Round, name: str) -> None:
        if self._rule.close_empty:
            # The next look finds it ended.
            with self._catalog.write() as session:
                make(session, self._rule, [name])
            return
        found.refuse(
            found.markers[name],
            RefusalKind.EMPTY_RUN,
            f"the marker of {name} is there, and no file of it; `spdf dataset create {name}` makes "
            "it, and a rule with --empty-runs close does so by itself",
        )


class Closing:
    """Takes turns of closing datasets whose sources have ended.

    `idle_s` is how long a rule that saw nothing of one is waited for once all others have ended.
    """

    def __init__(self, catalog: Catalog, fence: Callable[[Session], None], idle_s: float) -> None:
        self._catalog, self._fence, self._idle_s = catalog, fence, idle_s
        self._at: float | None = None
        self._troubles = Troubles(catalog, "close")

    def turn(self) -> float:
        """Close what is due; gives the seconds until the next turn."""
        now_s = elapsed_s()
        passed_s = 0.0 if self._at is None else now_s - self._at
        self._at = now_s
        with self._catalog.read() as session:
            is_awaited = bool(closing.announced(session))
        if is_awaited:
            with self._catalog.write() as session:
                self._fence(session)
                closing.count_announced(session, closing.announced(session))
        after = 0
        while True:
            with self._catalog.read() as session:
                page = closing.ended(session, after=after)
                kept = closing.kept_open(session, page)
            for item in page:
                with isolated("dataset", item.name, self._tell(item)):
                    self._close(item, item.id in kept, passed_s)
                    self._troubles.over(Of.DATASET, item.id)
            if len(page) < closing.PAGE:
                return EVERY_S
            after = page[-1].id

    def _tell(self, item: closing.Ended) -> Callable[[Exception], None]:
        def tell(error: Exception) -> None:
            told = f"it can't be closed: {sentence(error)}"
            self._troubles.note(Of.DATASET, item.id, item.name, told)

        return tell

    def _close(self, item: closing.Ended, is_kept: bool, passed_s: float) -> None:
        if is_kept:
            return
        waits = [info for info in item.idle if info.quiet_for_s < self._idle_s]
        if len(item.idle) == len(item.sources):
            return  # it was made, and nobody has seen anything of it
        with self._catalog.write() as session:
            self._fence(session)
            if waits:
                closing.add_idle(session, waits, passed_s)
                return
            sources.end(session, dict.fromkeys((i.id for i in item.idle), SourceEnd.NOTHING))
            if not closing.close(session, item):
                session.rollback()
                return
        log.info("dataset closed", extra={"dataset": item.name})
