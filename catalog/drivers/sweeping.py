"""Empty folders of a directory tree, removed where they are of a known form and old."""

import os
from collections.abc import Callable
from contextlib import suppress

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEEPEST = 64
"""Folders that are open at once; what lies deeper stays."""


def sweep(root: int, is_ours: Callable[[str], bool], before_s: float) -> int:
    """Remove folders below the directory `root` that are empty, `is_ours`, and unchanged since.

    Gives how many; none of the first level, whatever its name. Links aren't followed. One that
    can't be looked at or removed stays, and the rest goes on.
    """
    gone = 0
    for name in _folders(root):
        with suppress(OSError):
            gone += _sweep_in(root, name, name, is_ours, before_s, 1)
    return gone


def _sweep_in(
    above: int, name: str, path: str, is_ours: Callable[[str], bool], before_s: float, depth: int
) -> int:
    """Remove what is below a folder, the deepest first."""
    gone = 0
    folder = os.open(name, _FOLDER, dir_fd=above)
    try:
        for inner in _folders(folder):
            inside = f"{path}/{inner}"
            if not is_ours(inside) or depth >= _DEEPEST:
                continue
            with suppress(OSError):
                # Looked at first: removing what is in it makes it new.
                old = os.stat(inner, dir_fd=folder, follow_symlinks=False).st_mtime < before_s
                gone += _sweep_in(folder, inner, inside, is_ours, before_s, depth + 1)
                if old:
                    os.rmdir(inner, dir_fd=folder)
                    gone += 1
    finally:
        os.close(folder)
    return gone


def _folders(folder: int) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
