"""Whether storages are what the catalog takes them for: markers written, taken up and looked at.

A storage that stands already gets its marker as soon as it is plain that it is all there: files
that the catalog knows of must be found. An empty mount point never gets one by itself: where no
file can tell, a person says which storage it is, by `spdf storage add` or `spdf storage mark`.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum
from functools import partial
from typing import TypeVar

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import answering, claims, storages
from catalog.claims import Ours
from catalog.counts import count_of
from catalog.db import Catalog
from catalog.drivers import StorageDriver, driver_for, marker
from catalog.drivers.marker import Marker
from catalog.errors import Conflict, ErrorCode, SpdfError, StorageError
from catalog.models import File, Replica
from catalog.names import MARKER
from catalog.overlaps import Overlap, overlaps
from catalog.refs import StorageInfo
from catalog.states import ReplicaState

log = logging.getLogger(__name__)

R = TypeVar("R")
LOOK_S = answering.LIMIT_S
_SAMPLE = 20
"""Known files, of the oldest and of the newest, that are looked for."""
_SURE = (ReplicaState.AVAILABLE, ReplicaState.BAD)
_UNSURE = (ReplicaState.COPYING, ReplicaState.MISSING, ReplicaState.DELETING)
"""Files that may be there: that they are tells something, and that none is, is no proof either."""


class Standing(StrEnum):
    """What a storage is found to be."""

    ITSELF = "itself"
    AWAY = "away"
    UNMARKED = "unmarked"


@dataclass(frozen=True)
class Found:
    """A storage as it was found; `why` says what is wrong with it, and what to do."""

    storage: StorageInfo
    standing: Standing
    why: str = ""
    to_place: str = ""
    """The marker, where it must be placed by hand."""


class NotPlain(Conflict):
    """Nobody can tell whether a storage is the one that it was."""


def look(info: StorageInfo, mine: Ours | None = None) -> Found:
    """Look at a storage; nothing is changed.

    Also whether this catalog may remove there, as far as somebody should hear of it, where it is
    told who that is.
    """
    try:
        driver = driver_for(info)
        driver.check()
        text = None if info.identity is None else driver.read_marker()
        if info.marked or text is not None:
            return Found(info, Standing.ITSELF, _of_claims(info, text, mine))
    except StorageError as error:
        return Found(info, Standing.AWAY, str(error))
    return Found(
        info,
        Standing.UNMARKED,
        f"storage {info.name!r} has no marker {MARKER} yet, so nothing there counts as gone; "
        f"`spdf storage mark {info.name}` makes it, or tells why it can't be.",
    )


def _of_claims(info: StorageInfo, text: bytes | None, mine: Ours | None) -> str:
    """Why nothing may be removed from a storage, where that is a trouble; else nothing."""
    if text is None or mine is None:
        return ""
    found = _read(info, text, anyway=True)
    if found is None or not claims.is_trouble(found, info, mine):
        return ""
    why = claims.why_not(found, info, mine)
    return "" if why is None else f"storage {info.name!r}: nothing is removed there: {why}."


def look_all(
    known: Sequence[StorageInfo], mine: Ours | None = None, *, limit_s: float = LOOK_S
) -> list[Found]:
    """Look at storages, at all of them at once; nothing is changed.

    One that doesn't answer in time, such as a mount that hangs, is away.
    """
    found = in_time([partial(look, info, mine) for info in known], limit_s)
    return [
        one
        or Found(
            info,
            Standing.AWAY,
            f"storage {info.name!r}: {info.url} doesn't answer within {limit_s:g} s; check its "
            "mount or server.",
        )
        for info, one in zip(known, found, strict=True)
    ]


def problems(
    known: Sequence[StorageInfo], mine: Ours | None = None, *, limit_s: float = LOOK_S
) -> list[str]:
    """A sentence on each storage that isn't itself, and on each two that share a place."""
    told = [found.why for found in look_all(known, mine, limit_s=limit_s) if found.why]
    (sharing,) = in_time([partial(overlaps, known, resolve=True)], limit_s)
    return told + told_overlaps(sharing or ())


