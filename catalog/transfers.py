"""Transfers: the bytes of an upload copied, file by file, and verified where they are then.

A file's place is reserved by a COPYING replica before its bytes go there, so that a crash leaves
nothing that isn't known. Each file is done for itself: a run does all that can be done, comes back
to what a storage refused meanwhile, and names what is left. One that died is gone on with.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import erasure, standing, storages, tries, troubles, uploadplaces, uploads
from catalog.clock import now
from catalog.counts import count_of
from catalog.db import Catalog
from catalog.drivers import Drivers, StorageDriver
from catalog.errors import ERRORS, ErrorClass, SpdfError, StorageError
from catalog.failpoints import reach
from catalog.models import Replica, Upload
from catalog.outage import sentence
from catalog.states import ReplicaState, UploadState
from catalog.transitions import move, move_one
from catalog.tries import Pace, Places
from catalog.troubles import Of
from catalog.uploadcopies import Cannot, UploadCopy, bring
from catalog.uploadplaces import Member
from catalog.uploads import UploadInfo

BATCH = 128
THREADS = 4
_NOTED = 32
"""Files that are noted together, where they don't take longer."""
_NOTED_S = 2.0
_MOST_PLACES = 5
"""Places that are tried for a file in one run."""
_MOST_LEFT = 100
"""Files that can't be copied: where so many can't, the rest isn't tried."""
_SHOWN = 5
_PASSES = Pace(tries=3, first_s=1.0, most_s=5.0, limit_s=60.0)
"""How often a run comes back to files that a storage refused, while no other one gets there."""

Fault = SpdfError | OSError


def transfer(
    catalog: Catalog,
    upload_id: int,
    scratch: Path,
    *,
    progress: Callable[[UploadInfo], None] = lambda _info: None,
    threads: int = THREADS,
    until: Callable[[], bool] = lambda: False,
) -> UploadInfo:
    """Copy what isn't there yet, and verify it there; gives the upload as it has ended.

    May be killed at any point and run again; `until` ends a run early. `scratch` is a directory for
    what goes from one S3 server to another. Raises `StorageError` where a storage is away, and
    `OSError` where this machine can't, once all others are there: run it again later, as its
    trouble says until it gets further. Files that have no bytes to copy end it as FAILED.
    """
    with catalog.write() as session:
        info = uploads.get(session, upload_id)
        if info.state is UploadState.QUEUED:
            move_one(session, Upload, upload_id, UploadState.RUNNING, started_at=now())
        elif info.state is not UploadState.RUNNING:
            return info
    standing.adopt(catalog, info.storage_id, first=True)
    with catalog.write() as session:
        drivers = Drivers(storages.list_all(session))
        _set_done(session, upload_id, uploadplaces.done(session, info))
    with Places(threads, "upload") as pool:
        return _Run(catalog, upload_id, drivers, pool, scratch, progress, until).to_its_end()


