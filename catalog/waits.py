"""Waits: what jobs wait for that is not another job, in sentences."""

from collections.abc import Sequence

from sqlmodel import Session

from catalog import outages, poolnodes, stranded, tasks, troubles, workflows
from catalog.outages import OutageInfo
from catalog.states import is_final

_SHOWN = 10


def of_all(session: Session) -> list[str]:
    """All that is out now."""
    return _told(outages.current(session))


def of_tasks(session: Session, task_ids: Sequence[int]) -> list[str]:
    """What keeps jobs of these tasks from running, or would on some node."""
    if not task_ids:
        return []
    return poolnodes.of_tasks(session, task_ids) + _told(outages.of_tasks(session, task_ids))


def of_workflow(session: Session, workflow_id: int) -> list[str]:
    """The same, of the tasks of a workflow that have not ended, and what can't be done for it.

    First what it waits for that can't come.
    """
    rows = tasks.of_workflow(session, workflow_id)
    waiting = [row.id for row in rows if not is_final(row.state)]
    found = stranded.why_waits(session, workflows.get(session, workflow_id))
    vain = [f"{found.fact}; {found.next}"] if found is not None else []
    told = vain + [item.error for item in troubles.of(session, troubles.Of.WORKFLOW, workflow_id)]
    return (told if waiting else []) + of_tasks(session, waiting)


def _told(found: Sequence[OutageInfo]) -> list[str]:
    """A sentence for each; of one storage that many nodes can't reach the first says how many."""
    alike: dict[tuple[object, ...], list[OutageInfo]] = {}
    for one in found:
        same = ("storage", one.storage_id, one.code) if one.storage_id else ("one", one.id)
        alike.setdefault(same, []).append(one)
    lines = []
    for group in alike.values():
        more = f", and {len(group) - 1} more nodes see it so" if len(group) > 1 else ""
        lines.append(f"{outages.sentence(group[0])}{more}")
    rest = len(lines) - _SHOWN
    return lines if rest <= 0 else [*lines[:_SHOWN], f"{rest} more things are out"]
