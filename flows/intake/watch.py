"""Watching storages: files that arrive, and stay as they are, become requests.

What is asked for has a key made of the rule, the path and the file's state, so that a watch that
begins anew asks for the same things. Only what isn't registered yet is kept in memory.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import datasets, intakerules, manifests, storages
from catalog.bulk import batches
from catalog.db import Catalog
from catalog.drivers import ObjectInfo, StorageDriver, driver_for
from catalog.errors import BadName, NotFound, SpdfError
from catalog.intakerules import Filling, Rule
from catalog.models import Replica
from catalog.names import check_name, check_path
from catalog.refs import StorageKind
from catalog.requests import parse, submit
from catalog.rowsets import among

log = logging.getLogger(__name__)

_PAGE = 2000
_SHARE = 0.25
"""Part of its time that a watch lists; the rest it waits."""
_LEAST_S, _MOST_S = 0.25, 60.0
_AWAY_S = 5.0
_MOST_TOLD = 10_000
"""Names that can't be used, and were told of; beyond that they are told of again."""


@dataclass
class _Pending:
    """A file that isn't asked for yet: how it was found, and since when it is so."""

    info: ObjectInfo
    since: float


@dataclass
class _Round:
    """What one listing found: files that may be asked for, and markers, by dataset."""

    ready: list[tuple[str, ObjectInfo]] = field(default_factory=list)
    unready: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)


class Watch:
    """Follows one rule."""

    def __init__(self, rule: Rule, catalog: Catalog) -> None:
        self.rule, self._catalog = rule, catalog
        with catalog.read() as session:
            storage = storages.get(session, rule.storage_id)
        self._storage = storage
        self._driver: StorageDriver = driver_for(storage)
        # Objects of S3 are there whole or not at all.
        self._stable_s = rule.stable_s if storage.kind is StorageKind.LOCAL else 0.0
        self._pending: dict[str, _Pending] = {}
        self._asked: dict[str, ObjectInfo] = {}
        self._ended: set[str] = set()
        self._told: set[str] = set()

    def turn(self) -> float:
        """Look once; gives the seconds until the next look."""
        begun = time.monotonic()
        found = self._look()
        self._ask(found)
        self._close(found)
        took_s = time.monotonic() - begun
        return min(_MOST_S, max(_LEAST_S, took_s / _SHARE))

    def _look(self) -> _Round:
        """List the storage, and sort out what is new on it."""
        found = _Round()
        for page in batches(self._driver.list(self.rule.prefix), _PAGE):
            infos = {info.path: info for info in page if not _is_hidden(info.path)}
            found.ended |= {
                ended for path in infos if (ended := self.rule.ended_by(path)) is not None
            }
            named = {path: name for path in infos if (name := self._dataset_of(path)) is not None}
            with self._catalog.read() as session:
                known = _known(session, self.rule.storage_id, list(named))
            for path, name in named.items():
                if path not in known:
                    self._consider(found, name, infos[path])
        self._forget(found.seen)
        return found

    def _dataset_of(self, path: str) -> str | None:
        """The dataset of a file; None where the rule isn't for it, or the names can't be used."""
        name = self.rule.dataset_of(path)
        if name is None:
            return None
        try:
            check_path("path", path)
            return check_name("dataset", name)
        except BadName as error:
            if path not in self._told:
                self._told.add(path)
                log.warning("file left alone", extra={"rule": self.rule.name, "why": str(error)})
            return None

    def _consider(self, found: _Round, dataset: str, info: ObjectInfo) -> None:
        """A file that isn't registered: ready to be asked for, asked for, or still changing."""
        found.seen.add(info.path)
        if self._asked.get(info.path) == info:
            found.unready.add(dataset)
            return
        moment = time.monotonic()
        pending = self._pending.get(info.path)
        if pending is None or pending.info != info:
            pending = self._pending[info.path] = _Pending(info, moment)
        if moment - pending.since >= self._stable_s:
            found.ready.append((dataset, info))
        else:
            found.unready.add(dataset)

    def _forget(self, seen: set[str]) -> None:
        """Keep nothing of files that are registered, or gone."""
        self._pending = {path: item for path, item in self._pending.items() if path in seen}
        self._asked = {path: info for path, info in self._asked.items() if path in seen}
        if len(self._told) > _MOST_TOLD:
            self._told.clear()

    def _ask(self, found: _Round) -> None:
        """Ask for the files that are ready, in the order of their times."""
        ordered = sorted(found.ready, key=lambda item: (item[1].mtime, item[1].path))
        for page in batches(iter(ordered), _PAGE):
            with self._catalog.write() as session:
                for name in sorted({name for name, _ in page}):
                    self._make(session, name)
                submit(session, [parse(self._request(name, info)) for name, info in page])
            for _, info in page:
                self._asked[info.path] = info
                self._pending.pop(info.path, None)
        if ordered:
            log.info("files arrived", extra={"rule": self.rule.name, "files": len(ordered)})

    def _make(self, session: Session, name: str) -> None:
        """Have the dataset; one that is there already is only used."""
        try:
            datasets.by_name(session, name)
        except NotFound:
            datasets.create(session, name, lifetime_s=self.rule.lifetime_s, rule_id=self.rule.id)

    def _request(self, dataset: str, info: ObjectInfo) -> dict[str, Any]:
        state = f"{info.size_bytes}-{info.mtime.timestamp():.6f}"
        return {
            "kind": "file.input",
            "key": f"intake:{self.rule.name}:{info.path}@{state}"[-500:],
            "datasetId": dataset,
            "files": [
                {"storageId": self._storage.name, "path": info.path, "size": info.size_bytes}
            ],
        }

    def _close(self, found: _Round) -> None:
        """Ask for the close of datasets that have ended, and of which no file is on its way."""
        busy = found.unready | {name for name, _ in found.ready}
        # A listing that meets a marker may have passed files that came just before it; the next
        # one has them all.
        ended, self._ended = found.ended & self._ended, found.ended
        with self._catalog.read() as session:
            due = [
                item
                for item in intakerules.filling(session, self.rule.id)
                if item.name not in busy and self._has_ended(session, item, ended)
            ]
        if not due:
            return
        with self._catalog.write() as session:
            submit(
                session,
                [
                    parse(
                        {
                            "kind": "dataset.close",
                            "key": f"intake:{self.rule.name}:close:{item.id}",
                            "datasetId": item.name,
                        }
                    )
                    for item in due
                ],
            )

    def _has_ended(self, session: Session, item: Filling, ended: set[str]) -> bool:
        rule = self.rule
        if item.name in ended:
            return True
        if item.filled_at is None:
            return False
        if rule.quiet_s is not None and item.quiet_for_s >= rule.quiet_s:
            return True
        wanted = rule.close_count
        return wanted is not None and manifests.count(session, item.id) >= wanted


