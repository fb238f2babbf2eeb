"""Driving a workflow: own it, advance it, send pilots, show progress, until it has ended."""

import gc
import logging
import os
import time
from dataclasses import dataclass
from uuid import uuid4

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import PrefectException
from sqlalchemy.exc import DBAPIError

from catalog import datasets, ownership, schema, stranded, workflows
from catalog.db import Catalog
from catalog.errors import StateConflict
from catalog.outage import Over, is_away, is_outage, ride_out, sentence
from catalog.settings import Settings
from catalog.signs import WorkflowSigns
from catalog.states import WorkflowState, is_final
from catalog.troubles import Of, Troubles
from catalog.workflows import WorkflowInfo
from flows.advance import Chain, NotRunning, OwnershipLost, advance, load, take_back
from flows.dispatch import Dispatcher
from flows.lookout import Lookout
from flows.progress import ProgressBoard, leave_summary
from flows.runs import CANCELLED, run_state
from flows.share import Share

log = logging.getLogger(__name__)

_STANDBY_S = 2.0
_ASK_S = 5.0
_QUIET_S = 10.0
"""Longest time between two advances of a workflow in which nothing happens."""
_TAKE_BACK_SHARE = 0.005


@dataclass(frozen=True)
class End:
    """How a drive ended: the workflow's state, and a sentence."""

    state: WorkflowState
    message: str


def drive(catalog: Catalog, settings: Settings, workflow_id: int, flow_run_id: str | None) -> End:
    """Advance a workflow until it ends; gives how.

    Where another flow run owns it this one ends at once, naming the owner. A second process of
    the same flow run (one that was rescheduled while alive) stands by instead: its end would be
    shown as the end of both. Raises `SchemaMismatch` for a catalog that only others can work with.
    """
    owner = f"{flow_run_id or 'local'}/{settings.node}/{os.getpid()}/{uuid4().hex[:8]}"
    while True:

        def claim() -> tuple[int | None, WorkflowInfo]:
            schema.require(catalog)
            with catalog.write() as session:
                epoch = ownership.claim(
                    session, workflow_id, owner, settings.workflow_lease_s, flow_run_id
                )
                return epoch, workflows.get(session, workflow_id)

        epoch, info = ride_out(claim, limit_s=settings.outage_s)
        if epoch is not None:
            try:
                gc.freeze()
                with get_client(sync_client=True) as client:
                    return _Drive(catalog, settings, info, epoch, client).run()
            except DBAPIError as error:
                if not is_away(error):
                    raise
                log.warning("catalog away", extra={"fault": str(error.orig)})
                continue
            except OwnershipLost as error:
                log.warning("ownership lost", extra={"workflow": workflow_id, "why": str(error)})
                continue
        if is_final(info.state):
            return End(info.state, info.reason or f"workflow {workflow_id} is {info.state}")
        if flow_run_id is None or not (info.owner or "").startswith(f"{flow_run_id}/"):
            return End(info.state, f"workflow {workflow_id} is advanced by {info.owner}")
        time.sleep(_STANDBY_S)


