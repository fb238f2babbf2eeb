"""Problems: what isn't as it should be, as far as rows say so; `spdf status` shows them.

A source of problems is a function of a session that gives sentences: add it to `SOURCES`. It must
be quick, as an operator asks often: counts by index, a few names, nothing that grows with the data.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice

from sqlmodel import Session

from catalog import (
    clockcare,
    deletionfaults,
    following,
    intakelooks,
    intakerules,
    lifetimes,
    nodes,
    refusals,
    rejected,
    standing,
    storages,
    stranded,
    troubles,
    waits,
)
from catalog.counts import count_of
from catalog.outage import is_outage, sentence
from catalog.settings import get_settings

MOST_SHOWN = 10
"""Sentences of one source; more are counted."""


@dataclass(frozen=True)
class Problem:
    """A sentence that says what is wrong and how to mend it, and the source that found it."""

    source: str
    message: str


Source = Callable[[Session], Iterable[str]]


def _troubles(session: Session) -> Iterable[str]:
    """What a service can't do for one item."""
    found = troubles.recent(session, MOST_SHOWN)
    for item in found:
        yield (
            f"{item.entity} {item.name}: {item.error} (since {item.since:%Y-%m-%d %H:%M:%SZ}, "
            f"by {item.source})"
        )
    if len(found) == MOST_SHOWN and (more := troubles.count(session) - MOST_SHOWN) > 0:
        yield f"{more} more troubles of single items; `why` of each tells"


def _rules(session: Session) -> Iterable[str]:
    """Rules of the intake that get nowhere, and what they see and don't take."""
    wrong = intakelooks.troubles(session)
    for name, why in list(wrong.items())[:MOST_SHOWN]:
        yield f"intake rule {name}: {why}"
    if len(wrong) > MOST_SHOWN:
        yield f"{len(wrong) - MOST_SHOWN} more rules of the intake get nowhere: `spdf intake list`"
    if left := refusals.count(session):
        one = "thing" if left == 1 else "things"
        yield f"not taken from watched storages: {left} {one}; `spdf intake list` says by whom"


def _storages(session: Session) -> Iterable[str]:
    """Storages that aren't what they were, or share a place; looked at, for a few seconds."""
    return standing.problems(storages.list_all(session))


def _deletions(session: Session) -> Iterable[str]:
    """Bytes that are to go and can't."""
    found = deletionfaults.oldest(session, MOST_SHOWN)
    for item in found:
        what = (
            f"{count_of(item.files, 'file')} on {item.storage} can't go"
            if item.storage
            else "it failed"
        )
        yield (
            f"dataset {item.dataset} is being deleted, and {what} (since "
            f"{item.since:%Y-%m-%d %H:%M:%SZ}): {item.reason}"
        )
    if len(found) == MOST_SHOWN and (more := deletionfaults.count(session) - MOST_SHOWN) > 0:
        yield f"{more} more deletions can't go on; `spdf dataset why` of each tells"


def _overdue(session: Session) -> Iterable[str]:
    """What is kept though its lifetime is over, and rules by which nobody has decided."""
    for rule in intakerules.active(session):
        if rule.lifetime_s is not None and rule.unmatched is None:
            yield (
                f"intake rule {rule.name} has a lifetime, and nobody has said what becomes of "
                "datasets that nothing took, so none of its goes by itself; `spdf intake update "
                f"{rule.name} --unmatched keep`, or `expire`"
            )
    found = lifetimes.sums(session)
    for item in found[:MOST_SHOWN]:
        whose = "of no rule" if item.rule is None else f"of intake rule {item.rule}"
        yield (
            f"overdue {whose}: {count_of(item.datasets, 'dataset')}, {item.size_bytes} bytes, kept "
            "since not all was done with them; `spdf dataset list --overdue` says what, and `spdf "
            "dataset release` lets them go"
        )


def _templates(session: Session) -> Iterable[str]:
    """Datasets that an automatic template was for, until another took its place."""
    return islice(following.lost(session), MOST_SHOWN)


def _node_clocks(session: Session) -> Iterable[str]:
    """Nodes whose clock isn't the database's."""
    return islice(nodes.off(session), MOST_SHOWN)


def _stranded(session: Session) -> Iterable[str]:
    """What can't come, and who waits for it."""
    return stranded.told(session, MOST_SHOWN)


def _rejected(_session: Session) -> Iterable[str]:
    """Requests that never became rows, for nobody could read them."""
    spool = get_settings().spool
    told = None if spool is None else rejected.sentence(spool)
    return () if told is None else (told,)


SOURCES: dict[str, Source] = {
    "the clock": clockcare.problems,
    "clocks of nodes": _node_clocks,
    "troubles": _troubles,
    "rules of the intake": _rules,
    "requests of the spool": _rejected,
    "storages": _storages,
    "deletions": _deletions,
    "outages": waits.of_all,
    "templates": _templates,
    "datasets that nobody closes": _stranded,
    "lifetimes": _overdue,
}


def problems(session: Session) -> list[Problem]:
    """What all sources find; one that fails is a problem itself, and hides no other."""
    found: list[Problem] = []
    for name, source in SOURCES.items():
        try:
            with session.begin_nested():
                found += [Problem(name, message) for message in source(session)]
        except Exception as error:
            if is_outage(error):
                raise
            found.append(
                Problem(name, f"it can't be told whether there are {name}: {sentence(error)}")
            )
    return found
