"""What a rule would take of what lies on its storage now."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from catalog import arrivals
from catalog.db import Catalog
from catalog.refs import StorageInfo
from catalog.rule import Rule
from catalog.states import DatasetState
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
    """The first datasets by name, how many more there are, and what would not be taken."""

    datasets: Sequence[Filled]
    more: int
    refused: int


def previewed(catalog: Catalog, rule: Rule, storage: StorageInfo, look_s: float) -> Preview:
    """Look once, and change nothing. Raises as a look does."""
    files: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    refused = 0

    def take(page: Sequence[Sighting]) -> None:
        nonlocal refused
        for sighting in page:
            if sighting.refused is not None:
                refused += 1
            elif not sighting.is_marker:
                files[str(sighting.dataset)] += 1
                sizes[str(sighting.dataset)] += sighting.size_bytes

    looker = Looker(storage.name, look_s)
    try:
        errand = Errand(
            storage, rule.prefix, rule.pattern, rule.dataset, rule.end_pattern, _markers(rule)
        )
        looker.look(errand, take)
    finally:
        looker.close()
    names = sorted(files)[:MOST]
    with catalog.read() as session:
        there = arrivals.places(session, names)
    filled = [
        Filled(name, files[name], sizes[name], there[name].state if name in there else None)
        for name in names
    ]
    return Preview(filled, len(files) - len(filled), refused)


def _markers(rule: Rule) -> tuple[str, ...]:
    return () if rule.end_pattern is None else (rule.end_pattern,)
