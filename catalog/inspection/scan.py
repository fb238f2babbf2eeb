"""Looking: every replica's bytes, as many of them read as is asked for, and bytes without a row.

Nothing is changed but what an inspection writes down. Memory is that of a page, whatever lies on
the storage.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import (
    cattime,
    claims,
    detached,
    erasure,
    intakerules,
    overlaps,
    restores,
    standing,
    storages,
    tries,
)
from catalog.bulk import batches
from catalog.counts import count_of
from catalog.db import Catalog
from catalog.drivers import ObjectInfo, StorageDriver, driver_for
from catalog.errors import BadInput, SpdfError, StorageError
from catalog.inspection import comparison, dark, findings
from catalog.inspection.comparison import THREADS, Row, compare
from catalog.inspection.dark import is_of
from catalog.inspection.findings import InspectionInfo, NewFinding
from catalog.inspection.remarks import Remarks
from catalog.models import Replica
from catalog.names import is_path
from catalog.outage import is_outage, sentence
from catalog.ownpaths import dataset_of
from catalog.refs import FindingKind
from catalog.rowsets import among
from catalog.states import FindingState, InspectionState, ReplicaState
from catalog.tries import Places

log = logging.getLogger(__name__)

PAGE = 2000
GRACE_S = 86400.0
"""Bytes without a row that are younger are left alone: their row may be on its way."""
LIMIT_PERCENT = 5.0
"""Of a storage's files: where more than that aren't as they should be, nothing is touched."""
_LEAST_SAMPLE_PERCENT = 0.0001
"""One file in a million."""
_FEW = 10
"""So few are settled, however small the storage is."""

_LOOKS = 3
"""So often a file is come back to whose storage was away for a moment."""
_AHEAD = timedelta(days=1)
"""A file's time that is further ahead is no time: nobody knows how old the file is."""


@dataclass(frozen=True)
class Options:
    """How an inspection looks. `sample_percent` of the files are read; 100 reads all, 0 none.

    Raises `BadInput` for another percentage of them.
    """

    sample_percent: float = 1.0
    grace_s: float = GRACE_S
    limit_percent: float = LIMIT_PERCENT

    def __post_init__(self) -> None:
        if self.sample_percent and not _LEAST_SAMPLE_PERCENT <= self.sample_percent <= 100:
            raise BadInput(
                f"a sample of {self.sample_percent:g} percent can't be read; give 0, or from "
                f"{_LEAST_SAMPLE_PERCENT} to 100."
            )


def inspect(
    catalog: Catalog,
    storage_id: int,
    options: Options = Options(),
    *,
    progress: Callable[[InspectionInfo], None] = lambda _info: None,
    hold: Callable[[str], AbstractContextManager[object]] = nullcontext,
) -> InspectionInfo:
    """Compare a storage with the catalog; gives the inspection as it has ended.

    ASKING where more isn't as it should be than the limit allows, FAILED where the storage is
    away or it could not be done; else DONE, to be settled. `hold` keeps a lease by its name, by
    which others know that this process lives: those that died before are FAILED first.
    """
    with catalog.write() as session:
        findings.bury(session)
        inspection = findings.begin(session, storage_id, options.sample_percent)
    try:
        with hold(findings.role_of(inspection)):
            return _look(catalog, storage_id, inspection, options, progress)
    except BaseException as error:
        # Also where the process is told to stop: a state that says RUNNING would be untrue.
        info = _fail(catalog, inspection, error)
        if not isinstance(error, Exception) or is_outage(error) or info is None:
            raise
        if not isinstance(error, SpdfError):
            log.exception("inspection failed", extra={"inspection": inspection})
        return info


def _fail(catalog: Catalog, inspection: int, error: BaseException) -> InspectionInfo | None:
    """End an inspection that could not be done; None where that can't be written, either."""
    stopped = not isinstance(error, Exception)
    try:
        with catalog.write() as session:
            reason = "its process was stopped" if stopped else sentence(error)
            findings.end(session, inspection, InspectionState.FAILED, reason)
            return findings.get(session, inspection)
    except Exception:
        log.exception("inspection not ended", extra={"inspection": inspection})
        return None


def _look(
    catalog: Catalog,
    storage_id: int,
    inspection: int,
    options: Options,
    progress: Callable[[InspectionInfo], None],
) -> InspectionInfo:
    """Do it, and say how it has ended."""
    place = standing.adopt(catalog, storage_id)
    scan = _Scan(catalog, inspection, place.id, driver_for(place), options, progress)
    scan.driver.check()
    claims.beat(catalog, place.id, scan.driver)
    scan.look_at_sharing()
    scan.look_at_findings()
    scan.look_at_rows()
    scan.look_at_bytes()
    with catalog.write() as session:
        info = findings.get(session, inspection)
        state, reason = _verdict(info, options)
        said = [words for words in (reason, scan.remarks.words) if words]
        findings.end(session, inspection, state, ". ".join(said) or None)
        return findings.get(session, inspection)


