"""Which paths only this program makes: what lies there without a row is its own, and may go."""

import re

from catalog.drivers.posix import PARTIAL_PREFIX, PARTIAL_SUFFIX

_ATTEMPT = re.compile(r"([^/]+)/\d{6,}/\d+\.(g\d+\.)?a\d+[./].+\Z")
"""`DATASET/THOUSANDS/JOB.aNUMBER.NAME`, or a folder of that name: an attempt's output."""
_PROBE = ".spdf-check/"


def is_own(path: str) -> bool:
    """Whether a path has the shape of an attempt's output, of a part of a copy, or of a probe.

    Anything else may be somebody's, though no row names it.
    """
    name = path.rpartition("/")[2]
    if name.startswith(PARTIAL_PREFIX) and name.endswith(PARTIAL_SUFFIX):
        return True
    return path.startswith(_PROBE) or dataset_of(path) is not None


def dataset_of(path: str) -> str | None:
    """The name of the dataset whose output lies there, by the path's shape alone; None for others.

    A copy of a dataset's folder under another name has that shape, too.
    """
    found = _ATTEMPT.match(path)
    return None if found is None else found[1]
