"""Rounds: what one look has found, as far as it has got."""

from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from catalog.names import shown
from catalog.outage import printable
from catalog.refs import HOLDING, RefusalKind
from catalog.refusals import MOST, MOST_DETACHED, Likeness, NewRefusal
from flows.intake.sightings import Sighting


@dataclass(frozen=True)
class Arrival:
    """A file that is to be asked for, with the dataset that it is for; None: it isn't there yet."""

    sighting: Sighting
    dataset_id: int | None
    is_open: bool = True
    """Whether that dataset takes files."""

    @property
    def dataset(self) -> str:
        """The dataset's name."""
        assert self.sighting.dataset is not None
        return self.sighting.dataset


@dataclass
class Round:
    """Files, markers, and what can't be taken; `told` is what was refused before, by its path.

    Bounded: of what is refused the first are kept, and those that were told of before.
    """

    told: Mapping[str, NewRefusal]
    files: int = 0
    ready: list[Arrival] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    """Paths that aren't registered as they are."""
    filled: set[str] = field(default_factory=set)
    """Datasets of which there are files."""
    busy: set[str] = field(default_factory=set)
    """Datasets of which something is on its way."""
    held: set[str] = field(default_factory=set)
    """Datasets of which something can't be taken."""
    members: Counter[str] = field(default_factory=Counter)
    """How many files are in their datasets, as they are."""
    dismissed: Mapping[str, Likeness] = field(default_factory=dict)
    """What a person said to leave out, as it was."""
    all_busy: bool = False
    """Whether files of any dataset may lie where nobody can look."""
    markers: dict[str, Sighting] = field(default_factory=dict)
    watched: Set[str] = frozenset()
    """Datasets of which the paths are kept of files that are there."""
    there: set[str] = field(default_factory=set)
    """Paths of these files."""
    refused: dict[str, NewRefusal] = field(default_factory=dict)
    refusals: int = 0
    detached: int = 0
    """Files that were left where they are, which are no refusals."""
    taken: dict[str, int] = field(default_factory=dict)
    """When files of OPEN datasets that are registered were written, as far as is known."""
    registered: set[str] = field(default_factory=set)
    """Of what was told those that are registered now."""
    waiting: set[str] = field(default_factory=set)
    """Of what was told those that are on their way."""

    def refuse(self, sighting: Sighting, kind: RefusalKind, reason: str) -> None:
        """Remember something that isn't taken; its dataset isn't closed by itself."""
        path = shown(sighting.path)
        if kind in HOLDING and self.dismissed.get(path) == (kind, *sighting.state):
            return
        if kind is RefusalKind.DETACHED:
            self.detached += 1
            is_kept = self.detached <= MOST_DETACHED
        else:
            self.refusals += 1
            is_kept = self.refusals <= MOST
        if sighting.dataset is not None and kind in HOLDING:
            self.held.add(sighting.dataset)
        if path in self.told or is_kept:
            self.refused[path] = NewRefusal(
                path,
                sighting.dataset,
                kind,
                printable(reason),
                sighting.size_bytes,
                sighting.mtime_us,
            )

    def saw(self, sighting: Sighting) -> None:
        """A file, whatever becomes of it."""
        if sighting.dataset in self.watched:
            self.there.add(sighting.path)

    def known(self, sighting: Sighting) -> None:
        """A file that is registered as it is."""
        self.members[str(sighting.dataset)] += 1
        if self.told and (path := shown(sighting.path)) in self.told:
            self.registered.add(path)

    def wait_for(self, sighting: Sighting) -> None:
        """A file that is on its way: what was told of it is so until it has come."""
        if self.told and (path := shown(sighting.path)) in self.told:
            self.waiting.add(path)
