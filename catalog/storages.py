"""Storages: the places that hold bytes, as the catalog knows them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import answering
from catalog.bulk import insert_ignore
from catalog.clock import now
from catalog.columns import total
from catalog.errors import BadInput, Conflict, NotFound
from catalog.models import File, Replica, Storage, StorageKind, StorageRole
from catalog.names import check_name
from catalog.overlaps import overlap
from catalog.places import place_of
from catalog.refs import StorageInfo as StorageInfo
from catalog.states import ReplicaState


@dataclass(frozen=True)
class StorageUsage:
    """What the catalog knows to be on a storage in one replica state."""

    storage: str
    role: StorageRole
    state: ReplicaState
    files: int
    size_bytes: int


_INFO: tuple[Any, ...] = (
    col(Storage.id),
    col(Storage.name),
    col(Storage.kind),
    col(Storage.role),
    col(Storage.url),
    col(Storage.identity),
    col(Storage.marked_at).is_not(None).label("marked"),
)


def add(
    session: Session,
    name: str,
    kind: StorageKind | str,
    role: StorageRole | str,
    url: str,
    *,
    alone: bool = True,
) -> StorageInfo:
    """Add a storage; the directory of a local one is made where it doesn't exist.

    The same storage again changes nothing. Raises `Conflict` where the name or the place belongs
    to another, or (unless it need not be `alone`) the place lies inside another's or around it;
    `BadInput` for a place that can't be one. It has no marker yet: see `standing.mark`.
    """
    check_name("storage", name)
    try:
        kind, role = StorageKind(kind), StorageRole(role)
    except ValueError as error:
        raise BadInput(
            f"storage {name!r}: {error}; kinds are {', '.join(StorageKind)}, "
            f"roles {', '.join(StorageRole)}."
        ) from error
    url = place_for(kind, name, url)
    taken = session.execute(sa.select(col(Storage.name)).where(col(Storage.url) == url)).scalar()
    if taken is not None and taken != name:
        raise Conflict(f"{url} is storage {taken!r} already; a place can be one storage only.")
    if alone and taken is None:
        refuse_overlap(StorageInfo(0, name, kind, role, url), list_all(session))
    insert_ignore(session, Storage, [{"name": name, "kind": kind, "role": role, "url": url}])
    info = by_name(session, name)
    if (info.kind, info.role, info.url) != (kind, role, url):
        raise Conflict(
            f"storage {name!r} exists already, as {info.kind} {info.role} at {info.url}; "
            "choose another name; `spdf storage move` says that it lies elsewhere now."
        )
    if kind is StorageKind.LOCAL:
        _make(name, Path(url))
    return info


def place_for(kind: StorageKind, name: str, url: str) -> str:
    """A storage's place as its row has it; raises `BadInput` for one that can't be."""
    if kind is StorageKind.LOCAL:
        return _path(name, url)
    place_of(url)
    return url.rstrip("/")


def relocate(session: Session, storage_id: int, before: str, url: str) -> None:
    """A storage lies at `url` now; raises `Conflict` where it wasn't at `before` any more."""
    done = session.connection().execute(
        sa.update(Storage)
        .where(col(Storage.id) == storage_id, col(Storage.url) == before)
        .values(url=url)
    )
    if done.rowcount != 1:
        raise Conflict("the storage was moved by another meanwhile; `spdf storage list` shows it.")


def refuse_overlap(
    new: StorageInfo, known: Sequence[StorageInfo], *, resolve: bool = False
) -> None:
    """Raise `Conflict` where a new storage shares a place with another one that is known."""
    for other in known:
        if other.name == new.name:
            continue
        found = overlap(other, new, resolve=resolve)
        if found is not None:
            raise Conflict(
                f"{found.words}; bytes of the one would be the other's, too. Give the new one a "
                "place of its own."
            )


def identify(session: Session, storage_id: int, identity: str, *, marked: bool) -> None:
    """The catalog knows a storage by that id from now on; `marked`: its marker says so.

    Raises `Conflict` where another storage has it: both are the same place.
    """
    taken = session.execute(
        sa.select(col(Storage.name)).where(
            col(Storage.identity) == identity, col(Storage.id) != storage_id
        )
    ).scalar()
    if taken is not None:
        raise Conflict(
            f"by its marker it is storage {taken!r} already; a place can be one storage only."
        )
    values: dict[str, Any] = {"identity": identity, "marked_at": now() if marked else None}
    session.execute(
        sa.update(Storage).where(col(Storage.id) == storage_id).values(values),
        execution_options={"synchronize_session": False},
    )


def _path(name: str, url: str) -> str:
    path = Path(url)
    if not path.is_absolute() or ".." in path.parts or any(ord(c) < 32 for c in url):
        raise BadInput(f"storage {name!r}: {url!r} is not an absolute directory; give one.")
    answering.require(name, path)
    return str(path.resolve())


def _make(name: str, path: Path) -> None:
    answering.require(name, path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(
            f"storage {name!r}: the directory {path} can't be made ({error.strerror}); "
            "give another one, or make it."
        ) from error


def get(session: Session, storage_id: int) -> StorageInfo:
    """The storage with that id; raises `NotFound`."""
    return _one(session, col(Storage.id) == storage_id, storage_id)


def hold(session: Session, storage_id: int) -> None:
    """Wait for transactions that register copies there; until the end of this one others wait."""
    # Each new copy holds its storage's row by its foreign key.
    session.execute(
        sa.select(col(Storage.id)).where(col(Storage.id) == storage_id).with_for_update()
    )


def by_name(session: Session, name: str) -> StorageInfo:
    """The storage of that name; raises `NotFound`."""
    return _one(session, col(Storage.name) == name, name)


def _one(session: Session, condition: sa.ColumnElement[bool], name: object) -> StorageInfo:
    row = session.execute(sa.select(*_INFO).where(condition)).one_or_none()
    if row is None:
        raise NotFound("storage", name)
    return StorageInfo(**row._mapping)


def list_all(session: Session) -> list[StorageInfo]:
    """All storages, by name."""
    rows = session.execute(sa.select(*_INFO).order_by(col(Storage.name)))
    return [StorageInfo(**row._mapping) for row in rows]


def default_for(session: Session, role: StorageRole | str) -> StorageInfo:
    """The storage that serves a role: the first one added; raises `NotFound` without any."""
    row = session.execute(
        sa.select(*_INFO)
        .where(col(Storage.role) == StorageRole(role))
        .order_by(col(Storage.id))
        .limit(1)
    ).one_or_none()
    if row is None:
        raise NotFound("storage", str(role), f"`spdf storage add --role {role}` adds one")
    return StorageInfo(**row._mapping)


def usage(session: Session) -> list[StorageUsage]:
    """Files and bytes by storage and replica state; a storage without any is left out."""
    rows = session.execute(
        sa.select(
            col(Storage.name).label("storage"),
            col(Storage.role),
            col(Replica.state),
            sa.func.count().label("files"),
            total(col(File.size_bytes)).label("size_bytes"),
        )
        .join(Replica, col(Replica.storage_id) == col(Storage.id))
        .join(File, col(File.id) == col(Replica.file_id))
        .group_by(col(Storage.name), col(Storage.role), col(Replica.state))
        .order_by(col(Storage.name), col(Replica.state))
    )
    return [StorageUsage(**row._mapping) for row in rows]
