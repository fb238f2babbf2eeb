"""Scheduled runs of a time to come: the server made them while its clock was ahead.

It schedules no more of a deployment that has runs ahead of it, so that after a clock that was 45
days ahead nothing would be scheduled for 45 days.
"""

import logging
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound

log = logging.getLogger(__name__)

_PAGE = 200
_SLACK = timedelta(seconds=60)


def drop_false(client: SyncPrefectClient) -> int:
    """Delete scheduled runs that were made in a time to come; gives how many."""
    moment = datetime.now(UTC)
    count = offset = 0
    while page := _ahead(client, moment, offset):
        false = list(_false(page, moment))
        for run in false:
            try:
                client.delete_flow_run(run.id)
                count += 1
            except ObjectNotFound:
                continue
        offset += len(page) - len(false)
    if count:
        log.warning("scheduled runs of a clock that was ahead are gone", extra={"runs": count})
    return count


def _ahead(client: SyncPrefectClient, moment: datetime, offset: int) -> list[FlowRun]:
    """A page of the runs that are scheduled for later."""
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
            expected_start_time=FlowRunFilterExpectedStartTime(after_=moment + _SLACK),
        ),
        sort=FlowRunSort.EXPECTED_START_TIME_ASC,
        limit=_PAGE,
        offset=offset,
    )


def _false(runs: Iterable[FlowRun], moment: datetime) -> Iterable[FlowRun]:
    return (run for run in runs if run.created is not None and run.created > moment + _SLACK)