def in_time(calls: Sequence[Callable[[], R]], limit_s: float) -> list[R | None]:
    """What calls give that are over in time, all at once; None of the others.

    Those go on in threads that nobody waits for: a look at a mount that hangs can't be ended.
    """
    results: list[R | None] = [None] * len(calls)

    def run(number: int) -> None:
        results[number] = calls[number]()

    threads = [
        threading.Thread(target=run, args=(number,), name=f"look-{number}", daemon=True)
        for number in range(len(calls))
    ]
    until = time.monotonic() + limit_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return list(results)


def told_overlaps(found: Iterable[Overlap]) -> list[str]:
    """A sentence on each two storages that share a place, or one that has a folder twice."""
    return [f"{item.words}; {_mend(item)}" for item in found]


def _mend(item: Overlap) -> str:
    if item.outer.id == item.inner.id:
        return "nothing is removed there that a file's row names in either. Unmount one of them"
    kept = "nothing is removed that the other one may have"
    if item.within:
        return f"{kept}. Unmount it, so that each has a place of its own"
    return f"{kept}. Bring one of them to a place of its own, then `spdf storage move NAME PLACE`"


def mark(catalog: Catalog, storage_id: int, *, by_word: bool = False) -> Found:
    """Have a storage marked: its marker is written, or the one that is there is taken up.

    Does nothing where it is itself already. `by_word`: a person says that this is it, whatever was
    there before. Raises `StorageError` where it is away, `NotPlain` where the catalog knows files
    there and none is found, `Conflict` where its marker is that of another storage.
    """
    return _mark(catalog, storage_id, _Why.NAMED if by_word else _Why.ASKED)


class _Why(IntEnum):
    """Why a storage is to be marked: from one value to the next more is taken for granted."""

    FOUND = 0
    """Nobody asked for it."""
    FIRST = 1
    """It was just added, or is written to: it has no files yet."""
    ASKED = 2
    NAMED = 3
    """A person says that this is it."""


def _mark(catalog: Catalog, storage_id: int, why: _Why) -> Found:
    by_word = why is _Why.NAMED
    with catalog.read() as session:
        info = storages.get(session, storage_id)
    if not by_word:
        driver_for(info).check()
    driver = driver_for(replace(info, identity=None))
    text = driver.read_marker()
    found = None if text is None else _read(info, text, anyway=by_word)
    is_known = found is not None and found.storage == info.identity
    if not (info.marked and is_known):
        if not by_word and not _is_seen(catalog, driver, info) and not is_known:
            _refuse_unseen(catalog, info, why)
        if found is not None:
            _identify(catalog, info, found.storage)
        elif not _write(catalog, driver, info, before=text):
            return _by_hand(catalog, info)
    claims.join(catalog, driver, info)
    with catalog.read() as session:
        return Found(storages.get(session, storage_id), Standing.ITSELF)


def adopt(catalog: Catalog, storage_id: int, *, first: bool = False) -> StorageInfo:
    """Mark a storage where it is plain that it is itself; gives it as it is then.

    That is where a file that the catalog has there is seen; with `first`, as it was just added or
    is written to, also where the catalog never had any. What is in the way is told to the log: who
    needs a marker finds none.
    """
    with catalog.read() as session:
        info = storages.get(session, storage_id)
    if info.marked:
        return info
    try:
        return _mark(catalog, storage_id, _Why.FIRST if first else _Why.FOUND).storage
    except SpdfError as error:
        log.warning("storage not marked", extra={"storage": info.name, "why": str(error)})
        return info


def adopt_all(catalog: Catalog) -> None:
    """Mark every storage of which it is plain that it is itself."""
    with catalog.read() as session:
        known = storages.list_all(session)
    for info in known:
        adopt(catalog, info.id)


def _read(info: StorageInfo, text: bytes, *, anyway: bool = False) -> Marker | None:
    """The marker; of a damaged one None where that doesn't matter, else `StorageError`."""
    try:
        return marker.read(text)
    except ValueError as error:
        if anyway:
            return None
        raise StorageError(
            ErrorCode.STORAGE_UNAVAILABLE,
            f"storage {info.name!r}: the marker {MARKER} of {info.url} is damaged ({error}); bring "
            f"it back from a copy, or have a new one: `spdf storage mark {info.name} --yes`.",
        ) from error


