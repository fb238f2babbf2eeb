"""Failpoints: places at which a test may have a process die, as by a power cut.

`SPDF_FAILPOINT=name` names one; `name:3` means the third time that it is reached. Without that
variable a failpoint does nothing.
"""

import os
import signal

VARIABLE = "SPDF_FAILPOINT"

_wanted, _, _count = os.environ.get(VARIABLE, "").partition(":")
_left = int(_count or 1)


def reach(name: str) -> None:
    """Die here, at once and without a word, if this is where the process shall."""
    global _left
    if name != _wanted:
        return
    _left -= 1
    if _left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
