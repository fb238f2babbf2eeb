"""Looking: every replica's bytes, as many of them read as is asked for, and bytes without a row.

Nothing is changed but what an inspection writes down. Memory is that of a page, whatever lies on
the storage.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import intakerules, storages
from catalog.bulk import batches
from catalog.checksums import algorithm_of
from catalog.db import Catalog
from catalog.drivers import ObjectInfo, StorageDriver, driver_for
from catalog.errors import ErrorCode, StorageError
from catalog.inspection import findings
from catalog.inspection.findings import InspectionInfo, NewFinding
from catalog.models import File, Replica
from catalog.names import is_path
from catalog.refs import FindingKind
from catalog.rowsets import among
from catalog.states import InspectionState, ReplicaState

PAGE = 2000
THREADS = 8
GRACE_S = 86400.0
"""Bytes without a row that are younger are left alone: their row may be on its way."""
LIMIT_PERCENT = 5.0
"""Of a storage's files: where more than that aren't as they should be, nothing is touched."""
_FEW = 10
"""So few are settled, however small the storage is."""

_LOOKED_AT = (ReplicaState.AVAILABLE, ReplicaState.BAD, ReplicaState.MISSING)


@dataclass(frozen=True)
class Options:
    """How an inspection looks. `sample_percent` of the files are read; 100 reads all."""

    sample_percent: float = 1.0
    grace_s: float = GRACE_S
    limit_percent: float = LIMIT_PERCENT


@dataclass(frozen=True)
class _Row:
    id: int
    path: str
    state: ReplicaState
    size_bytes: int
    checksum: str


def inspect(
    catalog: Catalog,
    storage_id: int,
    options: Options = Options(),
    *,
    progress: Callable[[InspectionInfo], None] = lambda _info: None,
) -> InspectionInfo:
    """Compare a storage with the catalog; gives the inspection as it has ended.

    ASKING where more isn't as it should be than the limit allows, FAILED where the storage is
    away; else DONE, to be settled.
    """
    with catalog.write() as session:
        place = storages.get(session, storage_id)
        inspection = findings.begin(session, storage_id, options.sample_percent)
    try:
        scan = _Scan(catalog, inspection, place.id, driver_for(place), options, progress)
        scan.look_at_rows()
        scan.look_at_bytes()
    except StorageError as error:
        with catalog.write() as session:
            findings.end(session, inspection, InspectionState.FAILED, str(error))
            return findings.get(session, inspection)
    with catalog.write() as session:
        info = findings.get(session, inspection)
        state, reason = _verdict(info, options)
        findings.end(session, inspection, state, reason or scan.remark)
        return findings.get(session, inspection)


def _verdict(info: InspectionInfo, options: Options) -> tuple[InspectionState, str | None]:
    whole = max(info.replicas, info.objects, 1)
    if info.found <= _FEW or 100 * info.found <= options.limit_percent * whole:
        return InspectionState.DONE, None
    return InspectionState.ASKING, (
        f"{info.found} of {whole} files of storage {info.storage} aren't as they should be "
        f"({info.missing} missing, {info.corrupt} corrupt, {info.dark} dark), more than "
        f"{options.limit_percent:g} %; is it the right storage, and all of it mounted? "
        f"`spdf inspect settle {info.storage} --yes` goes on"
    )


@dataclass
class _Scan:
    """One look at a storage, page by page."""

    catalog: Catalog
    inspection: int
    storage_id: int
    driver: StorageDriver
    options: Options
    progress: Callable[[InspectionInfo], None]
    odd: int = 0
    """Files whose names no row can have."""
    first_odd: str = ""

    @property
    def remark(self) -> str | None:
        """What is to be said of a storage that is as it should be."""
        if not self.odd:
            return None
        return (
            f"{self.odd} files have names that can't be used, such as {self.first_odd!a}; rename "
            "or remove them by hand"
        )

    def look_at_rows(self) -> None:
        """Missing and corrupt: each row's bytes."""
        percent = self.options.sample_percent
        every = max(1, round(100 / percent)) if percent > 0 else 0

        def look(row: _Row) -> NewFinding | None:
            wrong = row.state is not ReplicaState.AVAILABLE
            read = wrong or (bool(every) and (row.id + self.inspection) % every == 0)
            return _compare(self.driver, row, read=read)

        with ThreadPoolExecutor(THREADS, thread_name_prefix="inspect") as pool:
            for page in _pages(self.catalog, self.storage_id):
                found = [item for item in pool.map(look, page) if item is not None]
                self._note(found, replicas=len(page))

    def look_at_bytes(self) -> None:
        """Dark: bytes that no row names, and that are no marker of a rule."""
        with self.catalog.read() as session:
            rules = [
                rule for rule in intakerules.active(session) if rule.storage_id == self.storage_id
            ]
        young = datetime.now(UTC) - timedelta(seconds=self.options.grace_s)
        for page in batches(self.driver.list(), PAGE):
            usable = [info for info in page if self._is_usable(info)]
            with self.catalog.read() as session:
                known = _known(session, self.storage_id, [info.path for info in usable])
            found = [
                NewFinding(
                    FindingKind.DARK,
                    info.path,
                    info.size_bytes,
                    f"no row names it, from {info.mtime}",
                )
                for info in usable
                if info.path not in known
                and info.mtime <= young
                and not any(rule.ended_by(info.path) for rule in rules)
            ]
            self._note(found, objects=len(page))

    def _is_usable(self, info: ObjectInfo) -> bool:
        if is_path(info.path):
            return True
        self.odd += 1
        self.first_odd = self.first_odd or info.path
        return False

    def _note(self, found: Sequence[NewFinding], **looked_at: int) -> None:
        with self.catalog.write() as session:
            known = findings.acted_on(session, self.inspection, [item.path for item in found])
            new = [item for item in found if (item.kind, item.path) not in known]
            counts = {kind.lower(): sum(item.kind is kind for item in new) for kind in FindingKind}
            findings.note(session, self.inspection, new)
            findings.count(session, self.inspection, {**counts, **looked_at})
            info = findings.get(session, self.inspection)
        self.progress(info)


