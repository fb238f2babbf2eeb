"""Reading a file once, without pushing out what the page cache holds for others.

A checksum of terabytes that are read on a control host would cost the database its cached pages.
What was cached already stays so. Linux 6.14 can do that; where the kernel or the file system can't,
it is an ordinary read.
"""

import errno
import os
from collections.abc import Callable

_RWF_DONTCACHE = 0x80
"""Of `preadv2(2)`, which Python's `os` has no name for."""
_UNKNOWN = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})
"""What kernels and file systems say to a flag that they don't have."""


def reader(descriptor: int) -> Callable[[memoryview], int]:
    """Reads of a file from its beginning, each of which goes on where the last one ended.

    Gives 0 at the end; raises `OSError`.
    """
    offset, flags = 0, _RWF_DONTCACHE

    def read_into(buffer: memoryview) -> int:
        nonlocal offset, flags
        try:
            count = os.preadv(descriptor, [buffer], offset, flags)
        except OSError as error:
            if error.errno not in _UNKNOWN or not flags:
                raise
            flags = 0
            count = os.preadv(descriptor, [buffer], offset)
        offset += count
        return count

    return read_into
