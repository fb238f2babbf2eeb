"""Who advances a workflow: one owner at a time, under an epoch that fences those before."""

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog.clock import now
from catalog.models import Workflow
from catalog.states import FINAL, WorkflowState
from catalog.transitions import move
from catalog.workflows import WorkflowInfo, select_infos


def claim(
    session: Session, workflow_id: int, owner: str, lease_s: float, flow_run_id: str | None
) -> int | None:
    """Become the owner of a workflow that has none alive; gives the new epoch, else None.

    DEFINED becomes IN_PROGRESS. A workflow in a final state has no owner to be.
    """
    epoch: int | None = session.execute(
        sa.update(Workflow)
        .where(
            col(Workflow.id) == workflow_id,
            col(Workflow.state).not_in(FINAL[WorkflowState]),
            sa.or_(col(Workflow.owner).is_(None), col(Workflow.lease_until) < now()),
        )
        .values(
            owner=owner,
            epoch=col(Workflow.epoch) + 1,
            lease_until=now(lease_s),
            flow_run_id=flow_run_id,
        )
        .returning(col(Workflow.epoch))
    ).scalar()
    if epoch is None:
        return None
    move(
        session,
        Workflow,
        [workflow_id],
        WorkflowState.IN_PROGRESS,
        only_from=[WorkflowState.DEFINED],
        started_at=now(),
    )
    return epoch


def beat(session: Session, workflow_id: int, epoch: int, lease_s: float) -> WorkflowState | None:
    """Renew the ownership and lock the row for this transaction; None: it was lost.

    Every advance begins with it: what follows in the transaction is fenced by the epoch.
    """
    return session.execute(
        sa.update(Workflow)
        .where(col(Workflow.id) == workflow_id, col(Workflow.epoch) == epoch)
        .values(lease_until=now(lease_s))
        .returning(col(Workflow.state))
    ).scalar()


def set_flow_run(session: Session, workflow_id: int, epoch: int, flow_run_id: str) -> None:
    """Remember the flow run that is to advance a workflow, while the epoch is that one."""
    session.execute(
        sa.update(Workflow)
        .where(col(Workflow.id) == workflow_id, col(Workflow.epoch) == epoch)
        .values(flow_run_id=flow_run_id)
    )


def release(session: Session, workflow_id: int, epoch: int) -> None:
    """Give the ownership up."""
    session.execute(
        sa.update(Workflow)
        .where(col(Workflow.id) == workflow_id, col(Workflow.epoch) == epoch)
        .values(owner=None, lease_until=None)
    )


def abandoned(session: Session, *, grace_s: float, limit: int = 1000) -> list[WorkflowInfo]:
    """Workflows begun that nobody advances: their lease ran out, or none took them for `grace_s`.

    The highest rank first.
    """
    query = (
        select_infos()
        .where(
            col(Workflow.state) == WorkflowState.IN_PROGRESS,
            sa.or_(
                col(Workflow.lease_until) < now(),
                sa.and_(
                    col(Workflow.lease_until).is_(None), col(Workflow.created_at) < now(-grace_s)
                ),
            ),
        )
        .order_by(col(Workflow.rank).desc(), col(Workflow.id))
        .limit(limit)
    )
    return [WorkflowInfo(**row._mapping) for row in session.execute(query)]


def waiting(
    session: Session, *, grace_s: float, after: int = 0, limit: int = 200
) -> list[WorkflowInfo]:
    """Workflows that nobody has begun for `grace_s`, by id, beyond the id `after`."""
    query = (
        select_infos()
        .where(
            col(Workflow.state) == WorkflowState.DEFINED,
            col(Workflow.created_at) < now(-grace_s),
            col(Workflow.id) > after,
        )
        .order_by(col(Workflow.id))
        .limit(limit)
    )
    return [WorkflowInfo(**row._mapping) for row in session.execute(query)]


def driven(session: Session, limit: int = 1000) -> dict[str, int]:
    """The workflows IN_PROGRESS, by the flow run that is to advance them."""
    query = sa.select(col(Workflow.flow_run_id), col(Workflow.id)).where(
        col(Workflow.state) == WorkflowState.IN_PROGRESS, col(Workflow.flow_run_id).is_not(None)
    )
    return {row[0]: row[1] for row in session.execute(query.limit(limit))}
