"""Detached files: bytes that stayed under their paths when the dataset that had them was deleted.

The intake leaves them alone while they are as they were found then (size and mtime), until
`rescan`; an inspection doesn't take them for dark.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog.bulk import insert_ignore, table_of
from catalog.drivers import ObjectInfo
from catalog.models import Detached, File, Leftover, Replica, Storage
from catalog.rowsets import among
from catalog.stamps import Stamp, micros


@dataclass(frozen=True)
class DetachedInfo:
    """A detached file, with the file that was registered there."""

    id: int
    storage: str
    path: str
    size_bytes: int
    file_id: int
    checksum: str
    created_at: datetime


@dataclass(frozen=True)
class Left:
    """Bytes that are left under the path of a replica, as they were found."""

    replica_id: int
    storage_id: int
    path: str
    size_bytes: int
    mtime: datetime


def note(session: Session, left: Sequence[Left]) -> None:
    """Write down what is left; what was left there before is another file's, and forgotten."""
    for storage_id in sorted({item.storage_id for item in left}):
        mine = sorted((i for i in left if i.storage_id == storage_id), key=lambda i: i.path)
        forget(session, storage_id, [item.path for item in mine])
        rows = [
            {
                "storage_id": storage_id,
                "path": item.path,
                "size_bytes": item.size_bytes,
                "mtime_us": micros(item.mtime),
                "replica_id": item.replica_id,
            }
            for item in mine
        ]
        insert_ignore(session, Detached, rows)


def forget(session: Session, storage_id: int, paths: Sequence[str]) -> None:
    """These paths are detached no longer: something is registered there."""
    table = table_of(Detached)
    session.connection().execute(
        sa.delete(table).where(
            table.c.storage_id == storage_id, among(session, table.c.path, paths)
        )
    )


def unchanged(session: Session, storage_id: int, found: Iterable[ObjectInfo]) -> set[str]:
    """Of things found on a storage the paths that are detached, and as they were left."""
    infos = {info.path: info for info in found}
    if not infos:
        return set()
    rows = session.execute(
        sa.select(col(Detached.path), col(Detached.size_bytes), col(Detached.mtime_us)).where(
            col(Detached.storage_id) == storage_id, among(session, col(Detached.path), infos)
        )
    )
    return {
        row.path
        for row in rows
        if infos[row.path].stamp.agrees(Stamp(row.size_bytes, row.mtime_us))
    }


def rescan(session: Session, storage_id: int | None = None, prefix: str = "") -> int:
    """Let the intake take detached files again, and leftovers for their names; gives how many."""
    paths: set[tuple[int, str]] = set()
    for model in (Detached, Leftover):
        table = table_of(model)
        gone = sa.delete(table).where(*_chosen(table, storage_id, prefix))
        rows = session.connection().execute(gone.returning(table.c.storage_id, table.c.path))
        paths.update((row.storage_id, row.path) for row in rows)
    return len(paths)


def listing(
    session: Session, storage_id: int | None = None, *, after: int = 0, limit: int = 100
) -> list[DetachedInfo]:
    """Detached files by id; `after` goes on behind one."""
    rows = session.execute(
        sa.select(
            col(Detached.id),
            col(Storage.name).label("storage"),
            col(Detached.path),
            col(Detached.size_bytes),
            col(Replica.file_id),
            col(File.checksum),
            col(Detached.created_at),
        )
        .join(Storage, col(Storage.id) == col(Detached.storage_id))
        .join(Replica, col(Replica.id) == col(Detached.replica_id))
        .join(File, col(File.id) == col(Replica.file_id))
        .where(*_chosen(table_of(Detached), storage_id, ""), col(Detached.id) > after)
        .order_by(col(Detached.id))
        .limit(limit)
    )
    return [DetachedInfo(**row._mapping) for row in rows]


def count(session: Session) -> tuple[int, int]:
    """How many files are detached, and their bytes."""
    query = sa.select(
        sa.func.count(),
        sa.cast(sa.func.coalesce(sa.func.sum(col(Detached.size_bytes)), 0), sa.BigInteger),
    ).select_from(Detached)
    files, size_bytes = session.execute(query).one()
    return files, size_bytes


def _chosen(table: sa.Table, storage_id: int | None, prefix: str) -> list[sa.ColumnElement[bool]]:
    chosen = []
    if storage_id is not None:
        chosen.append(table.c.storage_id == storage_id)
    if prefix:
        chosen.append(table.c.path.startswith(prefix, autoescape=True))
    return chosen
