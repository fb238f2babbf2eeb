"""Leading: one of several processes has a role at a time, the others wait for it."""

import logging
import threading
from collections.abc import Callable

from catalog import schema, singletons
from catalog.db import Catalog

log = logging.getLogger(__name__)

LEASE_S = 15.0
LONGEST_BACKOFF_S = 15.0


def lead(
    catalog: Catalog, role: str, owner: str, stop: threading.Event, work: Callable[[int], None]
) -> None:
    """Wait for a role, do its `work` under an epoch while it is held, and again, until `stop`.

    `work` ends where the role is lost; whatever goes wrong is logged and tried again.
    """
    backoff_s = 1.0
    while not stop.is_set():
        try:
            schema.require(catalog)
            with catalog.write() as session:
                epoch = singletons.acquire(session, role, owner, LEASE_S)
            if epoch is not None:
                log.info("%s leads", role, extra={"owner": owner, "epoch": epoch})
                work(epoch)
            backoff_s = 1.0
        except Exception:
            log.exception("%s waits for the catalog", role, extra={"again_s": backoff_s})
            backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)
        stop.wait(backoff_s)
