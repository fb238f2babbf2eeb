"""Watching for all rules that there are, each at its own pace, and none in another's way."""

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any, TypeVar

from catalog import intakelooks, intakerules
from catalog.db import Catalog
from catalog.errors import SpdfError
from catalog.outage import is_outage, sentence
from catalog.rule import Rule
from flows.intake.looking import Looker
from flows.intake.rounds import Round
from flows.intake.watch import Watch

R = TypeVar("R")
log = logging.getLogger(__name__)

_AWAY_S = 5.0
_IDLE_S, _LEAST_S = 1.0, 0.05
_TELL_S = 60.0
_STORAGES = 64
"""That are looked at at the same time."""


class Watches:
    """Follows all rules. Storages are looked at beside each other, one for one rule at a time.

    What is done about a look keeps no other rule from its own. `look_s` is how long a look may give
    no sign.
    """

    def __init__(self, catalog: Catalog, look_s: float) -> None:
        self._catalog, self._look_s = catalog, look_s
        self._watches: dict[int, Watch] = {}
        self._due: dict[int, float] = {}
        self._told: dict[int, tuple[str, float]] = {}
        self._lookers: dict[int, Looker] = {}
        self._going: dict[int, tuple[Rule, Future[tuple[Watch, Round] | None]]] = {}
        self._acting: dict[int, Future[float | None]] = {}
        self._pool = ThreadPoolExecutor(_STORAGES, thread_name_prefix="watch")
        self._is_closing = False

    def turn(self) -> float:
        """Begin the looks that are due, and take in those that have ended.

        Gives the seconds until the next turn. Raises only where the catalog is away.
        """
        with self._catalog.read() as session:
            rules = {rule.id: rule for rule in intakerules.active(session)}
        self._forget(rules)
        for rule in sorted(rules.values(), key=lambda rule: self._due.get(rule.id, 0.0)):
            if self._due.get(rule.id, 0.0) <= time.monotonic():
                self._begin(rule, rules)
        looks = [look for _, look in self._going.values()]
        futures: list[Future[Any]] = [*looks, *self._acting.values()]
        if not futures:
            return self._next_s(rules)
        wait(futures, timeout=self._next_s(rules), return_when=FIRST_COMPLETED)
        self._take_in(rules)
        return 0.0 if self._going or self._acting else self._next_s(rules)

    def close(self) -> None:
        """End what looks."""
        self._is_closing = True
        for looker in self._lookers.values():
            looker.close()
        self._pool.shutdown(cancel_futures=True)

    def _forget(self, rules: Mapping[int, Rule]) -> None:
        """Keep nothing of rules that are followed no longer, and no process for their storages."""
        for rule_id, watch in list(self._watches.items()):
            # Of another version of its rule a watch is made anew.
            if rules.get(rule_id) != watch.rule:
                del self._watches[rule_id]
        self._due = {rule_id: due for rule_id, due in self._due.items() if rule_id in rules}
        self._told = {rule_id: told for rule_id, told in self._told.items() if rule_id in rules}
        for idle in self._lookers.keys() - {rule.storage_id for rule in rules.values()}:
            self._lookers.pop(idle).close()

    def _begin(self, rule: Rule, rules: Mapping[int, Rule]) -> None:
        if rule.storage_id in self._going or rule.id in self._acting:
            return
        if rule.storage_id not in self._lookers:
            self._lookers[rule.storage_id] = Looker(rule.storage, self._look_s)
        looker = self._lookers[rule.storage_id]
        markers = tuple(
            other.end_pattern
            for other in rules.values()
            if other.storage_id == rule.storage_id
            and other.end_pattern is not None
            and other.fault is None
        )
        look = partial(self._look, rule, looker, markers)
        self._going[rule.storage_id] = rule, self._pool.submit(self._apart, rule, look)

    def _look(self, rule: Rule, looker: Looker, markers: tuple[str, ...]) -> tuple[Watch, Round]:
        """One look for one rule, in a thread."""
        if rule.id not in self._watches:
            self._watches[rule.id] = Watch(rule, self._catalog, looker.look)
        watch = self._watches[rule.id]
        watch.markers = markers
        return watch, watch.look()

    def _act(self, rule: Rule, watch: Watch, found: Round) -> float:
        """What a look calls for, in a thread; gives the seconds until the rule's next."""
        wait_s = watch.act(found)
        self._told.pop(rule.id, None)
        return wait_s

    def _apart(self, rule: Rule, call: Callable[[], R]) -> R | None:
        """What `call` gives; None after an error, which is the rule's own."""
        try:
            return call()
        except SpdfError as error:
            if self._is_closing:
                return None
            log.warning("rule waits", extra={"rule": rule.name, "why": str(error)})
            self._failed(rule, str(error))
        except Exception as error:
            if is_outage(error):
                raise
            log.exception("a look failed", extra={"rule": rule.name})
            self._watches.pop(rule.id, None)
            self._failed(rule, sentence(error))
        return None

    def _failed(self, rule: Rule, why: str) -> None:
        """Write down, now and then, that a rule gets nowhere."""
        told, at = self._told.get(rule.id, ("", 0.0))
        if told == why and time.monotonic() - at < _TELL_S:
            return
        self._told[rule.id] = why, time.monotonic()
        if rule.id in self._watches:
            self._watches[rule.id].failed(why)
            return
        with self._catalog.write() as session:
            intakelooks.failed(session, rule.id, why)

    def _take_in(self, rules: Mapping[int, Rule]) -> None:
        for storage_id, (rule, look) in list(self._going.items()):
            if not look.done():
                continue
            del self._going[storage_id]
            if rule.id in rules:
                # Before the error of a catalog that is away leaves, too: there is a next time.
                self._due[rule.id] = time.monotonic() + _AWAY_S
                if (seen := look.result()) is not None:
                    call = partial(self._act, rule, *seen)
                    self._acting[rule.id] = self._pool.submit(self._apart, rule, call)
        for rule_id, act in list(self._acting.items()):
            if not act.done():
                continue
            del self._acting[rule_id]
            if rule_id in rules:
                self._due[rule_id] = time.monotonic() + _AWAY_S
                if (wait_s := act.result()) is not None:
                    self._due[rule_id] = time.monotonic() + wait_s

    def _next_s(self, rules: Mapping[int, Rule]) -> float:
        """Until a rule is due that can be looked for."""
        due = [
            self._due.get(rule.id, 0.0)
            for rule in rules.values()
            if rule.storage_id not in self._going and rule.id not in self._acting
        ]
        return max(_LEAST_S, min([_IDLE_S, *(moment - time.monotonic() for moment in due)]))
