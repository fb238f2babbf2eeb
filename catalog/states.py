"""States and their allowed transitions: the one place where they stand."""

from collections.abc import Mapping
from enum import StrEnum


class TemplateState(StrEnum):
    DRAFT = "DRAFT"
    ACTUAL = "ACTUAL"
    ARCHIVED = "ARCHIVED"


class DatasetState(StrEnum):
    OPEN = "OPEN"
    CLOSED = "CLOSED"
    DELETING = "DELETING"
    DELETED = "DELETED"


class ReplicaState(StrEnum):
    COPYING = "COPYING"
    AVAILABLE = "AVAILABLE"
    BAD = "BAD"
    MISSING = "MISSING"
    DELETING = "DELETING"
    DELETED = "DELETED"


class WorkflowState(StrEnum):
    DEFINED = "DEFINED"
    IN_PROGRESS = "IN_PROGRESS"
    PAUSED = "PAUSED"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class TaskState(StrEnum):
    DEFINED = "DEFINED"
    IN_PROGRESS = "IN_PROGRESS"
    PAUSED = "PAUSED"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class JobState(StrEnum):
    WAITING = "WAITING"
    READY = "READY"
    RUNNING = "RUNNING"
    HELD = "HELD"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    CANCELLED = "CANCELLED"


class AttemptState(StrEnum):
    RUNNING = "RUNNING"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    LOST = "LOST"
    CANCELLED = "CANCELLED"


class Phase(StrEnum):
    """Where in an attempt something happened."""

    STAGE_IN = "STAGE_IN"
    PAYLOAD = "PAYLOAD"
    STAGE_OUT = "STAGE_OUT"


class PilotState(StrEnum):
    ACTIVE = "ACTIVE"
    DRAINING = "DRAINING"
    DONE = "DONE"
    LOST = "LOST"


class NodeState(StrEnum):
    """A node as its worker for one pool last said."""

    ONLINE = "ONLINE"
    DRAINING = "DRAINING"
    OFFLINE = "OFFLINE"


class RequestState(StrEnum):
    QUEUED = "QUEUED"
    DONE = "DONE"
    ERROR = "ERROR"


class UploadState(StrEnum):
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    DONE = "DONE"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class InspectionState(StrEnum):
    RUNNING = "RUNNING"
    DONE = "DONE"
    ASKING = "ASKING"
    FAILED = "FAILED"


class FindingState(StrEnum):
    FOUND = "FOUND"
    MARKED = "MARKED"
    QUARANTINED = "QUARANTINED"
    RECOVERED = "RECOVERED"
    REMOVED = "REMOVED"
    CLEARED = "CLEARED"


Transitions = Mapping[StrEnum, frozenset[StrEnum]]


def _table(rows: Mapping[StrEnum, tuple[StrEnum, ...]]) -> Transitions:
    return {before: frozenset(after) for before, after in rows.items()}


_T, _D, _R = TemplateState, DatasetState, ReplicaState
_W, _K, _J, _A, _P, _N, _Q, _U, _I, _F = (
    WorkflowState, TaskState, JobState, AttemptState, PilotState, NodeState, RequestState,
    UploadState, InspectionState, FindingState,
)  # fmt: skip