@dataclass
class _Run:
    """One run of an upload: passes over its files, until none is left that can be done."""

    catalog: Catalog
    upload_id: int
    drivers: Mapping[int, StorageDriver]
    pool: Places
    scratch: Path
    progress: Callable[[UploadInfo], None]
    until: Callable[[], bool]
    refused: int = 0
    """Files of this pass that a storage, or this machine, could not do."""
    shown: dict[str, Fault] = field(default_factory=dict)
    """Why, of the first of them, by name."""
    cannot: dict[int, str] = field(default_factory=dict)
    """Why files can't be copied at all, by id."""
    copied: int = 0
    """Files of this pass."""
    away: Fault | None = None
    """The storage is: nobody waits for another file there."""
    over: bool = False

    def to_its_end(self) -> UploadInfo:
        """Do what can be done; gives the upload as it has ended, or stands where it is stopped."""
        idle = 0
        while True:
            try:
                info = self._pass()
            except SpdfError as error:
                if _is_outage(error):
                    raise
                return _fail(self.catalog, self.upload_id, str(error))
            if self.over:
                return info
            if not self.refused:
                break
            idle = 0 if self.copied else idle + 1
            if idle >= _PASSES.tries or not self._is_back(info):
                raise self._told(info)
            tries.pause(_PASSES.wait_s(idle + 1))
        if self.cannot:
            return _fail(self.catalog, self.upload_id, _words(list(self.cannot.values())))
        return _finish(self.catalog, self.upload_id)

    def _pass(self) -> UploadInfo:
        """Go over all files that aren't known to be done, once."""
        self.refused, self.shown, self.copied, self.away = 0, {}, 0, None
        with self.catalog.read() as session:
            info = uploads.get(session, self.upload_id)
        after = info.after_id
        while not self._is_over(info) and self.away is None and len(self.cannot) < _MOST_LEFT:
            self.progress(info)
            with self.catalog.read() as session:
                page = uploadplaces.page(session, info, after, BATCH)
            if not page:
                break
            self._page(info, [m for m in page if m.file_id not in self.cannot])
            after = page[-1].file_id
            with self.catalog.write() as session:
                if not self.refused and not self.cannot and not self.over:
                    session.execute(
                        sa.update(Upload).where(col(Upload.id) == info.id).values(after_id=after),
                        execution_options={"synchronize_session": False},
                    )
                info = uploads.get(session, info.id)
        return info

    def _is_back(self, info: UploadInfo) -> bool:
        """Whether the storage is there, once it was waited for."""
        if self.away is not None:
            try:
                tries.ride_out(self.drivers[info.storage_id].check)
            except StorageError as error:
                self.away = error
                return False
        return True

    def _is_over(self, info: UploadInfo) -> bool:
        self.over = self.over or info.state is not UploadState.RUNNING or self.until()
        return self.over

    def _page(self, info: UploadInfo, page: Sequence[Member]) -> None:
        """Reserve places for files, and copy them there; each is noted soon after."""
        with self.catalog.read() as session:
            there = uploadplaces.there(session, info, page)
        target = self.drivers[info.storage_id]
        looks = {
            m.file_id: self.pool.submit(self._try, info, uploadplaces.is_taken, target, info, m)
            for m in page
            if m.file_id not in there
        }
        strange = {file_id for file_id, look in looks.items() if look.result() is True}
        faults = {file_id: f for file_id, look in looks.items() if (f := _fault(look)) is not None}
        for member in page:
            if member.file_id in faults:
                self._leave(member.file_id, member.name, faults[member.file_id])
        if self.over:
            return
        ready = [member for member in page if member.file_id not in faults]
        with self.catalog.write() as session:
            items = uploadplaces.reserve(session, info, ready, strange)
        reach("upload.reserved")
        coming = [(i, self.pool.submit(self._try, info, self._copy, info, i)) for i in items]
        self._note_all(info, coming)

    def _try(self, info: UploadInfo, call: Callable[..., object], *given: object) -> object:
        """What `call` gives, or its error; none is begun once that would be in vain."""
        if self.over or self.until():
            self.over = True
            return None
        if self.away is not None:
            return self.away
        try:
            return call(*given)
        except (SpdfError, OSError) as error:
            if isinstance(error, StorageError) and _is_outage(error):
                try:
                    self.drivers[info.storage_id].check()
                except StorageError as fault:
                    self.away = fault
            return error

    def _copy(self, info: UploadInfo, item: UploadCopy) -> UploadCopy:
        """Copy a file to its place, or to another one where other bytes lie there by now."""
        target = self.drivers[info.storage_id]

        def take_away(path: str) -> None:
            if fault := erasure.erase(self.catalog, info.storage_id, target, [path]).get(path):
                raise fault

        for _ in range(_MOST_PLACES):
            if bring(item, target, self.drivers, self.scratch, take_away):
                return item
            with self.catalog.write() as session:
                moved = uploadplaces.elsewhere(session, info, [item])
            if not moved:
                raise Cannot(f"file {item.name!r} can't be copied: its place is another's now.")
            (item,) = moved
        raise Cannot(
            f"file {item.name!r} can't be copied: other bytes came to each of {_MOST_PLACES} "
            f"places reserved for it, the last time to {item.path!r}, and stay there; find out "
            "who writes there."
        )

    def _note_all(
        self, info: UploadInfo, coming: Sequence[tuple[UploadCopy, Future[object]]]
    ) -> None:
        """Wait for files, and note those that are there, a few at a time."""
        done: list[UploadCopy] = []
        noted_at = monotonic()
        for item, copy in coming:
            found = copy.result()
            if isinstance(found, UploadCopy):
                done.append(found)
            elif isinstance(found, SpdfError | OSError):
                self._leave(item.file_id, item.name, found)
            if len(done) >= _NOTED or monotonic() - noted_at > _NOTED_S:
                self._note(info, done)
                done, noted_at = [], monotonic()
        self._note(info, done)

    def _note(self, info: UploadInfo, copies: Sequence[UploadCopy]) -> None:
        if not copies:
            return
        reach("upload.copied")
        with self.catalog.write() as session:
            session.execute(
                sa.update(Replica)
                .where(
                    col(Replica.id).in_([item.replica_id for item in copies]),
                    col(Replica.state) == ReplicaState.COPYING,
                )
                .values(state=ReplicaState.AVAILABLE),
                execution_options={"synchronize_session": False},
            )
            size_bytes = sum(item.size_bytes for item in copies)
            session.execute(
                sa.update(Upload)
                .where(col(Upload.id) == info.id)
                .values(
                    files_done=col(Upload.files_done) + len(copies),
                    bytes_done=col(Upload.bytes_done) + size_bytes,
                ),
                execution_options={"synchronize_session": False},
            )
            uploads.end_trouble(session, info.id)
            now_is = uploads.get(session, info.id)
        reach("upload.noted")
        self.copied += len(copies)
        if not self._is_over(now_is):
            self.progress(now_is)

    def _leave(self, file_id: int, name: str, fault: Fault) -> None:
        """A file isn't copied in this pass, or can't be at all."""
        if self.over:
            return
        if not _is_outage(fault):
            self.cannot[file_id] = str(fault)
        else:
            self.refused += 1
            if len(self.shown) < _SHOWN:
                self.shown[name] = fault

    def _told(self, info: UploadInfo) -> Fault:
        """The error of a run that leaves files, which are written down."""
        told = sentence(self.away) if self.away is not None else self._left_words()
        with self.catalog.write() as session:
            name = f"{info.dataset} to {info.storage}"
            troubles.write(session, uploads.SOURCE, Of.UPLOAD, info.id, name, told)
        return self.away or next(iter(self.shown.values()))

    def _left_words(self) -> str:
        why = "; ".join(f"{name!r} ({sentence(fault)})" for name, fault in self.shown.items())
        more = self.refused - len(self.shown)
        and_more = f"; and {more} more" if more else ""
        return f"{count_of(self.refused, 'file')} could not be copied yet: {why}{and_more}"