def _is_seen(catalog: Catalog, driver: StorageDriver, info: StorageInfo) -> bool:
    """Whether a file that the catalog knows on a storage is there, with its size.

    Raises `NotPlain` where there are such, and none is found.
    """
    with catalog.read() as session:
        known = _sample(session, info.id)
    if any(_is_there(driver, path, size_bytes) for path, size_bytes in known.items()):
        return True
    if known:
        raise NotPlain(
            f"storage {info.name!r}: none of {count_of(len(known), 'file')} that the catalog has "
            f"there is at {info.url}, with its size; is all of it mounted? `spdf storage mark "
            f"{info.name} --yes` says that it is."
        )
    return False


def _refuse_unseen(catalog: Catalog, info: StorageInfo, why: _Why) -> None:
    """Raise `NotPlain` where no file can tell whether a storage is itself, and no person did."""
    if why >= _Why.ASKED:
        return
    with catalog.read() as session:
        has_had = sa.exists().where(col(Replica.storage_id) == info.id)
        is_new = not session.execute(sa.select(has_had)).scalar()
    if is_new and why is _Why.FIRST:
        return
    raise NotPlain(
        f"storage {info.name!r}: the catalog has no file there by which {info.url} could be known "
        f"again; `spdf storage mark {info.name}` says that it is the storage."
    )


def _sample(session: Session, storage_id: int) -> dict[str, int]:
    """Sizes of known files by path, of those first whose bytes were there when last seen."""
    known: dict[str, int] = {}
    for states in (_SURE, _UNSURE):
        query = (
            sa.select(col(Replica.path), col(File.size_bytes))
            .join(File, col(File.id) == col(Replica.file_id))
            .where(col(Replica.storage_id) == storage_id, col(Replica.state).in_(states))
        )
        for order in (col(Replica.id).desc(), col(Replica.id)):
            known |= dict(session.execute(query.order_by(order).limit(_SAMPLE)).tuples().all())
    return known


def _is_there(driver: StorageDriver, path: str, size_bytes: int) -> bool:
    try:
        return driver.stat(path).size_bytes == size_bytes
    except StorageError as error:
        if error.code is ErrorCode.INPUT_MISSING:
            return False
        raise


def _identify(catalog: Catalog, info: StorageInfo, identity: str) -> None:
    with catalog.write() as session:
        try:
            storages.identify(session, info.id, identity, marked=True)
        except Conflict as error:
            raise Conflict(f"storage {info.name!r} at {info.url}: {error}") from error


def _write(
    catalog: Catalog, driver: StorageDriver, info: StorageInfo, *, before: bytes | None
) -> bool:
    """Write a new marker; False where we may not. Who comes second takes up the first one's."""
    with catalog.write() as session:
        known = storages.get(session, info.id)
        identity = known.identity or marker.new_id()
        storages.identify(session, info.id, identity, marked=known.marked)
        claim = claims.first(claims.ours(session), info)
    try:
        driver.write_marker(Marker(identity).with_claim(claim).to_bytes(), before=before)
    except StorageError as error:
        if error.code is ErrorCode.STORAGE_DENIED:
            return False
        if error.code is not ErrorCode.OUTPUT_EXISTS:
            raise
        found = _read(info, driver.read_marker() or b"")
        assert found is not None
        identity = found.storage
    _identify(catalog, info, identity)
    return True


def _by_hand(catalog: Catalog, info: StorageInfo) -> Found:
    """The marker that the owner of a storage has to place, since we may not."""
    with catalog.read() as session:
        known = storages.get(session, info.id)
        claim = claims.first(claims.ours(session), info)
    assert known.identity is not None
    text = Marker(known.identity).with_claim(claim).to_bytes().decode()
    why = (
        f"storage {info.name!r}: its marker can't be written by us; have {MARKER} placed at "
        f"{info.url}. Until then nothing there counts as gone, and nothing is removed."
    )
    return Found(known, Standing.UNMARKED, why, text)
