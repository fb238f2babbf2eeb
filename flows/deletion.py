"""The deletion: datasets whose lifetime is over are marked, and the bytes of marked ones go."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from prefect import flow

from catalog import datasets, deletion, schema
from catalog.datasets import DatasetInfo
from catalog.db import Catalog, get_catalog
from catalog.deletion import Removed
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


@flow(name=DELETION)
def run_deletion() -> dict[str, object]:
    """Delete what is to be deleted; gives how much went."""
    catalog = get_catalog()
    schema.require(catalog)
    board = Board(DELETION)

    def tell(name: str, so_far: Removed) -> None:
        board.show(100.0, f"{name}: {so_far.copies} copies removed")

    done = delete(catalog, tell=tell)
    return asdict(done)


def delete(
    catalog: Catalog, *, tell: Callable[[str, Removed], None] = lambda _name, _so_far: None
) -> Deleted:
    """Delete what is to be deleted, unless another process is at it."""
    total, count = Removed(), 0
    with holding(catalog, DELETION) as role:
        if role is None:
            log.info("another process deletes")
            return Deleted(0, 0, 0, 0, ())
        with catalog.write() as session:
            deletion.expire(session)
        for info in _going(catalog):
            removed = deletion.remove(
                catalog,
                info.id,
                until=lambda: role.lost,
                progress=lambda so_far, name=info.name: tell(name, so_far),  # type: ignore[misc]
            )
            total += removed
            with catalog.read() as session:
                count += datasets.get(session, info.id).state is DatasetState.DELETED
            if role.lost:
                break
    for fault in total.faults:
        log.warning("bytes could not be removed", extra={"why": fault})
    return Deleted(count, total.copies, total.size_bytes, total.kept, total.faults)


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
