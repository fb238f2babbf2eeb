"""Storages: the places that hold bytes, as the catalog knows them."""

from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog.bulk import insert_ignore
from catalog.errors import BadInput, Conflict, NotFound
from catalog.models import File, Replica, Storage, StorageKind, StorageRole
from catalog.names import check_name
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


_INFO = (col(Storage.id), col(Storage.name), col(Storage.kind), col(Storage.role), col(Storage.url))


def add(
    session: Session, name: str, kind: StorageKind | str, role: StorageRole | str, url: str
) -> StorageInfo:
    """Add a storage; the directory of a local one is made where it doesn't exist.

    The same storage again changes nothing. Raises `Conflict` where the name or the place belongs
    to another, `BadInput` for a place that can't be one.
    """
    check_name("storage", name)
    try:
        kind, role = StorageKind(kind), StorageRole(role)
    except ValueError as error:
        raise BadInput(
            f"storage {name!r}: {error}; kinds are {', '.join(StorageKind)}, "
            f"roles {', '.join(StorageRole)}."
        ) from error
    url = _directory(name, url) if kind is StorageKind.LOCAL else _bucket(url)
    taken = session.execute(sa.select(col(Storage.name)).where(col(Storage.url) == url)).scalar()
    if taken is not None and taken != name:
        raise Conflict(f"{url} is storage {taken!r} already; a place can be one storage only.")
    insert_ignore(session, Storage, [{"name": name, "kind": kind, "role": role, "url": url}])
    info = by_name(session, name)
    if (info.kind, info.role, info.url) != (kind, role, url):
        raise Conflict(
            f"storage {name!r} exists already, as {info.kind} {info.role} at {info.url}; "
            "choose another name."
        )
    return info


def _bucket(url: str) -> str:
    place_of(url)
    return url.rstrip("/")


def _directory(name: str, url: str) -> str:
    path = Path(url)
    if not path.is_absolute() or ".." in path.parts or any(ord(c) < 32 for c in url):
        raise BadInput(f"storage {name!r}: {url!r} is not an absolute directory; give one.")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(
            f"storage {name!r}: the directory {path} can't be made ({error.strerror}); "
            "give one that you may write."
        ) from error
    return str(path.resolve())


def get(session: Session, storage_id: int) -> StorageInfo:
    """The storage with that id; raises `NotFound`."""
    return _one(session, col(Storage.id) == storage_id, storage_id)


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
            sa.cast(sa.func.sum(col(File.size_bytes)), sa.BigInteger).label("size_bytes"),
        )
        .join(Replica, col(Replica.storage_id) == col(Storage.id))
        .join(File, col(File.id) == col(Replica.file_id))
        .group_by(col(Storage.name), col(Storage.role), col(Replica.state))
        .order_by(col(Storage.name), col(Replica.state))
    )
    return [StorageUsage(**row._mapping) for row in rows]
