"""Names and paths that are used again: a file or copy that is gone gives its own up.

It is called `NAME//ID` then, which no file can be called, and keeps its rows and its lineage.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import detached, leftovers
from catalog.bulk import table_of
from catalog.checksums import algorithm_of
from catalog.errors import Conflict
from catalog.models import Dataset, DatasetFile, File, Finding, Replica, Storage
from catalog.refs import FindingKind
from catalog.rowsets import among
from catalog.states import DatasetState, FindingState, ReplicaState

_KEPT = (DatasetState.OPEN, DatasetState.CLOSED)


def gone(session: Session, file_ids: Sequence[int]) -> set[int]:
    """Those of the files that had copies, all of which are DELETED, and that no dataset holds."""
    held = sa.select(col(DatasetFile.file_id)).join(
        Dataset, col(Dataset.id) == col(DatasetFile.dataset_id)
    )
    held = held.where(
        among(session, col(DatasetFile.file_id), file_ids), col(Dataset.state).in_(_KEPT)
    )
    there = sa.func.sum(sa.case((col(Replica.state) == ReplicaState.DELETED, 0), else_=1))
    rows = session.scalars(
        sa.select(col(Replica.file_id))
        .where(among(session, col(Replica.file_id), file_ids))
        .group_by(col(Replica.file_id))
        .having(there == 0)
    )
    return set(rows) - set(session.scalars(held))


def give_up(session: Session, file_ids: Sequence[int]) -> None:
    """Others may have the names of these files."""
    table = table_of(File)
    session.connection().execute(
        sa.update(table)
        .where(among(session, table.c.id, file_ids))
        .values(name=table.c.name + _own(table.c.id))
    )


def give_up_paths(session: Session, storage_id: int, paths: Sequence[str]) -> int:
    """Others may lie under those of the paths whose copies are DELETED; gives how many."""
    table = table_of(Replica)
    changed = session.connection().execute(
        sa.update(table)
        .where(
            table.c.storage_id == storage_id,
            among(session, table.c.path, paths),
            table.c.state == ReplicaState.DELETED,
        )
        .values(path=table.c.path + _own(table.c.id))
    )
    if changed.rowcount:
        leftovers.take_over(session, storage_id, paths)
        detached.forget(session, storage_id, paths)
    return changed.rowcount


def refuse_removed(session: Session, storage_id: int, paths: Sequence[str]) -> None:
    """Raise `Conflict` where bytes without a row are being removed under one of the paths.

    To be called after the rows are there, so that either sees the other: see `storages.hold`.
    """
    query = sa.select(col(Finding.path)).where(
        col(Finding.storage_id) == storage_id,
        among(session, col(Finding.path), paths),
        col(Finding.kind) == FindingKind.DARK,
        # In the words of the index.
        sa.text("state IN ('FOUND', 'MARKED', 'QUARANTINED')"),
        col(Finding.state) == FindingState.MARKED,
    )
    if path := session.scalars(query.limit(1)).first():
        name = session.scalars(
            sa.select(col(Storage.name)).where(col(Storage.id) == storage_id)
        ).one()
        raise Conflict(
            f"path {path!r} on storage {name!r} is being removed, as no row named it; register it "
            f"under another path, or write it anew once `spdf inspect settle {name}` has ended."
        )


def _own(row_id: sa.ColumnElement[int]) -> sa.ColumnElement[str]:
    return sa.literal("//") + sa.cast(row_id, sa.String)


class OtherAlgorithm(Conflict):
    """A file is known by another kind of checksum: only reading it tells whether it is the same.

    `known` is the checksum that the catalog has.
    """

    def __init__(self, message: str, scope: str, name: str, known: str) -> None:
        self.scope, self.name, self.known = scope, name, known
        super().__init__(message)


def refusal(found: Any, size_bytes: int, checksum: str) -> Conflict:
    """What is to be said of other bytes than those of a file that is alive."""
    what = f"file {found.scope}:{found.name} is registered with {found.size_bytes} bytes and "
    what += f"{found.checksum}, not {size_bytes} bytes and {checksum}"
    if found.size_bytes == size_bytes and algorithm_of(found.checksum) != algorithm_of(checksum):
        return OtherAlgorithm(
            f"{what}; only reading the file tells whether it is the same: try it again (a request: "
            f"`spdf request retry`), or give its {algorithm_of(found.checksum)}.",
            found.scope,
            found.name,
            found.checksum,
        )
    return Conflict(
        f"{what}; other bytes need another name while a copy or a dataset of these is there: "
        f"`spdf file why {found.id}` names them."
    )
