"""Riding out a database that is away for a while: a restart is no reason to give up."""

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

log = logging.getLogger(__name__)

R = TypeVar("R")
_WAIT_S = (0.2, 5.0)


def is_away(error: DBAPIError) -> bool:
    """Whether the error is the connection's or the server's, not that of a statement."""
    return error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)


def ride_out(
    call: Callable[[], R], *, limit_s: float, wanted: Callable[[], bool] = lambda: True
) -> R:
    """What `call` gives, called again for `limit_s` while the database is away.

    `call` must be whole transactions that may safely run twice: one whose answer was lost may have
    been committed. Gives up, with the error, once `wanted` says no. Raises other errors at once.
    """
    until, wait_s = time.monotonic() + limit_s, _WAIT_S[0]
    while True:
        try:
            return call()
        except DBAPIError as error:
            if not is_away(error) or time.monotonic() >= until or not wanted():
                raise
            log.warning("catalog away", extra={"fault": str(error.orig)})
        time.sleep(wait_s * random.uniform(0.7, 1.3))
        wait_s = min(wait_s * 2, _WAIT_S[1])
