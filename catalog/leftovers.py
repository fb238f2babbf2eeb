"""Leftovers: files that lie where they lay when a dataset that the intake fills was deleted.

Another dataset holds them, or has taken them up after they were detached. The intake doesn't take
them for a dataset of that name again while they are as they were (size and mtime), until a rescan;
for datasets of other names it may. Who puts one into a dataset is free to do so.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import intakerules, originals
from catalog.bulk import insert_ignore, table_of
from catalog.drivers import ObjectInfo, StorageDriver
from catalog.errors import StorageError
from catalog.models import (
    Dataset,
    DatasetFile,
    Detached,
    IntakeRule,
    Leftover,
    Replica,
    Source,
)
from catalog.rowsets import among
from catalog.stamps import micros, same_time
from catalog.states import DatasetState


@dataclass(frozen=True)
class Held:
    """A copy that stays although a dataset of its file is deleted.

    `mtime_us` is None where its storage can't tell: then it is as it was while it isn't younger.
    """

    storage_id: int
    path: str
    size_bytes: int
    mtime_us: int | None = None


@dataclass(frozen=True)
class Owner:
    """A dataset, and for which of its copies the intake may come back."""

    dataset: str
    storages: frozenset[int]
    rules: tuple[intakerules.Rule, ...]

    def chosen(self, rows: Iterable[sa.Row[tuple[int, str, int]]]) -> list[Held]:
        """Those that lie where rules look for files of the dataset."""
        return [
            Held(row.storage_id, row.path, row.size_bytes)
            for row in rows
            if row.storage_id in self.storages
            or any(
                rule.storage_id == row.storage_id and rule.takes(row.path) == self.dataset
                for rule in self.rules
            )
        ]


def owner(session: Session, dataset_id: int) -> Owner:
    """What is to be known of a dataset that is deleted."""
    row = session.execute(
        sa.select(col(Dataset.name), col(Dataset.rule_id)).where(col(Dataset.id) == dataset_id)
    ).one()
    filled = sa.select(col(Source.rule_id)).where(col(Source.dataset_id) == dataset_id)
    storages = session.scalars(
        sa.select(col(IntakeRule.storage_id)).where(
            sa.or_(col(IntakeRule.id) == row.rule_id, col(IntakeRule.id).in_(filled))
        )
    )
    followed = tuple(rule for rule in intakerules.active(session) if rule.fault is None)
    called = originals.parent(session, dataset_id) or row.name.removesuffix(f"#{dataset_id}")
    return Owner(called, frozenset(storages), followed)


def look(
    places: Mapping[int, StorageDriver | StorageError],
    held: Sequence[Held],
    pool: ThreadPoolExecutor,
) -> list[Held]:
    """The copies as they are now, as far as their storages can tell."""

    def one(item: Held) -> Held:
        driver = places.get(item.storage_id)
        if driver is None or isinstance(driver, StorageError):
            return item
        try:
            there = driver.stat(item.path)
        except StorageError:
            return item
        return replace(item, size_bytes=there.size_bytes, mtime_us=micros(there.mtime))

    return list(pool.map(one, held))


def note(session: Session, dataset: str, held: Sequence[Held]) -> None:
    """Write down what stays of a dataset that is deleted."""
    for storage_id in sorted({item.storage_id for item in held}):
        mine = sorted((i for i in held if i.storage_id == storage_id), key=lambda i: i.path)
        # An earlier dataset of that name may have left them, as they were then.
        forget(session, storage_id, [item.path for item in mine], dataset)
        rows = [
            {
                "storage_id": storage_id,
                "path": item.path,
                "dataset": dataset,
                "size_bytes": item.size_bytes,
                "mtime_us": item.mtime_us,
            }
            for item in mine
        ]
        insert_ignore(session, Leftover, rows)


def take_over(session: Session, storage_id: int, paths: Collection[str]) -> None:
    """What was detached under these paths is to be registered anew, for whatever dataset.

    It stays a leftover of those that had it.
    """
    rows = session.execute(
        sa.select(
            col(Detached.storage_id),
            col(Detached.path),
            col(Detached.size_bytes),
            col(Detached.mtime_us),
            col(DatasetFile.dataset_id),
        )
        .join(Replica, col(Replica.id) == col(Detached.replica_id))
        .join(DatasetFile, col(DatasetFile.file_id) == col(Replica.file_id))
        .join(Dataset, col(Dataset.id) == col(DatasetFile.dataset_id))
        .where(
            col(Detached.storage_id) == storage_id,
            among(session, col(Detached.path), paths),
            col(Dataset.state).in_((DatasetState.DELETING, DatasetState.DELETED)),
        )
    ).all()
    mtimes = {row.path: row.mtime_us for row in rows}
    for dataset_id in sorted({row.dataset_id for row in rows}):
        whose = owner(session, dataset_id)
        mine = whose.chosen(row for row in rows if row.dataset_id == dataset_id)
        note(session, whose.dataset, [replace(i, mtime_us=mtimes[i.path]) for i in mine])


def forget(
    session: Session, storage_id: int, paths: Collection[str], dataset: str | None = None
) -> None:
    """Nothing is left under these paths, by that dataset or by any."""
    table = table_of(Leftover)
    chosen = [table.c.storage_id == storage_id, among(session, table.c.path, paths)]
    if dataset is not None:
        chosen.append(table.c.dataset == dataset)
    session.connection().execute(sa.delete(table).where(*chosen))


def unchanged(
    session: Session, storage_id: int, found: Iterable[ObjectInfo], wanted: Mapping[str, str]
) -> set[str]:
    """Of things found on a storage the paths that are as they were left.

    Left by a dataset of the name that each is `wanted` for, by its path.
    """
    infos = {info.path: info for info in found}
    if not infos:
        return set()
    rows = session.execute(
        sa.select(
            col(Leftover.path),
            col(Leftover.dataset),
            col(Leftover.size_bytes),
            col(Leftover.mtime_us),
            col(Leftover.created_at),
        ).where(col(Leftover.storage_id) == storage_id, among(session, col(Leftover.path), infos))
    )
    return {
        row.path
        for row in rows
        if row.dataset == wanted[row.path]
        and infos[row.path].size_bytes == row.size_bytes
        and _is_as_left(micros(infos[row.path].mtime), row.mtime_us, micros(row.created_at))
    }


def _is_as_left(now_us: int, then_us: int | None, noted_us: int) -> bool:
    return now_us <= noted_us if then_us is None else same_time(now_us, then_us)


def count(session: Session, dataset: str) -> int:
    """How many files a deleted dataset of that name has left that others have."""
    query = sa.select(sa.func.count()).where(col(Leftover.dataset) == dataset)
    return int(session.execute(query.select_from(Leftover)).scalar_one())