def _words(faults: Sequence[str]) -> str:
    """Why an upload can't be done, of files of which each has a sentence."""
    if len(faults) == 1:
        return faults[0]
    more = len(faults) - _SHOWN
    and_more = f" And {more} more." if more > 0 else ""
    others = "all others are there" if len(faults) < _MOST_LEFT else "the rest was not tried"
    told = f"{len(faults)} files can't be copied, {others}: "
    return told + " ".join(faults[:_SHOWN]) + and_more


def _fault(look: Future[object]) -> Fault | None:
    found = look.result()
    return found if isinstance(found, SpdfError | OSError) else None


def _is_outage(error: Fault) -> bool:
    if isinstance(error, OSError):
        return True
    if isinstance(error, StorageError):
        return ERRORS[error.code].error_class is ErrorClass.OUTAGE
    return error.is_outage


def _set_done(session: Session, upload_id: int, done: tuple[int, int]) -> None:
    session.execute(
        sa.update(Upload)
        .where(col(Upload.id) == upload_id)
        .values(files_done=done[0], bytes_done=done[1]),
        execution_options={"synchronize_session": False},
    )


def _finish(catalog: Catalog, upload_id: int) -> UploadInfo:
    reach("upload.ends")
    with catalog.write() as session:
        info = uploads.get(session, upload_id)
        _set_done(session, upload_id, (info.files, info.size_bytes))
        move(session, Upload, [upload_id], UploadState.DONE, ended_at=now())
        uploads.end_trouble(session, upload_id)
        return uploads.get(session, upload_id)


def _fail(catalog: Catalog, upload_id: int, reason: str) -> UploadInfo:
    with catalog.write() as session:
        move(
            session, Upload, [upload_id], UploadState.FAILED,
            message=reason, reason=reason, ended_at=now(),
        )  # fmt: skip
        uploads.end_trouble(session, upload_id)
        return uploads.get(session, upload_id)
