"""Stage-in: catalog files become local paths, checked against what the catalog says of them."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalog.checksums import algorithm_of, file_checksum
from catalog.errors import ErrorCode, StorageError
from catalog.refs import FileRef
from workers.node import Node
from workers.patience import patiently


class StageInError(StorageError):
    """An input could not be had. `file_id` names it; `bad` where its replica is to blame."""

    def __init__(self, code: ErrorCode, message: str, file_id: int) -> None:
        self.file_id = file_id
        self.bad = code is ErrorCode.INPUT_CORRUPT
        super().__init__(code, message)


@dataclass(frozen=True)
class Staged:
    """A local file that a payload reads; `linked` is that of a storage, not a copy of ours."""

    file_id: int
    path: Path
    linked: bool
    stamp: tuple[int, int, int]

    def changed(self) -> bool:
        """Whether somebody wrote to it since."""
        try:
            return _stamp(self.path) != self.stamp
        except FileNotFoundError:
            return True


class StageIn:
    """Brings files to one directory, each at most once."""

    def __init__(self, node: Node, directory: Path, stop: threading.Event | None = None) -> None:
        self._node, self._directory, self._stop = node, directory, stop
        self.staged: dict[int, Staged] = {}

    @property
    def size_bytes(self) -> int:
        """Bytes of all that was staged."""
        return sum(staged.stamp[0] for staged in self.staged.values())

    def cwl_file(self, ref: FileRef) -> dict[str, Any]:
        """The CWL File of a catalog file, with its secondary files beside it."""
        value: dict[str, Any] = {
            "class": "File",
            "path": str(self._stage(ref).path),
            "basename": ref.basename,
            **_name_parts(ref.basename),
            "size": ref.size_bytes,
        }
        if ref.secondary:
            value["secondaryFiles"] = [self.cwl_file(other) for other in ref.secondary]
        return value

    def _stage(self, ref: FileRef) -> Staged:
        staged = self.staged.get(ref.file_id)
        if staged is None:
            staged = self.staged[ref.file_id] = self._fetch(ref)
        return staged

    def _fetch(self, ref: FileRef) -> Staged:
        if not ref.replicas:
            raise StageInError(
                ErrorCode.INPUT_MISSING, f"file {ref.name!r} has no available replica", ref.file_id
            )
        return patiently(
            lambda: self._from_any(ref), patience_s=self._node.patience_s, stop=self._stop
        )

    def _from_any(self, ref: FileRef) -> Staged:
        """The file from the first of its replicas that gives it whole."""
        fault: StorageError | None = None
        for replica in ref.replicas:
            driver = self._node.storages[replica.storage_id]
            try:
                local = driver.local_path(replica.path)
                if local is not None:
                    return self._linked(ref, local)
                target = self._directory / str(ref.file_id) / ref.basename
                target.parent.mkdir(parents=True, exist_ok=True)
                checksum = driver.get(replica.path, target, checksum=algorithm_of(ref.checksum))
                _check_copy(ref, target, checksum)
                return Staged(ref.file_id, target, False, _stamp(target))
            except StorageError as error:
                fault = error
        assert fault is not None
        if isinstance(fault, StageInError):
            raise fault
        raise StageInError(fault.code, str(fault), ref.file_id) from fault

    def _linked(self, ref: FileRef, path: Path) -> Staged:
        stamp = _check(ref, path)
        if self._node.verify_linked:
            _check_sum(ref, path, file_checksum(path, algorithm_of(ref.checksum)))
        return Staged(ref.file_id, path, True, stamp)


def _check_copy(ref: FileRef, path: Path, checksum: str | None) -> None:
    """Check a file that was fetched, and take it away again if it isn't what it should be."""
    try:
        _check(ref, path)
        _check_sum(ref, path, checksum)
    except StageInError:
        path.unlink()
        raise
    path.chmod(0o444)


def _check(ref: FileRef, path: Path) -> tuple[int, int, int]:
    """The stamp of a file that has the catalog's size."""
    try:
        stamp = _stamp(path)
    except FileNotFoundError:
        raise StageInError(
            ErrorCode.INPUT_MISSING, f"file {ref.name!r} is not at {path}", ref.file_id
        ) from None
    if stamp[0] != ref.size_bytes:
        raise StageInError(
            ErrorCode.INPUT_CORRUPT,
            f"file {ref.name!r} has {stamp[0]} bytes at {path}, the catalog says {ref.size_bytes}",
            ref.file_id,
        )
    return stamp


def _check_sum(ref: FileRef, path: Path, found: str | None) -> None:
    if found != ref.checksum:
        raise StageInError(
            ErrorCode.INPUT_CORRUPT,
            f"file {ref.name!r} has checksum {found} at {path}, the catalog says {ref.checksum}",
            ref.file_id,
        )


def _name_parts(basename: str) -> dict[str, str]:
    """CWL's nameroot and nameext: the extension is what follows the last dot but a leading one."""
    root, dot, extension = basename.rpartition(".")
    return {"nameroot": root or basename, "nameext": dot + extension if root else ""}


def _stamp(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def resolve(value: Any, stage: StageIn, refs: Mapping[int, FileRef]) -> Any:
    """A CWL value in which every `{"class": "File", "file_id": n}` has become a local File."""
    if isinstance(value, Mapping):
        if value.get("class") == "File" and "file_id" in value:
            extra = {k: v for k, v in value.items() if k in ("format", "metadata")}
            return {**stage.cwl_file(refs[value["file_id"]]), **extra}
        return {key: resolve(item, stage, refs) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [resolve(item, stage, refs) for item in value]
    return value


def file_ids(value: Any) -> set[int]:
    """Ids of all catalog files that a CWL value names."""
    if isinstance(value, Mapping):
        if value.get("class") == "File" and "file_id" in value:
            return {value["file_id"]}
        return set().union(*(file_ids(item) for item in value.values()))
    if isinstance(value, list | tuple):
        return set().union(*(file_ids(item) for item in value))
    return set()
