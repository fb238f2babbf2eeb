"""Errors of every layer, and the codes under which attempts end."""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from catalog.states import Phase


class SpdfError(Exception):
    """Something went wrong. The message says what, to what, and how to mend it."""

    exit_code: ClassVar[int] = 2
    is_outage: ClassVar[bool] = False
    """Whether others would meet it, too: no fault of the item that did."""


class BadInput(SpdfError):
    """What was given can't be used; nothing was changed."""


class BadName(BadInput):
    """A name that breaks the rules for names."""


class BadTemplate(BadInput):
    """A CWL document that can't run here; `line` is 1-based in `source` where it is known."""

    def __init__(self, reason: str, source: str = "", line: int | None = None) -> None:
        self.reason, self.source, self.line = reason, source, line
        where = f"{source}:{line}: " if source and line else f"{source}: " if source else ""
        super().__init__(f"{where}{reason}")


class NotFound(SpdfError):
    """No such thing in the catalog."""

    exit_code = 3

    def __init__(self, kind: str, name: object, hint: str = "") -> None:
        self.kind, self.name = kind, name
        hint = hint or f"`spdf {kind} list` shows what there is"
        super().__init__(f"no {kind} {name!r}; {hint}.")


class Conflict(SpdfError):
    """The state of the catalog forbids it; nothing was changed."""

    exit_code = 4


class StateConflict(Conflict):
    """A transition that the table of states doesn't allow from where the entity is.

    `target` is the state, or what was to be done with it, such as `retried`.
    """

    def __init__(
        self, kind: str, name: object, state: object, target: object, why: str = ""
    ) -> None:
        self.kind, self.name, self.state, self.target = kind, name, state, target
        be = "become" if isinstance(target, StrEnum) else "be"
        because = f": {why}." if why else "."
        super().__init__(f"{kind} {name!r} is {state} and can't {be} {target}{because}")


class Unavailable(SpdfError):
    """A service or a place that is needed can't be reached now; trying again may help."""

    exit_code = 5
    is_outage = True


class StorageError(SpdfError):
    """A storage could not do what it was asked.

    `of_path`: it said so of one path, which may be all that is wrong.
    """

    exit_code = 5
    storage_id: int | None = None
    """Which one, where whoever called it says so."""

    def __init__(self, code: "ErrorCode", message: str, *, of_path: bool = False) -> None:
        self.code, self.of_path = code, of_path
        super().__init__(message)


class OtherBytes(StorageError):
    """What lies under a path isn't what was to be removed there, and stays.

    `what` says what does, so that it can go on with "; ".
    """

    def __init__(self, storage: str, path: str, what: str) -> None:
        self.what = what
        super().__init__(
            ErrorCode.STORAGE_DENIED,
            f"storage {storage!r}: {path!r} is not removed: {what}; look at it.",
        )


class ErrorClass(StrEnum):
    """What is done about an error: see docs/reference/errors.md."""

    TRANSIENT = "TRANSIENT"
    PAYLOAD = "PAYLOAD"
    PERMANENT = "PERMANENT"
    SYSTEM = "SYSTEM"
    OPERATOR = "OPERATOR"
    OUTAGE = "OUTAGE"


