"""Files and their replicas: registering, finding, marking."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import filenames, stamping, storages, usage
from catalog.bulk import chunks, insert_keyed, insert_rest, unclaimed
from catalog.checksums import algorithm_of, normalise
from catalog.errors import BadInput, Conflict, NotFound
from catalog.models import File, Replica, Storage
from catalog.names import check_name, check_path
from catalog.refs import ReplicaRef
from catalog.rowsets import among
from catalog.stamps import Stamp, same_time
from catalog.states import ReplicaState
from catalog.transitions import move

_HINT = "`spdf dataset files DATASET` shows names; write an id, `scope:name` or a unique name"


@dataclass(frozen=True)
class NewFileRow:
    """A file whose bytes lie on a storage already; `path` is relative to the storage.

    `stamp` is what was seen there, None where nobody looked. `read`: its bytes were read just now,
    and have the checksum.
    """

    scope: str
    name: str
    path: str
    size_bytes: int
    checksum: str
    stamp: Stamp | None = None
    read: bool = False

    @property
    def mtime_us(self) -> int | None:
        """What its copy's row gets for a stamp; None where what was seen has another size."""
        if self.stamp is None or self.stamp.size_bytes != self.size_bytes:
            return None
        return self.stamp.mtime_us


@dataclass(frozen=True)
class KnownCopy:
    """How the catalog has a file, and its copy under a path; None: it has none there."""

    algorithm: str
    state: ReplicaState | None
    mtime_us: int | None


@dataclass(frozen=True)
class FileInfo:
    """A file as its row stood; `primary_id` is the file that it accompanies, if any."""

    id: int
    scope: str
    name: str
    size_bytes: int
    checksum: str
    primary_id: int | None
    created_at: datetime

    @property
    def ref(self) -> str:
        """`scope:name`, by which `find` finds it."""
        return f"{self.scope}:{self.name}"


@dataclass(frozen=True)
class ReplicaInfo:
    """One copy of a file, in whatever state."""

    id: int
    file_id: int
    storage: str
    storage_id: int
    path: str
    state: ReplicaState
    mtime_us: int | None = None


_INFO = (
    col(File.id),
    col(File.scope),
    col(File.name),
    col(File.size_bytes),
    col(File.checksum),
    col(File.primary_id),
    col(File.created_at),
)


def register(
    session: Session, storage_id: int, new: Sequence[NewFileRow], *, in_place: bool = True
) -> list[int]:
    """Register files with a replica each on one storage; gives their ids in the order given.

    Their bytes lay there before (`in_place`), or were copied there by the caller.

    A file known by the same scope, name, size and checksum keeps its id; a replica that was BAD or
    MISSING is AVAILABLE again, once its bytes were read (or, of a MISSING one, have its stamp). A
    name or a path whose last bytes are DELETED is free for others: what had it is called `NAME//ID`
    from then on. Raises `Conflict` for a file that is known with other bytes, for a path that
    belongs to another file or is being removed, and for bytes that must be read first; `BadInput`
    and `BadName` for malformed rows.
    """
    rows = [_checked(row) for row in new]
    # A fixed order, so that two transactions with the same files wait instead of deadlocking.
    ordered = sorted(rows, key=lambda row: (row.scope, row.name))
    ids = _add_files(session, ordered)
    _add_replicas(session, storage_id, [(ids[row.scope, row.name], row) for row in rows], in_place)
    return [ids[row.scope, row.name] for row in rows]


def _checked(row: NewFileRow) -> NewFileRow:
    check_name("scope", row.scope)
    check_path("file name", row.name)
    check_path("path", row.path)
    if row.size_bytes < 0:
        raise BadInput(f"file {row.name!r}: {row.size_bytes} is no size; give bytes.")
    checksum = normalise(row.checksum)
    return row if checksum == row.checksum else replace(row, checksum=checksum)


