"""Names that the recorder derives: the same attempt always gives the same task run."""

from uuid import UUID, uuid5

RECORDER = "recorder"
"""Name of the catalog's lease that the one recorder of a server holds."""

TASK_KEY = "run_job"


def is_run_id(text: str) -> bool:
    """Whether a flow run can have that id; a server asked for another refuses all asked with it."""
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def task_run_id(flow_run_id: str, attempt_id: int) -> UUID:
    """The task run that shows an attempt."""
    return uuid5(UUID(flow_run_id), f"attempt:{attempt_id}")


def event_id(task_run: UUID, state: str, number: int) -> UUID:
    """The id of the event that tells of a state, in its `number`-th try."""
    return uuid5(task_run, f"{state}:{number}")