class ErrorCode(StrEnum):
    """Why an attempt ended without success."""

    INPUT_MISSING = "INPUT_MISSING"
    INPUT_UNREADABLE = "INPUT_UNREADABLE"
    INPUT_CORRUPT = "INPUT_CORRUPT"
    INPUT_MODIFIED = "INPUT_MODIFIED"
    STORAGE_UNAVAILABLE = "STORAGE_UNAVAILABLE"
    STORAGE_DENIED = "STORAGE_DENIED"
    STORAGE_GONE = "STORAGE_GONE"
    STORAGE_FULL = "STORAGE_FULL"
    STORAGE_FAILED = "STORAGE_FAILED"
    NODE_DISK_FULL = "NODE_DISK_FULL"
    NODE_DISK_FAILED = "NODE_DISK_FAILED"
    NODE_EXHAUSTED = "NODE_EXHAUSTED"
    NODE_TOO_SMALL = "NODE_TOO_SMALL"
    EXPRESSION_FAILED = "EXPRESSION_FAILED"
    BAD_JOB_INPUT = "BAD_JOB_INPUT"
    PROGRAM_NOT_FOUND = "PROGRAM_NOT_FOUND"
    PROGRAM_BUSY = "PROGRAM_BUSY"
    CONTAINER_ENGINE_MISSING = "CONTAINER_ENGINE_MISSING"
    CONTAINER_IMAGE_MISSING = "CONTAINER_IMAGE_MISSING"
    CONTAINER_FAILED = "CONTAINER_FAILED"
    PAYLOAD_FAILED = "PAYLOAD_FAILED"
    PAYLOAD_TEMPORARY = "PAYLOAD_TEMPORARY"
    PAYLOAD_PERMANENT = "PAYLOAD_PERMANENT"
    PAYLOAD_KILLED = "PAYLOAD_KILLED"
    PAYLOAD_REMAINS = "PAYLOAD_REMAINS"
    REAPER_LOST = "REAPER_LOST"
    TIME_LIMIT = "TIME_LIMIT"
    MEMORY_LIMIT = "MEMORY_LIMIT"
    WORK_DISK_FULL = "WORK_DISK_FULL"
    OUTPUT_MISSING = "OUTPUT_MISSING"
    OUTPUT_INVALID = "OUTPUT_INVALID"
    OUTPUT_EXISTS = "OUTPUT_EXISTS"
    OUTPUT_UNWRITABLE = "OUTPUT_UNWRITABLE"
    PILOT_LOST = "PILOT_LOST"
    PILOT_STOPPED = "PILOT_STOPPED"
    PROCESS_LOST = "PROCESS_LOST"
    KILLS_PILOT = "KILLS_PILOT"
    CANCELLED = "CANCELLED"
    INTERNAL = "INTERNAL"


@dataclass(frozen=True)
class ErrorInfo:
    """The meaning of a code.

    `elsewhere`: the job can't be run on the node, and perhaps on another: it is tried there first.
    """

    phase: Phase
    error_class: ErrorClass
    sentence: str
    elsewhere: bool = False


_IN, _RUN, _OUT = Phase.STAGE_IN, Phase.PAYLOAD, Phase.STAGE_OUT
_TRANS, _PAY, _PERM, _SYS, _HOLD, _OUTAGE = (
    ErrorClass.TRANSIENT, ErrorClass.PAYLOAD, ErrorClass.PERMANENT, ErrorClass.SYSTEM,
    ErrorClass.OPERATOR, ErrorClass.OUTAGE,
)  # fmt: skip

