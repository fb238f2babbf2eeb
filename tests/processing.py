"""Having all requests done that there are, and closing what is due, in the process of a test."""

import time

from catalog.db import Catalog
from catalog.requests.processor import Processor
from flows.intake.closing import Closing

_LONGEST_S = 120.0


def do_all(catalog: Catalog, processor: Processor | None = None) -> int:
    """Do requests until none can be done, however long looks at their files take.

    Gives how many turns did something. A `processor` that is given stays open.
    """
    mine = processor or Processor(catalog, lambda _session: None)
    until, took = time.monotonic() + _LONGEST_S, 0
    while (done := mine.turn()) or mine._looking.begun:
        assert time.monotonic() < until, "requests wait for their files"
        took += bool(done)
        time.sleep(0.001)
    if processor is None:
        mine.close()
    return took


def close_due(catalog: Catalog) -> None:
    """Close datasets whose sources have all ended, but for what is to be waited for a while."""
    Closing(catalog, lambda _session: None, 600.0).turn()
