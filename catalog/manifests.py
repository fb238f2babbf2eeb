"""The content of datasets: members in their order, totals, and the digest over them."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog.bulk import chunks
from catalog.columns import kept, total
from catalog.files import replicas
from catalog.models import Dataset, DatasetFile, File
from catalog.refs import ReplicaRef

PAGE = 2000
DIGEST_PAGE = 10_000
_INCOMPLETE = b"\tincomplete\n"

Cursor = tuple[int, str]
"""Position and name of a member: where a listing goes on."""


@dataclass(frozen=True)
class Totals:
    """Files and bytes of a dataset as they are now."""

    files: int = 0
    size_bytes: int = 0


@dataclass(frozen=True)
class Content(Totals):
    """All of a dataset, read through once."""

    digest: str = ""


@dataclass(frozen=True)
class MemberInfo:
    """A file in a dataset: `name` and `key` are those it has there, `scope` and `id` its own."""

    id: int
    scope: str
    name: str
    key: str
    position: int
    size_bytes: int
    checksum: str
    replicas: tuple[ReplicaRef, ...] = ()

    @property
    def cursor(self) -> Cursor:
        """What to give as `after` to go on behind this member."""
        return self.position, self.name


def totals(session: Session, dataset_ids: Sequence[int]) -> dict[int, Totals]:
    """Files and bytes of datasets as they are now, by id."""
    found = dict.fromkeys(dataset_ids, Totals())
    # A look-up for each member: a join may read all files there are, of whatever dataset.
    size = (
        sa.select(col(File.size_bytes))
        .where(col(File.id) == col(DatasetFile.file_id))
        .scalar_subquery()
    )
    for batch in chunks(list(found)):
        sizes = (
            sa.select(col(DatasetFile.dataset_id).label("dataset_id"), size.label("size_bytes"))
            .where(col(DatasetFile.dataset_id).in_(batch))
            .cte("sizes")
            .prefix_with("MATERIALIZED")
        )
        rows = session.execute(
            sa.select(sizes.c.dataset_id, sa.func.count(), total(sizes.c.size_bytes)).group_by(
                sizes.c.dataset_id
            )
        )
        found.update({i: Totals(count, size_bytes) for i, count, size_bytes in rows})
    return found


def count(session: Session, dataset_id: int) -> int:
    """How many files a dataset has now."""
    query = sa.select(sa.func.count()).where(col(DatasetFile.dataset_id) == dataset_id)
    return int(session.execute(query.select_from(DatasetFile)).scalar_one())


def members(
    session: Session,
    dataset_id: int,
    *,
    after: Cursor | None = None,
    limit: int = 1000,
    with_replicas: bool = True,
) -> list[MemberInfo]:
    """The next `limit` files of a dataset in its order, with where their bytes are AVAILABLE."""
    columns = (
        col(File.id),
        col(File.scope),
        col(DatasetFile.name),
        col(DatasetFile.key),
        col(DatasetFile.position),
        col(File.size_bytes),
        col(File.checksum),
    )
    rows = session.execute(_page(dataset_id, columns, after, limit)).all()
    places = replicas(session, [row.id for row in rows]) if with_replicas else {}
    return [MemberInfo(**row._mapping, replicas=places.get(row.id, ())) for row in rows]


def all_members(
    session: Session, dataset_id: int, *, with_replicas: bool = True
) -> Iterator[MemberInfo]:
    """Every file of a dataset in its order, read page by page."""
    after: Cursor | None = None
    while page := members(
        session, dataset_id, after=after, limit=PAGE, with_replicas=with_replicas
    ):
        yield from page
        after = page[-1].cursor


def content(session: Session, dataset_id: int) -> Content:
    r"""Files and bytes, with the `sha256:hex` over the lines `name\tsize\tchecksum\n`, in order.

    Of an incomplete dataset a last line follows that no file can have: `\tincomplete\n`.
    """
    files = size_bytes = 0
    digest = hashlib.sha256()
    columns = (
        col(DatasetFile.position),
        col(DatasetFile.name),
        col(File.size_bytes),
        col(File.checksum),
    )
    after: Cursor | None = None
    while rows := session.execute(_page(dataset_id, columns, after, DIGEST_PAGE)).all():
        lines = "".join(f"{name}\t{size}\t{checksum}\n" for _, name, size, checksum in rows)
        digest.update(lines.encode())
        files += len(rows)
        size_bytes += sum(size for _, _, size, _ in rows)
        after = rows[-1].position, rows[-1].name
    if _is_incomplete(session, dataset_id):
        digest.update(_INCOMPLETE)
    return Content(files, kept(size_bytes), f"sha256:{digest.hexdigest()}")


def _is_incomplete(session: Session, dataset_id: int) -> bool:
    query = sa.select(col(Dataset.incomplete)).where(col(Dataset.id) == dataset_id)
    return session.execute(query).scalar() is not None


def _page(
    dataset_id: int, columns: Sequence[Any], after: Cursor | None, limit: int
) -> sa.Select[Any]:
    query = (
        sa.select(*columns)
        .select_from(DatasetFile)
        .join(File, col(File.id) == col(DatasetFile.file_id))
        .where(col(DatasetFile.dataset_id) == dataset_id)
        .order_by(col(DatasetFile.position), col(DatasetFile.name))
        .limit(limit)
    )
    if after is None:
        return query
    here = sa.tuple_(col(DatasetFile.position), col(DatasetFile.name))
    return query.where(here > sa.tuple_(*map(sa.literal, after)))
