"""The deletion: datasets whose lifetime is over are marked, and the bytes of marked ones go."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from prefect import flow

from catalog import datasets, deletion, deletionfaults, grace, outage, rollbacks, schema
from catalog.counts import count_of
from catalog.datasets import DatasetInfo
from catalog.db import Catalog, get_catalog
from catalog.deletionfaults import Stayed
from catalog.removal import Removed
from catalog.states import DatasetState
from flows.board import Board
from flows.roles import holding

log = logging.getLogger(__name__)

DELETION = "deletion"
"""Name of the lease that one deletion at a time has, and of the flow and its deployment."""


@dataclass(frozen=True)
class Deleted:
    """What a run did: datasets that are DELETED now, and what went with them."""

    datasets: int
    copies: int
    size_bytes: int
    kept: int
    faults: tuple[str, ...]
    detached: int = 0


@flow(name=DELETION)
def run_deletion() -> dict[str, object]:
    """Delete what is to be deleted; gives how much went."""
    catalog = get_catalog()
    schema.require(catalog)
    board = Board(DELETION)

    def tell(name: str, so_far: Removed) -> None:
        board.show(100.0, f"{name}: {count_of(so_far.copies, 'copy', 'copies')} removed")

    done = delete(catalog, tell=tell)
    return asdict(done)


def delete(
    catalog: Catalog, *, tell: Callable[[str, Removed], None] = lambda _name, _so_far: None
) -> Deleted:
    """Delete what is to be deleted, unless another process is at it.

    What goes wrong with one dataset is written down for `dataset why`, and the others go on.
    """
    total, count = Removed(), 0
    with holding(catalog, DELETION) as role:
        if role is None:
            log.info("another process deletes")
            return Deleted(0, 0, 0, 0, ())
        rollbacks.look(catalog)
        with catalog.read() as session:
            pressing = grace.in_the_way(session)
        with catalog.write() as session:
            deletion.expire(session)
            grace.end_due(session)
            grace.end_early(session, pressing)
        for info in _going(catalog):
            total += _remove(catalog, info, lambda: role.lost, tell)
            with catalog.read() as session:
                count += datasets.get(session, info.id).state is DatasetState.DELETED
            if role.lost:
                break
    for fault in total.faults:
        log.warning("bytes could not be removed", extra={"why": fault})
    return Deleted(count, total.copies, total.size_bytes, total.kept, total.faults, total.detached)


def _remove(
    catalog: Catalog,
    info: DatasetInfo,
    until: Callable[[], bool],
    tell: Callable[[str, Removed], None],
) -> Removed:
    """One dataset's bytes go; an error that isn't an outage is written down."""

    def note(error: Exception) -> None:
        with catalog.write() as session:
            stayed = Stayed(None, 0, None, outage.sentence(error))
            deletionfaults.replace(session, info.id, [stayed])

    with outage.isolated("dataset", info.name, note):
        return deletion.remove(
            catalog, info.id, until=until, progress=lambda so_far: tell(info.name, so_far)
        )
    return Removed()


def _going(catalog: Catalog) -> Iterator[DatasetInfo]:
    """The datasets that are DELETING, page by page."""
    after = 0
    while True:
        with catalog.read() as session:
            page = datasets.deleting(session, after=after)
        if not page:
            return
        yield from page
        after = page[-1].id
