"""Which paths only this program makes: what lies there without a row is its own, and may go."""

import re

from catalog.drivers.posix import PARTIAL_PREFIX, PARTIAL_SUFFIX

_ATTEMPT = re.compile(r"([^/]+)/\d{6,}/\d+\.(?:g(\d+)\.)?a\d+[./].+\Z")
"""`DATASET/THOUSANDS/JOB.aNUMBER.NAME`, or a folder of that name: an attempt's output."""
_FOLDER = re.compile(r"[^/]+/\d{6,}(?:/\d+\.(?:g\d+\.)?a\d+(?:[./].*)?)?\Z")
"""The folder of a thousand jobs, one of an attempt's own, or one below that."""
_MOST_DIGITS = 18
_PROBE = ".spdf-check/"


def is_own(path: str) -> bool:
    """Whether a path has the shape of an attempt's output, of a part of a copy, or of a probe.

    Anything else may be somebody's, though no row names it.
    """
    name = path.rpartition("/")[2]
    if name.startswith(PARTIAL_PREFIX) and name.endswith(PARTIAL_SUFFIX):
        return True
    return path.startswith(_PROBE) or dataset_of(path) is not None


def is_own_folder(path: str) -> bool:
    """Whether a folder has the shape of those that attempts' outputs lie in; a dataset's has not.

    That is of the first level, and may be anybody's.
    """
    return _FOLDER.match(path) is not None


def generation_of(path: str) -> int:
    """Of the catalog whose job's output lies there, by the path's shape alone; 0 for others."""
    found = _ATTEMPT.match(path)
    return int(found[2]) if found and found[2] and len(found[2]) < _MOST_DIGITS else 0


def dataset_of(path: str) -> str | None:
    """The name of the dataset whose output lies there, by the path's shape alone; None for others.

    A copy of a dataset's folder under another name has that shape, too.
    """
    found = _ATTEMPT.match(path)
    return None if found is None else found[1]
