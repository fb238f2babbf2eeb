"""Stage-out: a payload's outputs become files on their storages, ready to be registered."""

# Paths are plain strings here: this runs for every output of every job.
# ruff: noqa: PTH114, PTH116, PTH119, PTH120

import logging
import os
import stat
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
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
from workers.patience import put_patiently
from workers.spec import JobSpec, NewFile, OutputTarget, TaskSpec

log = logging.getLogger(__name__)


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
        self._names: dict[tuple[int, str], str] = {}
        self.putting_bytes = 0
        """Size of the file that is, or was last, on its way."""

    def outputs(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Upload the Files among a tool's outputs; gives the plain values by port."""
        plain: dict[str, Any] = {}
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
                self._upload(port.name, item)
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
        return self._put("log", 0, path, name, "log", self._task.targets["log"])

    def _upload(self, port: str, value: Mapping[str, Any]) -> None:
        primary = self._file(port, value)
        for other in with_secondary(value)[1:]:
            if other["class"] != "File":
                raise ToolFailure(
                    ErrorCode.OUTPUT_INVALID,
                    f"output {port} has the directory {other.get('basename')!r} as a secondary "
                    "file; only files can be stored",
                )
            self._file(port, other, secondary_of=primary.name)

    def _file(
        self, port: str, value: Mapping[str, Any], secondary_of: str | None = None
    ) -> NewFile:
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
        held = self._names.get((target.dataset_id, name))
        if held is not None:
            twice = f"({held!r} and {path!r})" if held != path else f"(twice {path!r})"
            raise ToolFailure(
                ErrorCode.OUTPUT_INVALID, f"output {port} has two files named {basename!r} {twice}"
            )
        self._names[target.dataset_id, name] = path
        index = len(self._uploaded)
        file = self._put(port, index, path, name, basename, target, secondary_of)
        self._uploaded.append(file)
        return file

    def _put(
        self,
        port: str,
        index: int,
        path: str,
        name: str,
        basename: str,
        target: OutputTarget,
        secondary_of: str | None = None,
    ) -> NewFile:
        real, inside = self._real(path)
        if not os.access(real, os.R_OK, effective_ids=True):
            _let_read(port, real, inside)
        place = place_of(target.dataset_name, self._job, basename)
        self.putting_bytes = os.stat(real).st_size
        stored = put_patiently(
            self._node,
            target.storage_id,
            Path(real),
            place,
            checksum=DEFAULT,
            move=inside or port == "log",
            size_bytes=self.putting_bytes,
            stop=self._stop,
        )
        assert stored.checksum is not None
        return NewFile(
            port=port,
            index=index,
            name=name,
            size_bytes=stored.size_bytes,
            checksum=stored.checksum,
            storage_id=target.storage_id,
            path=place,
            dataset_id=target.dataset_id,
            secondary_of=secondary_of,
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
    if inside:
        with suppress(OSError):
            Path(path).chmod(0o400)
    if not os.access(path, os.R_OK, effective_ids=True):
        raise ToolFailure(
            ErrorCode.OUTPUT_INVALID,
            f"output {port} can't be read: {path!r}; its payload has to leave it readable",
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
