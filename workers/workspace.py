"""Private work directories of jobs, used again: making directories costs more than a short job.

A directory serves one job at a time and is empty when the next one gets it. One that can't be
emptied, or in which something of a job may still be at work, is thrown away instead.
"""

# Paths are plain strings here: this runs for every job.
# ruff: noqa: PTH101, PTH102, PTH108, PTH208

import logging
import os
import shutil
import stat
import subprocess
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger(__name__)

_FOLDERS = ("out", "tmp", "stage", "in")
_MODE = 0o755
_COARSE_NS = 2_000_000_000
_OWN = frozenset((*_FOLDERS, "log"))


class _Seen(NamedTuple):
    """An empty directory as it was seen; `changed_ns` is None where that can't tell of changes."""

    device: int
    inode: int
    changed_ns: int | None

    def is_one(self, found: os.stat_result) -> bool:
        """Whether what was found is that very directory."""
        place = (self.device, self.inode)
        return stat.S_ISDIR(found.st_mode) and (found.st_dev, found.st_ino) == place


class Workspace:
    """`out`, where a payload runs and writes; `tmp`; `stage` and `in` for inputs; and a log.

    `root` is a real path.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.out, self.tmp, self.stage, self.inputs = (f"{root}/{name}" for name in _FOLDERS)
        self.log = f"{root}/log"
        self._spoilt = False
        os.mkdir(root)
        for name in _FOLDERS:
            os.mkdir(f"{root}/{name}", _MODE)
        self._found = {name: _seen(f"{root}/{name}") for name in _FOLDERS}
        self._root = _seen(root)

    def without_paths(self, text: str) -> str:
        """`text` with paths below the work directory as the payload knows them: it is gone soon."""
        return text.replace(f"{self.out}/", "").replace(f"{self.root}/", "")

    def spoil(self) -> None:
        """Have it thrown away: something of the job may still be at work in it."""
        self._spoilt = True

    def empty(self) -> bool:
        """Remove what a job left; whether the workspace is as it was made."""
        if self._spoilt or not self._root.is_one(os.lstat(self.root)):
            return False
        for name, before in self._found.items():
            folder = f"{self.root}/{name}"
            found = os.lstat(folder)
            if not before.is_one(found):
                return False
            if found.st_mode & 0o777 != _MODE:
                os.chmod(folder, _MODE)
            if found.st_ctime_ns != before.changed_ns:
                _clear(folder)
                self._found[name] = _seen(folder)
        if os.lstat(self.root).st_ctime_ns != self._root.changed_ns:
            if set(os.listdir(self.root)) - _OWN:
                return False
            self._root = _seen(self.root)
        self._empty_log()
        return True

    def _empty_log(self) -> None:
        """A log that is a link, also a hard one, is another's: its bytes must stay."""
        with suppress(FileNotFoundError):
            found = os.lstat(self.log)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
                os.unlink(self.log)
            elif found.st_size:
                os.truncate(self.log, 0)

    def remove(self) -> None:
        """Remove all of it, as far as that can be done."""
        remove_tree(self.root)


class Workspaces:
    """The workspaces of a pilot, below `directory`: as many as jobs were in progress at once."""

    def __init__(self, directory: Path) -> None:
        self._directory = os.path.realpath(directory)
        self._free: deque[Workspace] = deque()

    @contextmanager
    def take(self) -> Iterator[Workspace]:
        """An empty workspace for one job. Raises `OSError` where none can be made."""
        workspace = self._get()
        try:
            yield workspace
        finally:
            if self._is_clean(workspace):
                self._free.append(workspace)
            else:
                workspace.remove()

    def _get(self) -> Workspace:
        try:
            return self._free.pop()
        except IndexError:
            return Workspace(f"{self._directory}/job-{os.urandom(8).hex()}")

    @staticmethod
    def _is_clean(workspace: Workspace) -> bool:
        try:
            return workspace.empty()
        except (OSError, RecursionError) as error:
            log.warning("work directory is given up", extra={"fault": str(error)})
            return False


def _seen(folder: str) -> _Seen:
    """Clocks of file systems are coarse: a change soon after another leaves the same time."""
    found = os.lstat(folder)
    young = time.time_ns() - found.st_ctime_ns < _COARSE_NS
    return _Seen(found.st_dev, found.st_ino, None if young else found.st_ctime_ns)


def remove_tree(path: str | Path) -> None:
    """Remove a directory of ours and all that payloads left in it, as far as that can be done."""
    try:
        shutil.rmtree(path)
    except (OSError, RecursionError):
        # Deeper than Python goes, or folders that were closed. Files keep their modes: they may be
        # links to a storage's.
        where = {"PATH": "/usr/bin:/bin"}
        closed = ["-type", "d", "!", "-perm", "-700"]
        for words in (
            ["find", path, *closed, "-execdir", "chmod", "u+rwx", "{}", ";"],
            ["rm", "--recursive", "--force", "--", path],
        ):
            try:
                subprocess.run(words, env=where, stderr=subprocess.DEVNULL, check=False)
            except OSError as error:
                # An end that was good must not be lost for what is left behind.
                log.warning("a work directory stays", extra={"at": str(path), "fault": str(error)})


def _clear(folder: str) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