def _verdict(info: InspectionInfo, options: Options) -> tuple[InspectionState, str | None]:
    whole = max(info.replicas, info.objects, 1)
    if info.found <= _FEW or 100 * info.found <= options.limit_percent * whole:
        return InspectionState.DONE, None
    return InspectionState.ASKING, (
        f"{info.found} of {count_of(whole, 'file')} of storage {info.storage} aren't as they "
        f"should be ({info.missing} missing, {info.corrupt} corrupt, {info.dark} dark), more than "
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
    remarks: Remarks = field(default_factory=Remarks)

    def look_at_sharing(self) -> None:
        """Whether other storages have a part of its place."""
        with self.catalog.read() as session:
            known = storages.list_all(session)
        mine = overlaps.shared(known).get(self.storage_id, ())
        self.remarks.told += standing.told_overlaps(mine)

    def look_at_findings(self) -> None:
        """Whether what was found before, and isn't acted on to its end, is so still."""
        open_states = (FindingState.FOUND, FindingState.QUARANTINED)
        for page in findings.pages(self.catalog, self.storage_id, open_states):
            copies = [item for item in page if item.kind is not FindingKind.DARK]
            unnamed = {item.path: item for item in page if item.kind is FindingKind.DARK}
            seen = comparison.look_again(self.catalog, self.driver, copies)
            others = dark.changed(self.catalog, self.driver, list(unnamed.values()))
            over = {
                "it is as it should be": [i.id for i in seen.whole if i.id not in seen.marked],
                "its copy is none any more": [item.id for item in seen.gone],
            }
            for path, why in others.items():
                over.setdefault(why, []).append(unnamed[path].id)
            with self.catalog.write() as session:
                named = _known(session, self.storage_id, sorted(unnamed.keys() - others.keys()))
                over["a row names it now"] = [unnamed[path].id for path in named]
                for why, ids in over.items():
                    findings.settle(session, ids, FindingState.CLEARED, why)

    def look_at_rows(self) -> None:
        """Missing and corrupt: each row's bytes."""
        percent = self.options.sample_percent
        every = max(1, round(100 / percent)) if percent > 0 else 0

        def look(row: Row) -> NewFinding | None:
            wrong = row.state is not ReplicaState.AVAILABLE
            read = wrong or (bool(every) and (row.id + self.inspection) % every == 0)
            for last in (False,) * _LOOKS + (True,):
                try:
                    return self._proven(compare(self.driver, row, read=read))
                except StorageError as error:
                    # It is this file's trouble, unless it is the storage's.
                    if not tries.ride_out(self.driver.check) or last:
                        self.remarks.note_unread(row.path, error)
                        break
            return None

        with Places(THREADS, "inspect") as pool:
            for page in _pages(self.catalog, self.storage_id):
                found = [item for item in pool.map(look, page) if item is not None]
                self._note(found, replicas=len(page))

    def _proven(self, found: NewFinding | None) -> NewFinding | None:
        """Nothing is said against a copy before it is plain that this is its storage."""
        if found is None or comparison.is_proven(self.driver, found):
            return found
        self.remarks.note_unproven()
        return None

    def look_at_bytes(self) -> None:
        """Dark: bytes that no row names, that weren't detached, and that are no rule's marker."""
        with self.catalog.read() as session:
            rules = [
                rule for rule in intakerules.active(session) if rule.storage_id == self.storage_id
            ]
            first, last = cattime.either(session)
        young, latest = first - timedelta(seconds=self.options.grace_s), last + _AHEAD
        listed = self.driver.list(unread=self.remarks.note_unread)
        elsewhere = erasure.elsewhere(self.driver)
        for page in batches(listed, PAGE):
            usable = [info for info in page if self._is_usable(info)]
            with self.catalog.read() as session:
                known = _known(session, self.storage_id, [info.path for info in usable])
                left = detached.unchanged(session, self.storage_id, usable) - known
            dark = [
                info
                for info in usable
                if info.path not in known
                and info.path not in left
                and (info.mtime <= young or info.mtime > latest)
                and not any(rule.may_be_marker(info.path) for rule in rules)
            ]
            found = self._ours(dark, elsewhere)
            self._note(found, objects=len(page), detached=len(left))

    def _ours(
        self, dark: Sequence[ObjectInfo], elsewhere: Callable[[str], str | None]
    ) -> list[NewFinding]:
        """Those that aren't another storage's, of this catalog or, by its marker, of another."""
        others = erasure.others(self.catalog, self.storage_id, [info.path for info in dark])
        with self.catalog.read() as session:
            restore = restores.latest(session)
        found = []
        for info in dark:
            if info.path in others or elsewhere(info.path) is not None:
                self.remarks.shared += 1
                continue
            told = f"no row names it, from {info.mtime}"
            if (name := dataset_of(info.path)) and not is_of(restore, info):
                told += (
                    f"; made for dataset {name} by this catalog as it was before it became an "
                    "earlier one, or by a copy of it, and kept"
                )
            found.append(NewFinding(FindingKind.DARK, info.path, info.size_bytes, told))
        return found

    def _is_usable(self, info: ObjectInfo) -> bool:
        if is_path(info.path):
            return True
        self.remarks.note_odd(info.path)
        return False

    def _note(self, found: Sequence[NewFinding], **looked_at: int) -> None:
        with self.catalog.write() as session:
            known = findings.acted_on(session, self.inspection, [item.path for item in found])
            new = [item for item in found if (item.kind, item.path) not in known]
            counts = {kind.lower(): sum(item.kind is kind for item in new) for kind in FindingKind}
            findings.note(session, self.inspection, new)
            unnamed = [item.path for item in found if item.kind is FindingKind.DARK]
            findings.note_seen(session, self.inspection, unnamed)
            findings.count(session, self.inspection, {**counts, **looked_at})
            info = findings.get(session, self.inspection)
        self.progress(info)


def _pages(catalog: Catalog, storage_id: int) -> Iterator[list[Row]]:
    after = 0
    while True:
        with catalog.read() as session:
            rows = comparison.rows_after(session, storage_id, after, PAGE)
        if not rows:
            return
        yield rows
        after = rows[-1].id


def _known(session: Session, storage_id: int, paths: Sequence[str]) -> set[str]:
    query = sa.select(col(Replica.path)).where(
        col(Replica.storage_id) == storage_id,
        among(session, col(Replica.path), paths),
        col(Replica.state) != ReplicaState.DELETED,
    )
    return set(session.scalars(query))
