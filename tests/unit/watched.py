"""A storage that is watched, for tests: files arrive, looks are taken, requests are done."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from catalog import causes, datasets, deletion, intakerules, manifests, refusals, requests
from catalog.db import Catalog
from catalog.models import Refusal
from catalog.refs import Settlement
from catalog.refusals import RefusalInfo
from catalog.requests.queue import RequestInfo
from catalog.rule import Rule
from catalog.states import DatasetState, RequestState
from catalog.storages import StorageInfo
from flows.intake.closing import Closing
from flows.intake.watch import Watch
from tests.processing import do_all

PATTERN = r"(?P<run>run-\d+)/.*\.raw"
END = r"(?P<run>run-\d+)/END"


@dataclass
class Buffer:
    """A storage with a catalog, and the watches of the rules that were added to it."""

    catalog: Catalog
    storage: StorageInfo
    watches: dict[str, Watch] = field(default_factory=dict)
    idle_s: float = 600.0
    _closing: Closing | None = None

    def follow(self, name: str = "daq", **more: Any) -> Watch:
        """Add a rule, and watch for it."""
        values: dict[str, Any] = {"pattern": PATTERN, "dataset": "{run}", "stable_s": 0.0, **more}
        with self.catalog.write() as session:
            rule = intakerules.add(session, Rule(name, self.storage.name, **values))
        self.watches[name] = Watch(rule, self.catalog)
        self._share_markers()
        return self.watches[name]

    def _share_markers(self) -> None:
        ends = [watch.rule.end_pattern for watch in self.watches.values()]
        for watch in self.watches.values():
            watch.markers = tuple(end for end in ends if end is not None)

    def begin_anew(self) -> None:
        """As after the intake was killed."""
        self.watches = {name: Watch(w.rule, self.catalog) for name, w in self.watches.items()}
        self._share_markers()

    def path(self, name: str | bytes) -> Path:
        """Where a file of the storage lies."""
        return Path(self.storage.url, os.fsdecode(name))

    def arrive(self, *names: str | bytes, content: bytes | None = None) -> None:
        """Write files; what one holds is its name, unless it is said."""
        for name in names:
            path = self.path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.fsencode(name) if content is None else content)

    def look(self, times: int = 1) -> None:
        """Look for every rule, and have all requests done, so many times."""
        for _ in range(times):
            for watch in self.watches.values():
                watch.turn()
            self.work()

    def close(self) -> None:
        """Close what is due."""
        if self._closing is None:
            self._closing = Closing(self.catalog, lambda session: None, self.idle_s)
        self._closing.turn()

    def work(self) -> None:
        """Have all requests done, and close what is due."""
        do_all(self.catalog)
        self.close()

    def delete(self, name: str) -> None:
        """Delete a dataset; what lies on an input storage stays there."""
        with self.catalog.write() as session:
            info = datasets.by_name(session, name)
            deletion.mark(session, info.id, "a test")
        deletion.remove(self.catalog, info.id)

    def names(self, dataset: str) -> list[str]:
        """The files of a dataset."""
        with self.catalog.read() as session:
            info = datasets.by_name(session, dataset)
            return sorted(m.name for m in manifests.all_members(session, info.id))

    def state(self, dataset: str) -> DatasetState:
        """Of a dataset."""
        with self.catalog.read() as session:
            return datasets.by_name(session, dataset).state

    def refused(self, rule: str = "daq") -> list[RefusalInfo]:
        """What a rule doesn't take, by path."""
        with self.catalog.read() as session:
            found = refusals.of_rule(session, self.watches[rule].rule.id)
        return sorted(found, key=lambda item: item.path)

    def settled(self) -> dict[str, Settlement]:
        """By path, how refusals came to their ends."""
        with self.catalog.read() as session:
            rows = session.execute(
                sa.select(Refusal.path, Refusal.settled_by)  # type: ignore[call-overload]
                .where(Refusal.settled_at.is_not(None))  # type: ignore[union-attr]
                .order_by(Refusal.id)
            )
            return dict(rows.all())

    def errors(self) -> list[RequestInfo]:
        """Requests that were answered with ERROR."""
        with self.catalog.read() as session:
            return requests.list_requests(session, state=RequestState.ERROR)

    def why(self, dataset: str) -> str:
        """What `dataset why` says."""
        with self.catalog.read() as session:
            found = causes.why_dataset(session, datasets.by_name(session, dataset))
        return "\n".join(f"{cause.fact}; {cause.next}" for cause in found)


Follow = Callable[..., Watch]
