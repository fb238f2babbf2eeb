"""Looking after what is out: now and then a node sees whether it is well, until it is."""

import logging
import threading
import time

from sqlalchemy.exc import DBAPIError

from catalog import obstacles, outages, storages
from catalog.db import Catalog
from catalog.drivers import driver_for
from catalog.errors import SpdfError
from catalog.outages import OutageInfo
from catalog.settings import Settings
from workers.cwl.faults import told
from workers.probe import check_node, check_storage

log = logging.getLogger(__name__)

_EVERY_S = 1.0


class Prober:
    """The looks of one process of a node. No job is spent on them.

    Several processes share them by the catalog: whoever comes first has the next one. A look that
    hangs (a mount whose server is gone) holds up nothing but the next look at the same thing.
    """

    def __init__(self, catalog: Catalog, settings: Settings) -> None:
        assert settings.work_dir is not None
        self._catalog, self._settings = catalog, settings
        self._work_dir = settings.work_dir
        self._looks: dict[int, threading.Thread] = {}
        self._next = 0.0
        self.node_is_out = False
        """Whether the node itself was out at the last tick."""

    def tick(self) -> None:
        """Begin the looks that are due. Raises `DBAPIError`."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _EVERY_S
        node = self._settings.node
        with self._catalog.read() as session:
            self.node_is_out, due = obstacles.glance(session, node)
        if not due:
            return
        with self._catalog.write() as session:
            claimed = outages.claim(session, node)
        self._looks = {i: look for i, look in self._looks.items() if look.is_alive()}
        for outage in claimed:
            if outage.id not in self._looks:
                look = threading.Thread(target=self._look, args=(outage,), daemon=True)
                try:
                    look.start()
                except RuntimeError as error:  # a node without a thread left looks later
                    log.warning("no look", extra={"fault": str(error)})
                    continue
                self._looks[outage.id] = look

    def _look(self, outage: OutageInfo) -> None:
        try:
            try:
                self._check(outage)
            except (SpdfError, OSError) as error:
                with self._catalog.write() as session:
                    outages.still(session, outage, told(error))
                return
            with self._catalog.write() as session:
                if outages.end(session, outage):
                    log.info("well again", extra={"outage": outages.sentence(outage)})
        except DBAPIError as error:
            log.warning("catalog away", extra={"fault": str(error.orig)})
        except Exception:  # a thread of its own: a defect must not end unseen
            log.exception("defect in a look at what is out")

    def _check(self, outage: OutageInfo) -> None:
        """Raise `StorageError` or `OSError` where it is as it was."""
        if outage.storage_id is None:
            check_node(self._work_dir)
            return
        with self._catalog.read() as session:
            place = storages.get(session, outage.storage_id)
        check_storage(
            driver_for(place, self._settings),
            self._work_dir,
            needed_bytes=outage.needed_bytes,
            writing=outage.writing,
        )
