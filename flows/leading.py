"""Leading: one of several processes has a role at a time, the others wait for it."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from uuid import uuid4

from prefect.context import refresh_global_settings_context

from catalog import cattime, flocks, fulldisk, schema, singletons
from catalog.db import Catalog
from catalog.settings import Settings, get_settings
from flows.logs import log_to_stderr
from flows.pulse import Pulse
from flows.server import configure_client

log = logging.getLogger(__name__)

LEASE_S = 15.0
LONGEST_BACKOFF_S = 15.0


def owner_name() -> str:
    """This process as the holder of a lease; ends with its pid."""
    return f"{socket.gethostname()}:{uuid4().hex[:8]}:{os.getpid()}"


def holder_mark() -> str | None:
    """By what others on this machine see that this process lives."""
    return flocks.mine(get_settings().home / "run" / "holders")


def prepare(settings: Settings) -> None:
    """Set up the log of this process, and where the server is; raises `Unavailable`."""
    log_to_stderr(settings)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    configure_client(settings)
    # Without the address Prefect would start a server of its own, which knows none of our runs.
    refresh_global_settings_context()


def stop_on_signals(stop: threading.Event) -> None:
    """SIGTERM and SIGINT set `stop`."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())


def lead(
    catalog: Catalog,
    role: str,
    owner: str,
    stop: threading.Event,
    work: Callable[[int], None],
    pulse: Pulse,
) -> None:
    """Wait for a role, do its `work` under an epoch while it is held, and again, until `stop`.

    `work` ends where the role is lost; whatever goes wrong is logged and tried again.
    """
    pulse.keep_writing()
    backoff_s, mark = 1.0, holder_mark()
    while not stop.is_set():
        try:
            with pulse.turn("lead"):
                schema.require(catalog)
                with catalog.write() as session:
                    cattime.follow(session)
                    epoch = singletons.acquire(session, role, owner, LEASE_S, holder=mark)
            if epoch is not None:
                log.info("%s leads", role, extra={"owner": owner, "epoch": epoch})
                work(epoch)
                pulse.forget()
            backoff_s = 1.0
        except Exception as error:
            # A traceback each turn would take what room comes to be.
            full = fulldisk.told(error)
            log.error(
                "%s waits for the catalog",
                role,
                extra={"again_s": backoff_s} | ({"why": full} if full else {}),
                exc_info=None if full else error,
            )
            backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)
        stop.wait(backoff_s)
