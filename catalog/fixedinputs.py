"""Fixed inputs: files that a workflow reads besides its dataset, by their ids in its row."""

from collections.abc import Iterable, Iterator
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog.errors import Conflict
from catalog.models import Replica
from catalog.rowsets import among
from catalog.states import ReplicaState


def file_ids(inputs: Any) -> Iterator[int]:
    """The files that are fixed inputs of a workflow, as its row has them."""
    if isinstance(inputs, dict):
        if "file_id" in inputs:
            yield inputs["file_id"]
        for item in inputs.values():
            yield from file_ids(item)
    elif isinstance(inputs, list):
        for item in inputs:
            yield from file_ids(item)


def hold(session: Session, inputs: Any, more: Iterable[int] = ()) -> None:
    """Keep copies of these, and of `more` files, until the transaction ends.

    Who deletes one of them meanwhile waits, and then finds the workflow that reads it. Raises
    `Conflict` where one has none.
    """
    wanted = sorted({*file_ids(inputs), *more})
    query = (
        sa.select(col(Replica.file_id))
        .where(
            among(session, col(Replica.file_id), wanted),
            col(Replica.state) == ReplicaState.AVAILABLE,
        )
        .order_by(col(Replica.id))
        .with_for_update(read=True)
    )
    held = set(session.scalars(query)) if wanted else set()
    for file_id in wanted:
        if file_id not in held:
            raise Conflict(
                f"file {file_id}, an input of the workflow, has no copy that is AVAILABLE; "
                f"`spdf file why {file_id}` says what became of them."
            )
