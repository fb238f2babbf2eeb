"""Stage-out: a payload's outputs become files on their storages, ready to be registered."""

# Paths are plain strings here: this runs for every output of every job.
# ruff: noqa: PTH110, PTH114, PTH116, PTH119, PTH120

import logging
import os
import stat
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalog.checksums import DEFAULT
from catalog.drivers import undo
from catalog.errors import BadName, ErrorCode, StorageError
from catalog.names import MAX_COMPONENT, check_path
from workers.cwl import ToolFailure
from workers.cwl.left import is_straight
from workers.cwl.staging import with_secondary
from workers.cwl.values import unstorable
from workers.node import Node
from workers.onefile import blamed
from workers.patience import Twin, put_patiently
from workers.spec import JobSpec, NewFile, OutputTarget, TaskSpec

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Found:
    """A file that is to be stored for a port. `own`: it may be moved once nothing else needs it."""

    port: str
    path: str
    real: str
    own: bool
    name: str
    basename: str
    target: OutputTarget
    secondary_of: str | None = None


class StageOut:
    """Uploads the outputs of one attempt; each is added to `uploaded` as soon as it is there.

    They count as stored only after `make_durable`, which the committer calls for many at a time.
    """

    def __init__(
        self,
        node: Node,
        task: TaskSpec,
        job: JobSpec,
        outdir: str,
        uploaded: list[NewFile],
        stop: threading.Event | None = None,
    ) -> None:
        self._node, self._task, self._job, self._stop = node, task, job, stop
        self._uploaded = uploaded
        self._outdir = outdir
        self._names: dict[tuple[int, str], _Found] = {}
        self._also: dict[tuple[int, str], list[str]] = {}
        self._twins: dict[tuple[int, str], Twin] = {}
        self.putting_bytes = 0
        """Size of the file that is, or was last, on its way."""

    def outputs(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Upload the Files among a tool's outputs; gives the plain values by port.

        A file that several ports name is stored for each, and moved for the last of them.
        """
        plain: dict[str, Any] = {}
        found: list[_Found] = []
        for port in self._task.step.outputs:
            value = values.get(port.name)
            if value is None:
                continue
            if port.kind == "value":
                if (fault := unstorable(value)) is not None:
                    raise ToolFailure(ErrorCode.OUTPUT_INVALID, f"output {port.name} {fault}")
                plain[port.name] = value
                continue
            for item in value if isinstance(value, list) else [value]:
                found += self._found(port.name, item)
        uses = Counter(one.real for one in found)
        for one in found:
            uses[one.real] -= 1
            self._uploaded.append(self._put(one, len(self._uploaded), keep=uses[one.real] > 0))
        return plain

    def log(self, path: str) -> NewFile | None:
        """Upload the attempt's log, unless it is empty, or the payload has put another thing there.

        It is moved: what a link leads to must not be.
        """
        try:
            found = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        is_file = stat.S_ISREG(found.st_mode)
        if is_file and found.st_size == 0:
            return None
        if not is_file or not is_straight(path):
            log.warning("a log is no file any more", extra={"job": self._job.job_id})
            return None
        name = f"{self._job.key}/{self._job.number}.log"
        return self._put(_Found("log", path, path, True, name, "log", self._task.targets["log"]), 0)

    def _found(self, port: str, value: Mapping[str, Any]) -> Iterator[_Found]:
        """What is to be stored of a File: itself and its secondary files."""
        primary = self._file(port, value)
        assert primary is not None
        yield primary
        for other in with_secondary(value)[1:]:
            if other["class"] != "File":
                raise ToolFailure(
                    ErrorCode.OUTPUT_INVALID,
                    f"output {port} has the directory {other.get('basename')!r} as a secondary "
                    "file; only files can be stored",
                )
            if (made := self._file(port, other, secondary_of=primary.name)) is not None:
                yield made

    def _file(
        self, port: str, value: Mapping[str, Any], secondary_of: str | None = None
    ) -> _Found | None:
        """A file under the name that it will have; None for one that is given already.

        One that accompanies several is stored once, for the first of them.
        """
        target = self._task.targets[port]
        path = str(value["path"])
        basename = value.get("basename") or os.path.basename(path)
        name = f"{self._job.key}/{basename}"
        try:
            check_path("output file name", name)
        except BadName as error:
            raise ToolFailure(ErrorCode.OUTPUT_INVALID, str(error)) from error
        if (length := len(os.fsencode(basename))) > MAX_COMPONENT:
            raise ToolFailure(
                ErrorCode.OUTPUT_INVALID,
                f"output {port} has a name of {length} bytes, and a storage takes {MAX_COMPONENT}: "
                f"{basename!r}; give it a shorter basename",
            )
        found = _Found(port, path, *self._real(path), name, basename, target, secondary_of)
        place = target.dataset_id, name
        held = self._names.setdefault(place, found)
        if held is found:
            return found
        if held.real == found.real and held.secondary_of and secondary_of:
            also = self._also.setdefault(place, [])
            if secondary_of not in (held.secondary_of, *also):
                also.append(secondary_of)
            return None
        raise ToolFailure(ErrorCode.OUTPUT_INVALID, _told_twice(held, found))

    def _put(self, one: _Found, index: int, *, keep: bool = False) -> NewFile:
        """Store a file; with `keep` another port is still to have it."""
        storage_id = one.target.storage_id
        if not os.access(one.real, os.R_OK, effective_ids=True):
            _let_read(one.port, one.real, one.own)
        place = place_of(one.target.dataset_name, self._job, one.basename)
        self.putting_bytes = os.stat(one.real).st_size
        try:
            stored = put_patiently(
                self._node,
                storage_id,
                Path(one.real),
                place,
                checksum=DEFAULT,
                move=one.own,
                keep=keep,
                twin=self._twins.get((storage_id, one.real)),
                size_bytes=self.putting_bytes,
                stop=self._stop,
            )
        except StorageError as error:
            if error.code is not ErrorCode.INPUT_MISSING:
                raise
            raise _gone(one.port, one.real) from error
        assert stored.checksum is not None
        if keep:
            self._twins.setdefault((storage_id, one.real), Twin(place, stored))
        return NewFile(
            port=one.port,
            index=index,
            name=one.name,
            size_bytes=stored.size_bytes,
            checksum=stored.checksum,
            storage_id=storage_id,
            path=place,
            dataset_id=one.target.dataset_id,
            secondary_of=one.secondary_of,
            mtime_us=stored.stamp.mtime_us if stored.stamp else None,
            also_of=tuple(self._also.get((one.target.dataset_id, one.name), ())),
        )

    def _real(self, path: str) -> tuple[str, bool]:
        """The real path of an output, and whether it is a file of the output directory itself."""
        if os.path.islink(path):
            return os.path.realpath(path), False
        folder = os.path.dirname(path)
        real = path if folder == self._outdir else os.path.realpath(path)
        return real, real.startswith(f"{self._outdir}/")


def _let_read(port: str, path: str, inside: bool) -> None:
    """Make an output readable that lies in the output directory; refuse others."""
    if not os.path.exists(path):
        raise _gone(port, path)
    if inside:
        with suppress(OSError):
            Path(path).chmod(0o400)
    if not os.access(path, os.R_OK, effective_ids=True):
        raise ToolFailure(
            ErrorCode.OUTPUT_INVALID,
            f"output {port} can't be read: {path!r}; its payload has to leave it readable",
        )


def _gone(port: str, path: str) -> ToolFailure:
    return ToolFailure(
        ErrorCode.OUTPUT_MISSING,
        f"output {port} is gone: {path!r} was there when the outputs were collected, and isn't any "
        "more; nothing may take a job's files away before they are stored",
    )


def _told_twice(held: _Found, found: _Found) -> str:
    """Why two files of one name, or one file in two roles, can't be in one dataset."""
    what = f"output {found.port} has"
    if held.real != found.real:
        return (
            f"{what} two files named {found.basename!r} ({held.path!r} and {found.path!r}); "
            "give one of them another name"
        )
    primary = next((one.secondary_of for one in (held, found) if one.secondary_of), None)
    if primary is None:
        return (
            f"{what} the file {found.basename!r} twice ({found.path!r}), and a dataset holds a "
            "file once; let it be named once"
        )
    return (
        f"{what} the file {found.basename!r} ({found.path!r}) both by itself and as a secondary "
        f"file of {primary.rpartition('/')[2]!r}, and a file is one or the other; let the output's "
        "glob leave it out, or give it a port of its own"
    )


def place_of(dataset: str, job: JobSpec, basename: str) -> str:
    """Where an attempt's file lies on its storage: never where another attempt's does.

    A thousand jobs share a folder: one of its own for each would cost more than the file.
    """
    folder, name = f"{dataset}/{job.job_id // 1000:06d}", f"{job.job_id}.a{job.number}"
    if len(os.fsencode(basename)) + len(name) < MAX_COMPONENT:
        return f"{folder}/{name}.{basename}"
    return f"{folder}/{name}/{basename}"


def make_durable(node: Node, files: Iterable[NewFile]) -> dict[tuple[int, str], StorageError]:
    """Have uploaded files on the disk of their storages; gives those that can't be, by place.

    Those are lost: they must not be tried again.
    """
    places: dict[int, list[str]] = {}
    for file in files:
        places.setdefault(file.storage_id, []).append(file.path)
    faults: dict[tuple[int, str], StorageError] = {}
    for storage_id, paths in places.items():
        driver = node.storages[storage_id]
        lost = blamed(driver, node.directory, driver.sync(paths))
        faults |= {(storage_id, path): fault for path, fault in lost.items()}
    return faults


def discard(node: Node, files: list[NewFile]) -> None:
    """Remove uploaded files that nothing will ever name; what can't be removed stays as dark."""
    for file in files:
        undo(node.storages[file.storage_id], [file.path])
