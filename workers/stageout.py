"""Stage-out: a payload's outputs become files on their storages, ready to be registered."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from catalog.checksums import DEFAULT
from catalog.errors import BadName, ErrorCode
from catalog.names import check_path
from workers.cwl import ToolFailure
from workers.node import Node
from workers.patience import put_patiently
from workers.spec import JobSpec, NewFile, OutputTarget, TaskSpec


class StageOut:
    """Uploads the outputs of one attempt; each is added to `uploaded` as soon as it is there."""

    def __init__(
        self,
        node: Node,
        task: TaskSpec,
        job: JobSpec,
        outdir: Path,
        uploaded: list[NewFile],
        stop: threading.Event | None = None,
    ) -> None:
        self._node, self._task, self._job, self._stop = node, task, job, stop
        self._uploaded = uploaded
        self._outdir = outdir.resolve()
        self._names: set[tuple[int, str]] = set()

    def outputs(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Upload the Files among a tool's outputs; gives the plain values by port."""
        plain: dict[str, Any] = {}
        for port in self._task.step.outputs:
            value = values.get(port.name)
            if value is None:
                continue
            if port.kind == "value":
                plain[port.name] = value
                continue
            for item in value if isinstance(value, list) else [value]:
                self._upload(port.name, item)
        return plain

    def log(self, path: Path) -> NewFile | None:
        """Upload the attempt's log, unless it is empty."""
        if not path.exists() or path.stat().st_size == 0:
            return None
        target = self._task.targets["log"]
        name = f"{self._job.key}/{self._job.number}.log"
        return self._put("log", 0, path, name, f"{target.dataset_name}/{name}", target)

    def _upload(self, port: str, value: Mapping[str, Any]) -> None:
        primary = self._file(port, value)
        for other in value.get("secondaryFiles") or ():
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
        path = Path(value["path"])
        basename = value.get("basename") or path.name
        name = f"{self._job.key}/{basename}"
        try:
            check_path("output file name", name)
        except BadName as error:
            raise ToolFailure(ErrorCode.OUTPUT_INVALID, str(error)) from error
        if (target.dataset_id, name) in self._names:
            raise ToolFailure(
                ErrorCode.OUTPUT_INVALID, f"output {port} has two files named {basename!r}"
            )
        self._names.add((target.dataset_id, name))
        place = f"{target.dataset_name}/{self._job.key}/a{self._job.number}/{basename}"
        index = len(self._uploaded)
        file = self._put(port, index, path, name, place, target, secondary_of)
        self._uploaded.append(file)
        return file

    def _put(
        self,
        port: str,
        index: int,
        path: Path,
        name: str,
        place: str,
        target: OutputTarget,
        secondary_of: str | None = None,
    ) -> NewFile:
        real = path.resolve()
        ours = port == "log" or (not path.is_symlink() and real.is_relative_to(self._outdir))
        driver = self._node.storages[target.storage_id]
        stored = put_patiently(
            driver,
            real,
            place,
            checksum=DEFAULT,
            move=ours,
            patience_s=self._node.patience_s,
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


def discard(node: Node, files: list[NewFile]) -> None:
    """Remove uploaded files that nothing will ever name; what can't be removed stays as dark."""
    for file in files:
        node.storages[file.storage_id].delete(file.path)
