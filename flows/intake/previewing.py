"""What a rule would take of what lies on its storage now."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from catalog.db import Catalog
from catalog.refs import StorageInfo
from catalog.rule import Rule
from catalog.states import DatasetState
from flows.intake.known import known
from flows.intake.looking import Looker
from flows.intake.roles import Errand
from flows.intake.sightings import Sighting

MOST = 50


@dataclass(frozen=True)
class Filled:
    """A dataset that would get files; `state` is what it is in now, None: it isn't there."""

    name: str
    files: int
    size_bytes: int
    state: DatasetState | None


@dataclass(frozen=True)
class Preview:
    """The first datasets by name, how many more there are, and what would not be taken.

    `registered` are files that are in their datasets already, `left` what stayed of deleted
    datasets, and `late` is what comes for one that takes no files any more.
    """

    datasets: Sequence[Filled]
    more: int
    refused: int
    registered: int
    left: int
    late: int


def previewed(catalog: Catalog, rule: Rule, storage: StorageInfo, look_s: float) -> Preview:
    """Look once, and change nothing. Raises as a look does."""
    files: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    states: dict[str, DatasetState] = {}
    passed: Counter[str] = Counter()

    def take(page: Sequence[Sighting]) -> None:
        passed["refused"] += sum(sighting.refused is not None for sighting in page)
        there = {s.path: s for s in page if s.refused is None and not s.is_marker}
        with catalog.read() as session:
            of = known(session, storage.id, there)
        states.update({name: place.state for name, place in of.places.items()})
        for path, sighting in there.items():
            name = str(sighting.dataset)
            if path in of.registered:
                passed["registered"] += 1
            elif path in of.left:
                passed["left"] += 1
            elif states.get(name, DatasetState.OPEN) is not DatasetState.OPEN:
                passed["late"] += 1
            else:
                files[name] += 1
                sizes[name] += sighting.size_bytes

    looker = Looker(storage.name, look_s)
    try:
        errand = Errand(
            storage, rule.prefix, rule.pattern, rule.dataset, rule.end_pattern, _markers(rule)
        )
        looker.look(errand, take)
    finally:
        looker.close()
    names = sorted(files)[:MOST]
    filled = [Filled(name, files[name], sizes[name], states.get(name)) for name in names]
    kinds = ("refused", "registered", "left", "late")
    return Preview(filled, len(files) - len(filled), *(passed[kind] for kind in kinds))


def _markers(rule: Rule) -> tuple[str, ...]:
    return () if rule.end_pattern is None else (rule.end_pattern,)
