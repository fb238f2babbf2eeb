"""What an error says that ended an attempt: whose it is, the node's, the document's or ours."""

import errno
import os

from catalog.drivers.posix import EXHAUSTED
from catalog.errors import BadInput, BadTemplate, ErrorCode, SpdfError, StorageError
from catalog.names import MAX_COMPONENT, spelt_out
from catalog.refs import ReplicaRef
from catalog.states import Phase
from workers.cwl.failures import ToolFailure

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""A disk has no room: of bytes, of inodes, or of a quota."""

BROKEN = frozenset(
    {
        errno.EIO, errno.EROFS, errno.ESTALE, errno.ENXIO, errno.ENODEV, errno.ENOTCONN,
        errno.EUCLEAN, errno.EREMOTEIO, errno.ENOMEDIUM, errno.ESHUTDOWN, errno.ETIMEDOUT,
        errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENOTBLK,
    }
)  # fmt: skip
"""A disk of the machine, or the way to it, doesn't work."""


def of_node(error: OSError) -> ErrorCode | None:
    """The outage of the node that an error of its own disks tells of; None where it is none."""
    if error.errno in FULL:
        return ErrorCode.NODE_DISK_FULL
    if error.errno in EXHAUSTED:
        return ErrorCode.NODE_EXHAUSTED
    if error.errno in BROKEN:
        return ErrorCode.NODE_DISK_FAILED
    return None


class InputModified(SpdfError):
    """The payload wrote to an input that is linked from a storage; `copies` are those."""

    def __init__(self, names: list[str], copies: tuple[ReplicaRef, ...]) -> None:
        self.copies = copies
        super().__init__(f"the payload changed its input {', '.join(names)}")


def code_of(error: BaseException, phase: Phase | None) -> ErrorCode:
    """What an attempt that ended with this error, in this phase, is said to have failed of.

    Before there is a phase the node makes a work folder, which has nothing of the job yet. Then
    names and values of the document lie in it, and at last whatever the payload left there.
    """
    if isinstance(error, ToolFailure | StorageError):
        return error.code
    if isinstance(error, InputModified):
        return ErrorCode.INPUT_MODIFIED
    if isinstance(error, BadTemplate):
        return ErrorCode.BAD_JOB_INPUT
    if isinstance(error, OSError) and (code := of_node(error)) is not None:
        return code
    if isinstance(error, OSError) and phase is None:
        return ErrorCode.NODE_DISK_FAILED
    if isinstance(error, OSError | BadInput | UnicodeError | RecursionError | MemoryError):
        # Sizes and depths are the data's: a machine without memory can't fork, and says ENOMEM.
        return ErrorCode.OUTPUT_INVALID if phase is Phase.STAGE_OUT else ErrorCode.BAD_JOB_INPUT
    return ErrorCode.INTERNAL


def told(error: BaseException) -> str:
    """What an error says, as text that any database takes: an undecodable name is spelt out."""
    text = str(error) or type(error).__name__
    if isinstance(error, UnicodeEncodeError):
        text = f"the name or text {error.object!r} is not UTF-8"
    elif isinstance(error, RecursionError | MemoryError):
        text = f"a value is deeper or larger than can be worked on ({type(error).__name__})"
    elif isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG and error.filename:
        longest = max(os.fsdecode(error.filename).split("/"), key=len)
        text = (
            f"the name {longest!r} is too long for a file (it may have {MAX_COMPONENT} bytes); "
            "give the input, or what the template makes of its name, a shorter one"
        )
    return spelt_out(text)
