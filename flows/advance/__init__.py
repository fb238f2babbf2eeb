"""Advancing a workflow: a function of the catalog alone, idempotent, called in a loop."""

from catalog import losses, pilots
from catalog.states import TaskState, WorkflowState
from flows.advance.chain import Chain, NotRunning, OwnershipLost, load
from flows.advance.ends import settle_task, settle_workflow, sources_final, upstream_failure
from flows.advance.maps import define_after_barrier, define_roots, pass_on
from flows.advance.merges import define_groups
from flows.plan import Stage, StageKind

__all__ = ["Chain", "NotRunning", "OwnershipLost", "advance", "load", "take_back"]


def advance(chain: Chain) -> WorkflowState:
    """Define what can be defined and end what has ended, stage by stage; gives the state.

    Raises `OwnershipLost` where another run owns the workflow, `NotRunning` where it ended.
    """
    for stage in chain.plan.stages:
        with chain.catalog.read() as session:
            final = sources_final(session, chain, stage)
        _define(chain, stage, final)
        if final:
            with chain.write() as session:
                settle_task(session, chain, stage)
    with chain.write() as session:
        return settle_workflow(session, chain) or WorkflowState.IN_PROGRESS


def take_back(chain: Chain, pilot_lease_s: float) -> int:
    """Mark silent pilots LOST and make the jobs READY that their leases no longer keep."""
    with chain.write() as session:
        pilots.lose_silent(session, pilot_lease_s)
        return losses.take_back(session, list(chain.task_ids.values()))


def _define(chain: Chain, stage: Stage, final: bool) -> None:
    """Define all the jobs of a stage that its sources allow now, a batch a transaction."""
    while True:
        with chain.write() as session:
            if chain.task(session, stage).state not in (TaskState.DEFINED, TaskState.IN_PROGRESS):
                return
            failed = final and upstream_failure(session, chain, stage) is not None
            if stage.kind is StageKind.MERGE:
                count = define_groups(session, chain, stage, final=final and not failed)
            elif stage.barrier and not final:
                count = 0
            elif not stage.upstreams:
                # What accompanies a file may be the last to come.
                waits = bool(chain.plan.companions) and not final
                count = 0 if waits else define_roots(session, chain, stage)
            elif stage.barrier:
                count = 0 if failed else define_after_barrier(session, chain, stage)
            else:
                count = sum(
                    pass_on(session, chain, chain.plan.stage(name)) for name in stage.upstreams
                )
        if not count:
            return
