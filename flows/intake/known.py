"""What the catalog knows of the files that a look found, a page at a time."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlmodel import Session

from catalog import arrivals, detached, leftovers
from catalog.arrivals import Place, Registered
from flows.intake.sightings import Sighting, object_of


@dataclass(frozen=True)
class Known:
    """Of a page's files: their datasets by name, and those that are registered, by path.

    `left` are what stayed of deleted datasets, and is as it was left; `forgone` those of them of
    which nothing is said, since their dataset is deleted.
    """

    places: Mapping[str, Place]
    registered: Mapping[str, Registered]
    left: frozenset[str]
    forgone: frozenset[str]


def known(session: Session, storage_id: int, files: Mapping[str, Sighting]) -> Known:
    """What is known of files, given by path."""
    of = {path: str(sighting.dataset) for path, sighting in files.items()}
    places = arrivals.places(session, set(of.values()))
    wanted = {path: places[name].id for path, name in of.items() if name in places}
    registered = arrivals.members(session, storage_id, wanted)
    new = [object_of(sighting) for path, sighting in files.items() if path not in registered]
    left = detached.unchanged(session, storage_id, new)
    left |= leftovers.unchanged(session, storage_id, new, {i.path: of[i.path] for i in new})
    names = {of[path] for path in left} - places.keys()
    past = arrivals.known_names(session, names) if names else set()
    return Known(places, registered, frozenset(left), frozenset(p for p in left if of[p] in past))