ALLOWED: Mapping[type[StrEnum], Transitions] = {
    _T: _table({_T.DRAFT: (_T.ACTUAL, _T.ARCHIVED), _T.ACTUAL: (_T.ARCHIVED,)}),
    _D: _table(
        {
            _D.OPEN: (_D.CLOSED, _D.DELETING),
            _D.CLOSED: (_D.DELETING,),
            _D.DELETING: (_D.DELETED, _D.OPEN, _D.CLOSED),
        }
    ),
    _R: _table(
        {
            _R.COPYING: (_R.AVAILABLE, _R.DELETING),
            _R.AVAILABLE: (_R.BAD, _R.MISSING, _R.DELETING),
            _R.BAD: (_R.AVAILABLE, _R.MISSING, _R.DELETING),
            _R.MISSING: (_R.AVAILABLE, _R.BAD, _R.DELETING),
            _R.DELETING: (_R.DELETED,),
        }
    ),
    _W: _table(
        {
            _W.DEFINED: (_W.IN_PROGRESS, _W.PAUSED, _W.CANCELLED),
            _W.IN_PROGRESS: (_W.PAUSED, _W.FINISHED, _W.FAILED, _W.CANCELLED),
            _W.PAUSED: (_W.IN_PROGRESS, _W.CANCELLED),
            _W.FAILED: (_W.IN_PROGRESS, _W.CANCELLED),
        }
    ),
    _K: _table(
        {
            _K.DEFINED: (_K.IN_PROGRESS, _K.PAUSED, _K.FINISHED, _K.FAILED, _K.CANCELLED),
            _K.IN_PROGRESS: (_K.PAUSED, _K.FINISHED, _K.FAILED, _K.CANCELLED),
            _K.PAUSED: (_K.IN_PROGRESS, _K.CANCELLED),
            _K.FAILED: (_K.IN_PROGRESS, _K.CANCELLED),
        }
    ),
    _J: _table(
        {
            _J.WAITING: (_J.READY, _J.CANCELLED),
            _J.READY: (_J.RUNNING, _J.HELD, _J.CANCELLED),
            _J.RUNNING: (_J.READY, _J.HELD, _J.FINISHED, _J.FAILED, _J.SKIPPED, _J.CANCELLED),
            _J.HELD: (_J.READY, _J.CANCELLED),
            _J.FAILED: (_J.READY,),
        }
    ),
    _A: _table({_A.RUNNING: (_A.FINISHED, _A.FAILED, _A.LOST, _A.CANCELLED)}),
    _P: _table(
        {
            _P.ACTIVE: (_P.DRAINING, _P.DONE, _P.LOST),
            _P.DRAINING: (_P.DONE, _P.LOST),
        }
    ),
    _N: _table(
        {
            _N.ONLINE: (_N.DRAINING, _N.OFFLINE),
            _N.DRAINING: (_N.ONLINE, _N.OFFLINE),
            _N.OFFLINE: (_N.ONLINE,),
        }
    ),
    _Q: _table({_Q.QUEUED: (_Q.DONE, _Q.ERROR), _Q.ERROR: (_Q.QUEUED,)}),
    _U: _table(
        {
            _U.QUEUED: (_U.RUNNING, _U.CANCELLED),
            _U.RUNNING: (_U.DONE, _U.FAILED, _U.CANCELLED),
            _U.FAILED: (_U.QUEUED, _U.CANCELLED),
        }
    ),
    _I: _table({_I.RUNNING: (_I.DONE, _I.ASKING, _I.FAILED), _I.ASKING: (_I.DONE,)}),
    _F: _table(
        {
            _F.FOUND: (_F.MARKED, _F.QUARANTINED, _F.CLEARED),
            _F.MARKED: (_F.RECOVERED, _F.CLEARED, _F.REMOVED, _F.QUARANTINED),
            _F.QUARANTINED: (_F.MARKED, _F.REMOVED, _F.CLEARED),
        }
    ),
}


def sources(target: StrEnum) -> tuple[StrEnum, ...]:
    """The states from which `target` may be reached, in the enum's order."""
    table = ALLOWED[type(target)]
    return tuple(state for state in type(target) if target in table.get(state, ()))


def is_final(state: StrEnum) -> bool:
    """Whether work on the entity has ended (a retry may still reopen a FAILED one)."""
    return state in FINAL[type(state)]


FINAL: Mapping[type[StrEnum], frozenset[StrEnum]] = {
    _W: frozenset({_W.FINISHED, _W.FAILED, _W.CANCELLED}),
    _K: frozenset({_K.FINISHED, _K.FAILED, _K.CANCELLED}),
    _J: frozenset({_J.FINISHED, _J.FAILED, _J.SKIPPED, _J.CANCELLED}),
    _A: frozenset({_A.FINISHED, _A.FAILED, _A.LOST, _A.CANCELLED}),
    _P: frozenset({_P.DONE, _P.LOST}),
    _D: frozenset({_D.DELETED}),
    _R: frozenset({_R.DELETED}),
    _T: frozenset({_T.ARCHIVED}),
    _N: frozenset(),
    _Q: frozenset({_Q.DONE}),
    _U: frozenset({_U.DONE, _U.FAILED, _U.CANCELLED}),
    _I: frozenset({_I.DONE, _I.FAILED}),
    _F: frozenset({_F.RECOVERED, _F.REMOVED, _F.CLEARED}),
}