def _is_hidden(path: str) -> bool:
    """Whether a file isn't whole yet: who writes renames it to a name without a dot then."""
    return path.rpartition("/")[2].startswith(".")


def _known(session: Session, storage_id: int, paths: Sequence[str]) -> set[str]:
    """Those of the paths that are registered."""
    if not paths:
        return set()
    query = sa.select(col(Replica.path)).where(
        col(Replica.storage_id) == storage_id, among(session, col(Replica.path), paths)
    )
    return set(session.scalars(query))


class Watches:
    """Follows all rules that there are, each at its own pace."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._watches: dict[int, Watch] = {}
        self._due: dict[int, float] = {}

    def turn(self) -> float:
        """Look where it is due; gives the seconds until the next look."""
        with self._catalog.read() as session:
            rules = {rule.id: rule for rule in intakerules.active(session)}
        for gone in self._due.keys() - rules.keys():
            self._watches.pop(gone, None)
            del self._due[gone]
        for rule in rules.values():
            if self._due.get(rule.id, 0.0) <= time.monotonic():
                self._due[rule.id] = time.monotonic() + self._one(rule)
        if not self._due:
            return 1.0
        return max(0.05, min(1.0, min(self._due.values()) - time.monotonic()))

    def _one(self, rule: Rule) -> float:
        try:
            if rule.id not in self._watches:
                self._watches[rule.id] = Watch(rule, self._catalog)
            return self._watches[rule.id].turn()
        except SpdfError as error:
            log.warning("rule waits", extra={"rule": rule.name, "why": str(error)})
            return _AWAY_S