def _add_files(session: Session, ordered: Sequence[NewFileRow]) -> dict[tuple[Any, ...], int]:
    """Ids by scope and name. Only files that are not new are looked up.

    Of a table that grows within one transaction the database has no statistics: it would read
    all that was inserted before at every look-up.
    """
    ids = _insert_files(session, ordered)
    for batch in chunks(unclaimed(ordered, ids, lambda row: (row.scope, row.name))):
        known, over = _same_files(session, batch)
        ids |= known
        if over:
            # Their names are free by now; of the same one twice the second is looked at anew.
            ids |= _add_files(session, over)
    return ids


def _insert_files(session: Session, ordered: Sequence[NewFileRow]) -> dict[tuple[Any, ...], int]:
    return insert_keyed(
        session,
        File,
        [
            {
                "scope": row.scope,
                "name": row.name,
                "size_bytes": row.size_bytes,
                "checksum": row.checksum,
            }
            for row in ordered
        ],
        "scope",
        "name",
    )


def _same_files(
    session: Session, batch: Sequence[NewFileRow]
) -> tuple[dict[tuple[str, str], int], list[NewFileRow]]:
    """Ids by scope and name, after a check that the catalog knows the very same bytes.

    And the rows of other bytes, whose names have been given up by files that are gone.
    """
    known: dict[tuple[str, str], Any] = {}
    for scope in sorted({row.scope for row in batch}):
        names = [row.name for row in batch if row.scope == scope]
        query = sa.select(*_INFO).where(col(File.scope) == scope, col(File.name).in_(names))
        # Held, so that no name is given up whose bytes are registered anew just now.
        query = query.order_by(col(File.id)).with_for_update()
        known.update({(row.scope, row.name): row for row in session.execute(query)})
    # One whose name was given up just now by another transaction isn't found any more.
    again = [row for row in batch if (row.scope, row.name) not in known]
    there = [row for row in batch if (row.scope, row.name) in known]
    if other := [row for row in there if not _is_same(known[row.scope, row.name], row)]:
        over = filenames.gone(session, sorted({known[row.scope, row.name].id for row in other}))
        for row in other:
            if known[row.scope, row.name].id not in over:
                raise filenames.refusal(known[row.scope, row.name], row.size_bytes, row.checksum)
        filenames.give_up(session, sorted(over))
    free = {(row.scope, row.name) for row in other}
    return {place: row.id for place, row in known.items() if place not in free}, again + other


def _is_same(found: Any, row: NewFileRow) -> bool:
    return (found.size_bytes, found.checksum) == (row.size_bytes, row.checksum)


def _add_replicas(
    session: Session,
    storage_id: int,
    replicas: Sequence[tuple[int, NewFileRow]],
    in_place: bool,
) -> None:
    ordered = sorted(replicas, key=lambda replica: replica[1].path)
    clashed = _insert_replicas(session, storage_id, ordered, in_place)
    if clashed and filenames.give_up_paths(session, storage_id, clashed):
        known = set(clashed)
        again = [replica for replica in ordered if replica[1].path in known]
        clashed = _insert_replicas(session, storage_id, again, in_place)
    sizes = {row.path: row.size_bytes for _, row in ordered}
    size_bytes = sum(sizes[row.path] for _, row in ordered) - sum(sizes[path] for path in clashed)
    filenames.refuse_removed(session, storage_id, [row.path for _, row in ordered])
    usage.note(session, storage_id, len(ordered) - len(clashed), size_bytes)
    known = set(clashed)
    if not known:
        return
    there = [replica for replica in ordered if replica[1].path in known]
    wrong, times_us = _check_replicas(session, storage_id, there)
    stamping.stamp(session, times_us)
    usage.back(session, wrong)
    told = "registered again"
    move(session, Replica, wrong, ReplicaState.AVAILABLE, message=told, in_place=in_place)