ERRORS: dict[ErrorCode, ErrorInfo] = {
    ErrorCode.INPUT_MISSING: ErrorInfo(_IN, _PERM, "An input's bytes are not on its storage."),
    ErrorCode.INPUT_UNREADABLE: ErrorInfo(
        _IN,
        _TRANS,
        "An input can't be read, and others on its storage can.",
        elsewhere=True,
    ),
    ErrorCode.INPUT_CORRUPT: ErrorInfo(
        _IN, _PERM, "An input's size or checksum is not the catalog's."
    ),
    ErrorCode.INPUT_MODIFIED: ErrorInfo(_RUN, _PERM, "The payload changed an input file."),
    ErrorCode.STORAGE_UNAVAILABLE: ErrorInfo(_IN, _OUTAGE, "A storage could not be reached."),
    ErrorCode.STORAGE_DENIED: ErrorInfo(_IN, _OUTAGE, "A storage refused the login."),
    ErrorCode.STORAGE_GONE: ErrorInfo(_IN, _OUTAGE, "A storage is not there any more."),
    ErrorCode.STORAGE_FULL: ErrorInfo(_OUT, _OUTAGE, "The output storage has no space left."),
    ErrorCode.STORAGE_FAILED: ErrorInfo(
        _OUT, _OUTAGE, "A storage could not keep what was written."
    ),
    ErrorCode.NODE_DISK_FULL: ErrorInfo(
        _IN, _OUTAGE, "The node's work disk has no space or no inodes left."
    ),
    ErrorCode.NODE_DISK_FAILED: ErrorInfo(
        _IN, _OUTAGE, "The node can't read or write one of its own disks."
    ),
    ErrorCode.NODE_EXHAUSTED: ErrorInfo(
        _IN, _OUTAGE, "The node has no memory, processes or open files left."
    ),
    ErrorCode.NODE_TOO_SMALL: ErrorInfo(
        _IN, _HOLD, "The node has fewer GPUs than one job of the stage needs.", elsewhere=True
    ),
    ErrorCode.EXPRESSION_FAILED: ErrorInfo(_IN, _PERM, "A CWL expression failed."),
    ErrorCode.BAD_JOB_INPUT: ErrorInfo(_IN, _PERM, "A value doesn't fit the tool's input."),
    ErrorCode.PROGRAM_NOT_FOUND: ErrorInfo(
        _RUN, _PERM, "The payload's program is not on the node, or can't be run.", elsewhere=True
    ),
    ErrorCode.PROGRAM_BUSY: ErrorInfo(
        _RUN, _TRANS, "The payload's program was being written to when it was to start."
    ),
    ErrorCode.CONTAINER_ENGINE_MISSING: ErrorInfo(
        _RUN,
        _HOLD,
        "The stage needs a container, and the node has no engine for such.",
        elsewhere=True,
    ),
    ErrorCode.CONTAINER_IMAGE_MISSING: ErrorInfo(
        _RUN,
        _HOLD,
        "The image of the stage is not on the node and could not be had.",
        elsewhere=True,
    ),
    ErrorCode.CONTAINER_FAILED: ErrorInfo(
        _RUN, _SYS, "The container engine of the node did not do its part."
    ),
    ErrorCode.PAYLOAD_FAILED: ErrorInfo(_RUN, _PAY, "The payload ended with a failing exit code."),
    ErrorCode.PAYLOAD_TEMPORARY: ErrorInfo(
        _RUN, _TRANS, "The payload ended with a code called temporary."
    ),
    ErrorCode.PAYLOAD_PERMANENT: ErrorInfo(
        _RUN, _PERM, "The payload ended with a code called permanent."
    ),
    ErrorCode.PAYLOAD_KILLED: ErrorInfo(_RUN, _PAY, "The payload was killed by a signal."),
    ErrorCode.PAYLOAD_REMAINS: ErrorInfo(
        _RUN, _PAY, "Processes of the payload could not be ended."
    ),
    ErrorCode.REAPER_LOST: ErrorInfo(
        _RUN, _SYS, "The process that the payload ran below was killed."
    ),
    ErrorCode.TIME_LIMIT: ErrorInfo(_RUN, _PAY, "The payload ran into its time limit."),
    ErrorCode.MEMORY_LIMIT: ErrorInfo(
        _RUN, _PAY, "The payload used more memory than its stage reserves."
    ),
    ErrorCode.WORK_DISK_FULL: ErrorInfo(
        _RUN,
        _PAY,
        "The job took more than half of its node's work disk, and no room was left.",
        elsewhere=True,
    ),
    ErrorCode.OUTPUT_MISSING: ErrorInfo(_OUT, _PAY, "A required output was not made."),
    ErrorCode.OUTPUT_INVALID: ErrorInfo(
        _OUT, _PERM, "An output doesn't fit the tool's declaration."
    ),
    ErrorCode.OUTPUT_EXISTS: ErrorInfo(_OUT, _SYS, "The output's place on the storage is taken."),
    ErrorCode.OUTPUT_UNWRITABLE: ErrorInfo(
        _OUT,
        _TRANS,
        "An output's place can't be written, and the rest of its storage can.",
        elsewhere=True,
    ),
    ErrorCode.PILOT_LOST: ErrorInfo(
        _RUN, _SYS, "The pilot stopped beating; its jobs were taken back."
    ),
    ErrorCode.PILOT_STOPPED: ErrorInfo(
        _RUN, _SYS, "The pilot was asked to stop before the job ended."
    ),
    ErrorCode.PROCESS_LOST: ErrorInfo(
        _RUN, _SYS, "A process of the pilot died, and the job with it."
    ),
    ErrorCode.KILLS_PILOT: ErrorInfo(_RUN, _PERM, "Pilots died each time this job ran."),
    ErrorCode.CANCELLED: ErrorInfo(_RUN, _PERM, "The workflow was cancelled."),
    ErrorCode.INTERNAL: ErrorInfo(_RUN, _SYS, "A defect of spdf itself; please report the log."),
}
