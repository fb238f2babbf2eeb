"""Closing the datasets of a rule, once they have ended and nothing of them is on its way."""

import time
from collections.abc import Collection

from catalog import arrivals, intakerules, refusals, unseen
from catalog.bulk import chunks
from catalog.db import Catalog
from catalog.intakerules import Filling
from catalog.refs import RefusalKind, RequestKind
from catalog.requests import parse, queue, submit
from catalog.rule import Rule
from flows.intake.asking import key_of, make
from flows.intake.rounds import Round

_NAMES = 2000
_AGAIN_S = 60.0
"""How often a close that was answered with ERROR is asked for again."""


class Closer:
    """Asks for the close of a rule's datasets."""

    def __init__(self, rule: Rule, catalog: Catalog) -> None:
        self._rule, self._catalog = rule, catalog
        self._asked: dict[int, float] = {}

    def close(self, found: Round, ended: Collection[str]) -> None:
        """Ask where it is due; `ended` are the datasets whose markers were there for two looks."""
        with self._catalog.read() as session:
            if found.all_busy or unseen.folders(session, self._rule.dataset, self._rule.id):
                self._asked = {}
                return
            filling = intakerules.filling(session, self._rule.id)
            # Another rule's files may be for the same dataset.
            held = refusals.held(session, {item.name for item in filling}, self._rule.id)
            filling = [item for item in filling if item.name not in found.busy | held]
            due = [item for item in filling if self._has_ended(item, ended)]
            going = {item.id for item in filling} - {item.id for item in due}
            counted = [i for i in filling if i.id in going and self._is_counted(i, ended)]
            counts = arrivals.counts(session, [item.id for item in counted])
        wanted = self._rule.close_count or 0
        due += [item for item in counted if counts.get(item.id, 0) >= wanted]
        self._ask(due)
        self._empty(found, ended)

    def _has_ended(self, item: Filling, ended: Collection[str]) -> bool:
        """Whether its marker or its quiet ends a dataset."""
        rule = self._rule
        if item.name in ended and (rule.either or rule.close_count is None):
            return True
        if item.filled_at is None or rule.quiet_s is None:
            return False
        return item.quiet_for_s >= rule.quiet_s

    def _is_counted(self, item: Filling, ended: Collection[str]) -> bool:
        """Whether a dataset ends once it has so many files."""
        rule = self._rule
        if rule.close_count is None or item.filled_at is None:
            return False
        return rule.end_pattern is None or rule.either or item.name in ended

    def _ask(self, due: Collection[Filling]) -> None:
        moment = time.monotonic()
        self._asked = {item.id: self._asked.get(item.id, -_AGAIN_S) for item in due}
        wanted = [item for item in due if moment - self._asked[item.id] >= _AGAIN_S]
        if not wanted:
            return
        documents = [
            parse(
                {
                    "kind": RequestKind.DATASET_CLOSE,
                    "key": key_of("close", self._rule.id, item.id),
                    "datasetId": item.id,
                }
            )
            for item in wanted
        ]
        with self._catalog.write() as session:
            asked = submit(session, documents)
            # One that could not be closed then is OPEN again, or has lost what was in its way.
            for info in queue.refused(session, asked):
                queue.retry(session, info.id)
        self._asked.update({item.id: moment for item in wanted})

    def _empty(self, found: Round, ended: Collection[str]) -> None:
        """Runs of which there is a marker, and no file: now or ever."""
        names = sorted(set(ended) - found.filled - found.busy)
        for batch in chunks(names, _NAMES):
            with self._catalog.read() as session:
                known = arrivals.known_names(session, batch)
                known |= refusals.held(session, batch, self._rule.id)
            for name in batch:
                if name not in known:
                    self._empty_run(found, name)

    def _empty_run(self, found: Round, name: str) -> None:
        if self._rule.close_empty:
            # The next look finds it ended, and closes it.
            with self._catalog.write() as session:
                make(session, self._rule, [name])
            return
        found.refuse(
            found.markers[name],
            RefusalKind.EMPTY_RUN,
            f"the marker of {name} is there, and no file of it; `spdf dataset create {name}` makes "
            "it, and a rule with --empty-runs close does so by itself",
        )