class _Drive:
    """One ownership of a workflow, from the claim to its loss or the workflow's end."""

    def __init__(
        self,
        catalog: Catalog,
        settings: Settings,
        info: WorkflowInfo,
        epoch: int,
        client: SyncPrefectClient,
    ) -> None:
        self._catalog, self._settings, self._info = catalog, settings, info
        self._client = client
        self._chain: Chain = load(catalog, info.id, epoch, settings.workflow_lease_s)
        self._dispatcher = Dispatcher(self._chain, settings, client, info.dataset, info.rank)
        self._signs = WorkflowSigns(catalog, info.id, list(self._chain.task_ids.values()))
        self._lookout = Lookout(
            self._look,
            busy_s=settings.advance_s,
            quiet_s=min(_QUIET_S, settings.lease_s / 4, settings.workflow_lease_s / 4),
        )
        with catalog.read() as session:
            total = datasets.get(session, info.dataset_id).file_count
        self._board = ProgressBoard(catalog, info.id, total)
        self._troubles, self._is_advanced = Troubles(catalog, "advance"), False
        self._asked = time.monotonic()
        self._good_until = time.monotonic() + settings.lease_s
        self._taking_back = Share(settings.advance_s, _TAKE_BACK_SHARE)

    def run(self) -> End:
        """Loop until the workflow ends. Raises `OwnershipLost`."""
        try:
            while True:
                self._lookout.begin()
                try:
                    state = self._turn()
                except NotRunning as stop:
                    state = stop.state
                except DBAPIError as error:
                    if not is_away(error):
                        raise
                    log.warning("catalog away", extra={"fault": str(error.orig)})
                    self._good_until = time.monotonic() + self._settings.lease_s
                    state = WorkflowState.IN_PROGRESS
                if is_final(state):
                    return ride_out(self._end, limit_s=self._settings.outage_s)
                self._lookout.rest(self._obey_prefect, awaited=self._dispatcher.waits)
        except BaseException as error:
            self._note(error)
            self._let_go()
            raise

    def _note(self, error: BaseException) -> None:
        """Say where the workflow's owner looks what keeps it from being advanced."""
        if isinstance(error, Exception) and not isinstance(error, Over) and not is_outage(error):
            told = f"it can't be advanced: {sentence(error)}"
            self._troubles.note(Of.WORKFLOW, self._info.id, self._info.label, told)

    def _turn(self) -> WorkflowState:
        state = advance(self._chain)
        if not self._is_advanced:
            self._troubles.over(Of.WORKFLOW, self._info.id)
            self._is_advanced = True
        if is_final(state):
            return state
        # After a gap of ours (a start, an outage) the pilots get a whole lease to beat again.
        if time.monotonic() >= self._good_until and self._taking_back.is_due:
            with self._taking_back.spend():
                take_back(self._chain, self._settings.lease_s)
        self._dispatcher.dispatch()
        self._board.update()
        return state

    def _look(self) -> object:
        """The signs of something to do; None while the catalog is away."""
        try:
            return self._signs.look()
        except DBAPIError as error:
            if not is_away(error):
                raise
            return None

    def _obey_prefect(self) -> None:
        """A run cancelled in Prefect is a command: cancel the workflow."""
        if time.monotonic() - self._asked < _ASK_S:
            return
        self._asked = time.monotonic()
        ride_out(self._cancel_if_told, limit_s=self._settings.outage_s)

    def _cancel_if_told(self) -> None:
        cancel_if_told(self._client, self._catalog, self._info.id, self._run_id)

    @property
    def _run_id(self) -> str | None:
        return self._info.flow_run_id

    def _end(self) -> End:
        self._board.update(force=True)
        self._dispatcher.stop_waiting()
        with self._catalog.read() as session:
            info = workflows.get(session, self._info.id)
            left = stranded.of_workflow(session, info.id).open
        what = f"; it leaves OPEN, incomplete: {', '.join(left)}" if left else ""
        leave_summary(self._catalog, info.id, f"{info.label}: {info.state}{what}")
        return End(info.state, info.reason or f"{info.label} is {info.state}")

    def _let_go(self) -> None:
        """Leaving in the middle: cancel if that is why, and free the ownership for the next."""
        try:
            self._cancel_if_told()
            with self._catalog.write() as session:
                ownership.release(session, self._info.id, self._chain.epoch)
        except DBAPIError as error:
            log.warning("ownership runs out by itself", extra={"fault": str(error.orig)})


def cancel_if_told(
    client: SyncPrefectClient, catalog: Catalog, workflow_id: int, flow_run_id: str | None
) -> bool:
    """Cancel a workflow whose flow run was cancelled in Prefect; whether it was."""
    try:
        told = run_state(client, flow_run_id) in CANCELLED
    except (httpx.HTTPError, PrefectException) as error:
        log.debug("Prefect away", extra={"fault": str(error)})
        return False
    if told:
        try:
            with catalog.write() as session:
                workflows.cancel(session, workflow_id, "cancelled in Prefect")
        except StateConflict as error:
            log.info("too late to be cancelled", extra={"workflow": workflow_id, "why": str(error)})
            return False
    return told