def _insert_replicas(
    session: Session, storage_id: int, replicas: Sequence[tuple[int, NewFileRow]], in_place: bool
) -> list[str]:
    """Gives the paths that clashed."""
    return insert_rest(
        session,
        Replica,
        [
            {
                "file_id": file_id,
                "storage_id": storage_id,
                "path": row.path,
                "state": ReplicaState.AVAILABLE,
                "in_place": in_place,
                "mtime_us": row.mtime_us,
            }
            for file_id, row in replicas
        ],
        "path",
    )


def _check_replicas(
    session: Session, storage_id: int, known: Sequence[tuple[int, NewFileRow]]
) -> tuple[list[int], dict[int, int]]:
    """Ids of those that were BAD or MISSING, and the stamps of those that were read, by their ids.

    Raises `Conflict` for those that can't be used.
    """
    query = sa.select(
        col(Replica.id),
        col(Replica.file_id),
        col(Replica.path),
        col(Replica.state),
        col(Replica.mtime_us),
    ).where(
        col(Replica.storage_id) == storage_id,
        among(session, col(Replica.path), [row.path for _, row in known]),
    )
    # Held, all in one order: who deletes one of them waits, and then finds who has it now.
    query = query.order_by(col(Replica.id)).with_for_update()
    rows = {row.path: row for row in session.execute(query)}
    wrong, times_us = [], {}
    for file_id, new in known:
        row, path = rows[new.path], new.path
        if row.file_id != file_id:
            raise Conflict(
                f"path {path!r} on storage {storages.get(session, storage_id).name!r} belongs to "
                f"file {row.file_id}; a path holds one file only."
            )
        if row.state in (ReplicaState.DELETING, ReplicaState.DELETED):
            raise Conflict(
                f"path {path!r} on storage {storages.get(session, storage_id).name!r} is being "
                "deleted; register it once it is DELETED, or under another path."
            )
        if not _is_believed(row, new):
            raise Conflict(
                f"path {path!r} on storage {storages.get(session, storage_id).name!r} is "
                f"{row.state}{_SINCE.get(row.state, '')}, so its bytes must be read before it is "
                f"registered again: `spdf file verify {row.file_id}`."
            )
        if row.state in (ReplicaState.BAD, ReplicaState.MISSING):
            wrong.append(row.id)
        if new.read and new.mtime_us not in (None, row.mtime_us):
            times_us[row.id] = new.mtime_us
    return wrong, times_us


_SINCE = {ReplicaState.AVAILABLE: ", and was written to since it was registered"}


def _is_believed(row: sa.Row[Any], new: NewFileRow) -> bool:
    """Whether the bytes of a copy that is known are the file's, as far as somebody looked."""
    if new.read or row.state is ReplicaState.COPYING:
        return True
    if row.mtime_us is None or new.mtime_us is None:
        return row.state is ReplicaState.AVAILABLE
    return row.state is not ReplicaState.BAD and same_time(row.mtime_us, new.mtime_us)


def get(session: Session, scope: str, name: str) -> FileInfo:
    """The file of that name in that scope; raises `NotFound`."""
    query = sa.select(*_INFO).where(col(File.scope) == scope, col(File.name) == name)
    row = session.execute(query).one_or_none()
    if row is None:
        raise NotFound("file", f"{scope}:{name}", _HINT)
    return FileInfo(**row._mapping)


def checksums(session: Session, rows: Sequence[NewFileRow]) -> dict[tuple[str, str], str]:
    """What the catalog has of those of the files that it knows, by scope and name."""
    known: dict[tuple[str, str], str] = {}
    for scope in sorted({row.scope for row in rows}):
        names = [row.name for row in rows if row.scope == scope]
        found = session.execute(
            sa.select(col(File.name), col(File.checksum)).where(
                col(File.scope) == scope, among(session, col(File.name), names)
            )
        )
        known.update({(scope, row.name): row.checksum for row in found})
    return known