def _pages(catalog: Catalog, storage_id: int) -> Iterator[list[_Row]]:
    after = 0
    while True:
        with catalog.read() as session:
            rows = session.execute(
                sa.select(
                    col(Replica.id),
                    col(Replica.path),
                    col(Replica.state),
                    col(File.size_bytes),
                    col(File.checksum),
                )
                .join(File, col(File.id) == col(Replica.file_id))
                .where(
                    col(Replica.storage_id) == storage_id,
                    col(Replica.id) > after,
                    col(Replica.state).in_(_LOOKED_AT),
                )
                .order_by(col(Replica.id))
                .limit(PAGE)
            ).all()
        if not rows:
            return
        yield [_Row(*row) for row in rows]
        after = rows[-1].id


def _compare(driver: StorageDriver, row: _Row, *, read: bool) -> NewFinding | None:
    """What is wrong with a row's bytes; None where nothing is."""
    try:
        there = driver.stat(row.path).size_bytes
        if there != row.size_bytes:
            told = f"{there} bytes, not {row.size_bytes}"
            return NewFinding(FindingKind.CORRUPT, row.path, there, told, row.id)
        if read:
            checksum = driver.checksum(row.path, algorithm_of(row.checksum))
            if checksum != row.checksum:
                told = f"checksum {checksum}, not {row.checksum}"
                return NewFinding(FindingKind.CORRUPT, row.path, there, told, row.id)
    except StorageError as error:
        if error.code is not ErrorCode.INPUT_MISSING:
            raise
        return NewFinding(
            FindingKind.MISSING, row.path, row.size_bytes, "no bytes are there", row.id
        )
    return None


def _known(session: Session, storage_id: int, paths: Sequence[str]) -> set[str]:
    query = sa.select(col(Replica.path)).where(
        col(Replica.storage_id) == storage_id,
        among(session, col(Replica.path), paths),
        col(Replica.state) != ReplicaState.DELETED,
    )
    return set(session.scalars(query))
