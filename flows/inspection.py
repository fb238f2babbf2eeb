"""The inspector's flow: every storage compared with the catalog, and settled where that is safe."""

import logging
from dataclasses import asdict
from functools import partial
from typing import Any

import httpx
from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.exceptions import PrefectException

from catalog import schema, storages, usage
from catalog.counts import count_of
from catalog.db import Catalog, get_catalog
from catalog.inspection import findings
from catalog.inspection.findings import InspectionInfo
from catalog.inspection.scan import GRACE_S, LIMIT_PERCENT, Options, inspect
from catalog.inspection.settle import settle
from catalog.outage import isolated, sentence
from catalog.refs import StorageInfo
from catalog.states import InspectionState
from catalog.troubles import Of, Troubles
from flows import growth
from flows.board import Board
from flows.progress import artifact_key
from flows.roles import holding

log = logging.getLogger(__name__)

INSPECTION = "inspection"
"""Name of the lease that one inspection at a time has, and of the flow and its deployment."""
_SHOWN = 1000


@flow(name=INSPECTION)
def run_inspection(
    storage: str | None = None,
    sample_percent: float = 1.0,
    grace_s: float = GRACE_S,
    limit_percent: float = LIMIT_PERCENT,
) -> list[dict[str, Any]]:
    """Compare one storage, or all, with the catalog, and act on what is found within the limit.

    What is beyond it waits for `spdf inspect settle --yes`. Files are made again only by
    `spdf file recover`.
    """
    catalog = get_catalog()
    schema.require(catalog)
    options = Options(sample_percent, grace_s, limit_percent)
    done = inspect_all(catalog, storage, options)
    _leave_table(catalog, done)
    growth.leave_page(catalog)
    return [asdict(info) for info in done]


def inspect_all(catalog: Catalog, storage: str | None, options: Options) -> list[InspectionInfo]:
    """Inspect and settle; [] where another process inspects."""
    with catalog.read() as session:
        places = [storages.by_name(session, storage)] if storage else storages.list_all(session)
    done: list[InspectionInfo] = []
    with holding(catalog, INSPECTION) as role:
        for place in places if role is not None else []:
            if (info := _inspect_one(catalog, place, options)) is not None:
                done.append(info)
    return done


def _inspect_one(catalog: Catalog, place: StorageInfo, options: Options) -> InspectionInfo | None:
    """Inspect a storage, and act on what was found; its trouble keeps no other from its turn."""
    noted, board = Troubles(catalog, INSPECTION), Board(f"{INSPECTION}-{place.name}")

    def tell(error: Exception) -> None:
        noted.note(Of.STORAGE, place.id, place.name, f"it can't be inspected: {sentence(error)}")

    found: list[InspectionInfo] = []
    with isolated("storage", place.name, tell):
        info = inspect(
            catalog,
            place.id,
            options,
            progress=lambda so_far: board.show(50.0, _words(so_far)),
            hold=partial(holding, catalog),
        )
        found.append(info)
        if info.state is InspectionState.DONE:
            settle(catalog, place.id)
            with catalog.write() as session:
                usage.recount(session, place.id)
        noted.over(Of.STORAGE, place.id)
    if not found:
        return None
    board.show(100.0, _words(found[0]), force=True)
    return found[0]


def _words(info: InspectionInfo) -> str:
    why = f": {info.reason}" if info.reason else ""
    return (
        f"{info.storage} is {info.state}, {info.replicas} rows, {info.missing} missing, "
        f"{info.corrupt} corrupt, {info.dark} dark, {info.detached} detached{why}"
    )


def _summary(done: list[InspectionInfo]) -> str:
    if not done:
        return "another run inspects"
    wrong = [info for info in done if info.found or info.state is not InspectionState.DONE]
    words = "; ".join(_words(info) for info in wrong) or "all is as the catalog says"
    return f"{count_of(len(done), 'storage')}: {words}"


def _leave_table(catalog: Catalog, done: list[InspectionInfo]) -> None:
    """Show the findings that are open as a table; Prefect's errors are survived."""
    with catalog.read() as session:
        found = findings.findings(session, limit=_SHOWN)
    rows = [
        {
            "storage": item.storage,
            "path": item.path,
            "kind": str(item.kind),
            "state": str(item.state),
            "what": item.message,
        }
        for item in found
    ]
    try:
        create_table_artifact(
            rows
            or [{"storage": "all", "path": "", "kind": "", "state": "", "what": "no findings"}],
            key=artifact_key(INSPECTION),
            description=_summary(done),
        )
    except (httpx.HTTPError, PrefectException) as error:
        log.warning("findings not shown", extra={"fault": str(error)})
