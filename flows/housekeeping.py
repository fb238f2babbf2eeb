"""Housekeeping: the history of workflows that ended long ago is pruned, while work goes on."""

import logging
import time
from dataclasses import asdict

from prefect import flow

from catalog import history, schema
from catalog.db import get_catalog
from catalog.settings import get_settings

log = logging.getLogger(__name__)

MOST_S = 3000.0
"""A run ends before the next one is due; what is left then is for that one."""
_SHARE = 0.25
_DAY_S = 86400.0


@flow(name="housekeeping")
def housekeeping() -> dict[str, int]:
    """Prune what is older than SPDF_HISTORY_DAYS; gives how many rows went, by table."""
    settings, catalog = get_settings(), get_catalog()
    if not settings.history_days:
        return {}
    schema.require(catalog)
    end = time.monotonic() + MOST_S
    pruned = history.prune(
        catalog,
        settings.history_days * _DAY_S,
        share=_SHARE,
        until=lambda: time.monotonic() >= end,
    )
    log.info("history pruned", extra=asdict(pruned))
    return asdict(pruned)
