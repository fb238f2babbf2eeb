"""Roles that a flow run has for its time: one process does a thing, others leave it to that."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

from catalog import singletons
from catalog.db import Catalog
from flows.leading import holder_mark, owner_name

log = logging.getLogger(__name__)

LEASE_S = 60.0
_BEAT_S = 15.0


class Role:
    """A role that is held; `lost` says when it isn't any more."""

    def __init__(self, catalog: Catalog, name: str, owner: str, epoch: int) -> None:
        self._catalog, self._name, self._owner, self._epoch = catalog, name, owner, epoch
        self._over, self._lost = threading.Event(), False
        self._renewed = time.monotonic()
        self._thread = threading.Thread(target=self._beat, name=f"role-{name}", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> bool:
        """Whether another may have the role now."""
        return self._lost or time.monotonic() - self._renewed > LEASE_S

    def _beat(self) -> None:
        while not self._over.wait(_BEAT_S):
            try:
                with self._catalog.write() as session:
                    held = singletons.renew(session, self._name, self._owner, self._epoch, LEASE_S)
            except Exception:
                # Whatever it is, it is tried again; the lease says for how long that may go on.
                log.warning("role not renewed", extra={"role": self._name}, exc_info=True)
                continue
            if not held:
                self._lost = True
                return
            self._renewed = time.monotonic()

    def give_back(self) -> None:
        """Let others have it at once."""
        self._over.set()
        self._thread.join()
        try:
            with self._catalog.write() as session:
                singletons.release(session, self._name, self._owner, self._epoch)
        except DBAPIError as error:
            log.warning("role runs out by itself", extra={"role": self._name, "why": str(error)})


@contextmanager
def holding(catalog: Catalog, name: str) -> Iterator[Role | None]:
    """The role, held to the end of the block; None where another process has it."""
    owner, mark = owner_name(), holder_mark()
    with catalog.write() as session:
        epoch = singletons.acquire(session, name, owner, LEASE_S, holder=mark)
    if epoch is None:
        yield None
        return
    role = Role(catalog, name, owner, epoch)
    try:
        yield role
    finally:
        role.give_back()