def known_copies(
    session: Session, scope: str, storage_id: int, names: Sequence[str]
) -> dict[str, KnownCopy]:
    """Those of the files of a scope that the catalog knows, by name, which is also their path."""
    copy = sa.and_(
        col(Replica.file_id) == col(File.id),
        col(Replica.storage_id) == storage_id,
        col(Replica.path) == col(File.name),
    )
    found = session.execute(
        sa.select(col(File.name), col(File.checksum), col(Replica.state), col(Replica.mtime_us))
        .outerjoin(Replica, copy)
        .where(col(File.scope) == scope, among(session, col(File.name), names))
    )
    return {
        row.name: KnownCopy(algorithm_of(row.checksum), row.state, row.mtime_us) for row in found
    }


def by_ids(session: Session, file_ids: Sequence[int]) -> dict[int, FileInfo]:
    """The files with these ids, by id; unknown ids are left out."""
    rows = session.execute(sa.select(*_INFO).where(among(session, col(File.id), file_ids)))
    return {row.id: FileInfo(**row._mapping) for row in rows}


def find(session: Session, text: str) -> FileInfo:
    """The file that `text` means: an id, `scope:name`, or a name that only one file has.

    Raises `NotFound`, or `BadInput` for a name that several scopes have.
    """
    if text.isascii() and text.isdigit() and len(text) < 19:
        found = by_ids(session, [int(text)])
        if found:
            return found[int(text)]
    scope, colon, name = text.partition(":")
    if colon:
        condition = sa.and_(col(File.scope) == scope, col(File.name) == name)
    else:
        condition = col(File.name) == text
    query = sa.select(*_INFO).where(condition).order_by(col(File.id)).limit(3)
    rows = [FileInfo(**row._mapping) for row in session.execute(query)]
    if not rows:
        raise NotFound("file", text, _HINT)
    if len(rows) > 1:
        some = ", ".join(row.ref for row in rows[:2])
        raise BadInput(f"several files are called {text!r}, such as {some}; write `scope:name`.")
    return rows[0]


def replicas(session: Session, file_ids: Sequence[int]) -> dict[int, tuple[ReplicaRef, ...]]:
    """Where the bytes of these files are AVAILABLE, by file id; () where nowhere."""
    found: dict[int, list[ReplicaRef]] = {file_id: [] for file_id in file_ids}
    rows = session.execute(
        sa.select(col(Replica.file_id), col(Replica.storage_id), col(Replica.path))
        .where(
            among(session, col(Replica.file_id), found),
            col(Replica.state) == ReplicaState.AVAILABLE,
        )
        .order_by(col(Replica.id))
    )
    for file_id, storage_id, path in rows:
        found[file_id].append(ReplicaRef(storage_id, path))
    return {file_id: tuple(places) for file_id, places in found.items()}


def all_replicas(session: Session, file_id: int) -> list[ReplicaInfo]:
    """Every replica of a file, whatever its state, oldest first."""
    rows = session.execute(
        sa.select(
            col(Replica.id),
            col(Replica.file_id),
            col(Storage.name).label("storage"),
            col(Replica.storage_id),
            col(Replica.path),
            col(Replica.state),
            col(Replica.mtime_us),
        )
        .join(Storage, col(Storage.id) == col(Replica.storage_id))
        .where(col(Replica.file_id) == file_id)
        .order_by(col(Replica.id))
    )
    return [ReplicaInfo(**row._mapping) for row in rows]


def mark_bad(
    session: Session, file_ids: Sequence[int], storage_id: int, message: str | None = None
) -> list[int]:
    """The AVAILABLE replicas of these files on a storage are BAD; gives the replicas' ids."""
    moved: list[int] = []
    for batch in chunks(sorted(set(file_ids))):
        query = sa.select(col(Replica.id)).where(
            col(Replica.file_id).in_(batch), col(Replica.storage_id) == storage_id
        )
        ids = list(session.scalars(query))
        for part in chunks(ids):
            available = [ReplicaState.AVAILABLE]
            moved += move(
                session, Replica, part, ReplicaState.BAD, only_from=available, message=message
            )
    return moved
