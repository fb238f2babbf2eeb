"""Request files that the spool refused: they lie in its `rejected/` until somebody mends them."""

import os
from pathlib import Path

from catalog.counts import count_of
from catalog.names import shown
from catalog.outage import printable

REJECTED = "rejected"
WHY = ".why"
"""Ends the name of the file that says why one was refused."""
_MOST = 1000
"""Files that are counted, and no more: there may be any number."""
_TOLD = 600


def sentence(spool: Path) -> str | None:
    """How many files a spool has refused, and why one of them was; None where there are none."""
    folder = spool / REJECTED
    names: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.endswith(WHY):
                    names.append(entry.name)
                if len(names) > _MOST:
                    break
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not names:
        return None
    one = min(names)
    count = f"more than {_MOST} files" if len(names) > _MOST else count_of(len(names), "file")
    return (
        f"the spool refused {count} of requests, such as {shown(one)}{_why(folder, one)}; mend "
        f"what lies in {shown(str(folder))} and rename it into the spool, or remove it"
    )


def _why(folder: Path, name: str) -> str:
    try:
        with (folder / f"{name}{WHY}").open(encoding="utf-8", errors="replace") as stream:
            told = printable(" ".join(stream.read(_TOLD).split()))
    except OSError:
        return ""
    return f" ({told.removesuffix('.')})"
