"""Dark bytes, looked at once more before they are removed: are they still what was found?"""

from collections.abc import Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlmodel import col

from catalog import cattime, erasure, intakerules, restores
from catalog.db import Catalog
from catalog.drivers import ObjectInfo, StorageDriver
from catalog.errors import BadInput, ErrorCode, StorageError
from catalog.inspection.findings import FindingInfo
from catalog.models import Dataset
from catalog.ownpaths import dataset_of, generation_of, is_own
from catalog.restores import RestoreInfo
from catalog.rowsets import among
from catalog.rule import Rule

_AHEAD = timedelta(days=1)
"""A file's time that is further ahead says nothing."""


def no_longer(
    catalog: Catalog, driver: StorageDriver, storage_id: int, items: Sequence[FindingInfo]
) -> tuple[dict[str, str], dict[str, ObjectInfo]]:
    """Paths that are no dark bytes of that finding any more, each with the reason; and the others.

    Of those with what was seen there. Raises `StorageError` where the storage is away.
    """
    with catalog.read() as session:
        rules = [rule for rule in intakerules.active(session) if rule.storage_id == storage_id]
    elsewhere, latest = erasure.elsewhere(driver), _latest(catalog)
    over: dict[str, str] = {}
    seen: dict[str, ObjectInfo] = {}
    for item in items:
        root = elsewhere(item.path)
        if root is not None:
            over[item.path] = f"{root} is another storage's, by the marker there"
        elif any(_is_for(rule, item.path) for rule in rules):
            over[item.path] = "an intake rule is for it"
        elif (there := _there(driver, item.path)) is None:
            continue
        elif _differs(item, there, latest):
            over[item.path] = "other bytes lie there now"
        else:
            seen[item.path] = there
    return over, seen


def own(catalog: Catalog, driver: StorageDriver, items: Sequence[FindingInfo]) -> set[int]:
    """The ids of those findings whose bytes this program has written, by their paths.

    Outputs are in the folder of a dataset that a workflow of this catalog makes, or made once, and
    of its present generation.
    """
    with catalog.read() as session:
        restore = restores.latest(session)
    shaped = {
        item.id: dataset_of(item.path)
        for item in items
        if is_own(item.path) and _is_of_now(restore, driver, item.path)
    }
    wanted = {name for name in shaped.values() if name is not None}
    if not wanted:
        return set(shaped)
    # What has given its name up is called NAME#ID.
    suffix = sa.literal("#") + sa.cast(col(Dataset.id), sa.String)
    name = sa.func.replace(col(Dataset.name), suffix, "", type_=sa.String())
    with catalog.read() as session:
        query = sa.select(name).where(col(Dataset.derived), among(session, name, wanted))
        known = set(session.scalars(query))
    return {item for item, made_by in shaped.items() if made_by is None or made_by in known}


def is_of(restore: RestoreInfo | None, info: ObjectInfo) -> bool:
    """Whether what lies under an output's path can be of a job that the catalog knows.

    After a restore ids start again: what has no generation's number, or another's, or is older, was
    stored by the catalog of before, or by a copy of it.
    """
    if restore is None:
        return generation_of(info.path) == 0
    return generation_of(info.path) == restore.id and info.mtime >= restore.at


def _is_of_now(restore: RestoreInfo | None, driver: StorageDriver, path: str) -> bool:
    if dataset_of(path) is None or (restore is None and generation_of(path) == 0):
        return True
    there = _there(driver, path)
    return there is not None and is_of(restore, there)


def changed(
    catalog: Catalog, driver: StorageDriver, items: Sequence[FindingInfo]
) -> dict[str, str]:
    """Paths under which nothing lies any more, or other bytes, each with the reason.

    Raises `StorageError` where the storage is away.
    """
    over: dict[str, str] = {}
    latest = _latest(catalog)
    for item in items:
        try:
            if _differs(item, driver.stat(item.path), latest):
                over[item.path] = "other bytes lie there now"
        except StorageError as error:
            driver.check()
            if error.code is ErrorCode.INPUT_MISSING:
                over[item.path] = "nothing lies there any more"
    return over


def _is_for(rule: Rule, path: str) -> bool:
    try:
        return rule.may_be_marker(path) or rule.dataset_of(path) is not None
    except BadInput:
        return True


def _there(driver: StorageDriver, path: str) -> ObjectInfo | None:
    """What lies under a path; None of what is gone, or can't be seen."""
    try:
        return driver.stat(path)
    except StorageError as error:
        if error.code is not ErrorCode.INPUT_MISSING:
            driver.check()
        return None


def _latest(catalog: Catalog) -> datetime:
    """The latest time that says anything of a file; one that was written as the clock was ahead
    has the time of that clock.
    """
    with catalog.read() as session:
        return cattime.either(session)[1] + _AHEAD


def _differs(item: FindingInfo, there: ObjectInfo, latest: datetime) -> bool:
    return there.size_bytes != item.size_bytes or item.found_at < there.mtime <= latest
