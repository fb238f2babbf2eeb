"""The watchdog: workflows that nobody advances get a new flow run, dead pilots are buried."""

import logging
import time
from functools import partial

import httpx
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import PrefectException
from sqlalchemy.exc import DBAPIError

from catalog import nodes, outages, ownership, pilots, schema
from catalog.db import Catalog, get_catalog
from catalog.outage import isolated, sentence
from catalog.settings import Settings, get_settings
from catalog.troubles import Of, Troubles
from catalog.workflows import WorkflowInfo
from flows.away import is_server_away
from flows.drive import cancel_if_told
from flows.runs import CANCELLED, may_take, show_lost, start_run, states_of
from workers.orphans import clean_dead

log = logging.getLogger(__name__)

_TICK_S = 3.0
_RECENT_S = 3600.0
_MOST_LOST = 50


@flow(name="watchdog")
def watchdog() -> int:
    """Watch for one interval of its schedule; gives how many workflows were taken up again."""
    settings = get_settings()
    return watch(get_catalog(), settings, until=time.monotonic() + settings.watchdog_s - _TICK_S)


def watch(catalog: Catalog, settings: Settings, *, until: float) -> int:
    """Tick until the monotonic clock says `until`; a server or catalog that is away is survived."""
    count, steady, after = 0, True, 0
    with get_client(sync_client=True) as client:
        while True:
            try:
                new, after = tick(catalog, settings, client, after)
                count += new
            except Exception as error:
                steady = False
                is_ours = not isinstance(error, httpx.HTTPError | PrefectException | DBAPIError)
                log.warning(
                    "watchdog could not look", extra={"fault": str(error)}, exc_info=is_ours
                )
            if time.monotonic() + _TICK_S >= until:
                break
            time.sleep(_TICK_S)
    if steady:
        _bury(catalog, settings)
    return count


def _bury(catalog: Catalog, settings: Settings) -> None:
    """Give up who is silent: the catalog was there all the time, so it is dead, not cut off."""
    try:
        with catalog.write() as session:
            pilots.lose_silent(session, 2 * settings.lease_s)
            nodes.lose_silent(session, 2 * settings.lease_s)
            outages.forget(session)
            lost = pilots.lost_runs(session, _RECENT_S, _MOST_LOST)
        with get_client(sync_client=True) as client:
            for run_id in lost:
                with isolated("flow_run", run_id, outage=is_server_away):
                    show_lost(client, run_id)
    except (httpx.HTTPError, PrefectException, DBAPIError) as error:
        log.warning("the silent could not be given up", extra={"fault": str(error)})


def tick(
    catalog: Catalog, settings: Settings, client: SyncPrefectClient, after: int = 0
) -> tuple[int, int]:
    """Look once; gives how many workflows got a new flow run, and the `after` of the next look.

    Of the workflows that nobody has begun (most of them wait their turn) it looks at those beyond
    the id `after`, a few hundred at a time. Raises `SchemaMismatch`.
    """
    schema.require(catalog)
    grace_s = settings.workflow_lease_s
    with catalog.read() as session:
        driven = ownership.driven(session)
        left = ownership.abandoned(session, grace_s=grace_s)
        waiting = ownership.waiting(session, grace_s=grace_s, after=after)
    assert settings.work_dir is not None
    clean_dead(settings.work_dir)
    left += waiting
    states = states_of(client, [*driven, *(info.flow_run_id for info in left)])
    told = {run for run, state in states.items() if state.type in CANCELLED}
    cancelled = {info.id: info.flow_run_id for info in left if info.flow_run_id in told}
    cancelled |= {driven[run]: run for run in driven.keys() & told}
    for workflow_id, run in cancelled.items():
        with isolated("workflow", workflow_id, outage=is_server_away):
            cancel_if_told(client, catalog, workflow_id, run)
    noted = Troubles(catalog, "watchdog")
    count = 0
    for info in left:
        if info.id in cancelled or may_take(info, states.get(info.flow_run_id or "")):
            continue
        tell = partial(_tell, noted, info)
        with isolated("workflow", info.id, tell, outage=is_server_away):
            run_id = start_run(client, catalog, info, instead_of=info.flow_run_id)
            log.info("workflow taken up", extra={"workflow": info.id, "flow_run": run_id})
            noted.over(Of.WORKFLOW, info.id)
            count += 1
    return count, waiting[-1].id if waiting else 0


def _tell(noted: Troubles, info: WorkflowInfo, error: Exception) -> None:
    """Say where the workflow's owner looks that it can't be taken up."""
    told = f"no flow run can be started for it: {sentence(error)}"
    noted.note(Of.WORKFLOW, info.id, info.label, told)
