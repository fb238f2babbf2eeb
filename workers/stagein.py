"""Stage-in: catalog files become local paths, checked against what the catalog says of them."""

import errno
import os
import stat
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from catalog.checksums import algorithm_of
from catalog.drivers import StorageDriver
from catalog.drivers.posix import EXHAUSTED
from catalog.errors import ERRORS, ErrorClass, ErrorCode, StorageError
from catalog.refs import FileRef, ReplicaRef
from catalog.stamps import Stamp, of_stat, read_file, same_time
from workers.node import Node
from workers.onefile import reading
from workers.patience import naming, patiently
from workers.probe import check_disk


class StageInError(StorageError):
    """An input could not be had. `file_id` names it; `bad` is the copy that is to blame."""

    def __init__(
        self, code: ErrorCode, message: str, file_id: int, storage_id: int | None = None
    ) -> None:
        self.file_id, self.storage_id = file_id, storage_id
        self.bad: ReplicaRef | None = None
        super().__init__(code, message)


@dataclass(frozen=True)
class Staged:
    """A local file that a payload reads; `linked` is that of a storage, not a copy of ours.

    `copy` is the one of the catalog file's copies that it was made of.
    """

    file_id: int
    copy: ReplicaRef
    path: Path
    linked: bool
    stamp: tuple[int, int, int]

    def changed(self) -> bool:
        """Whether somebody wrote to it since."""
        try:
            return _stamp(_stat(self.path)) != self.stamp
        except FileNotFoundError:
            return True


class StageIn:
    """Brings files to one directory, each at most once."""

    def __init__(self, node: Node, directory: Path, stop: threading.Event | None = None) -> None:
        self._node, self._directory, self._stop = node, directory, stop
        self.staged: dict[int, Staged] = {}
        self.bad: list[ReplicaRef] = []
        """Copies that proved bad, of files of which another copy was good here."""
        self._stamped: list[ReplicaRef] = []

    def told(self) -> tuple[ReplicaRef, ...]:
        """Copies that were read and are whole, with the stamps that their rows lack; each once."""
        told, self._stamped = self._stamped, []
        return tuple(told)

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
        return patiently(lambda: self._from_any(ref), self._node, stop=self._stop)

    def _from_any(self, ref: FileRef) -> Staged:
        """The file from the first of its replicas that gives it whole.

        Where none does, what may pass is said: an outage before all. And where none is good, one
        copy is told to be bad at the most: it may be this node that can't read.
        """
        faults: list[StorageError] = []
        bad: list[ReplicaRef] = []
        for replica in ref.replicas:
            try:
                with naming(replica.storage_id):
                    driver = self._node.storages[replica.storage_id]
                    with reading(driver, replica.path, ref.name):
                        staged = self._from(ref, replica, driver)
            except StorageError as error:
                faults.append(error)
                if error.code is ErrorCode.INPUT_CORRUPT:
                    bad.append(replica)
                continue
            self.bad += bad
            return staged
        fault = min(faults, key=_finality)
        told = StageInError(fault.code, str(fault), ref.file_id, fault.storage_id)
        told.bad = bad[0] if bad else None
        raise told from fault

    def _from(self, ref: FileRef, replica: ReplicaRef, driver: StorageDriver) -> Staged:
        local = driver.local_path(replica.path)
        if local is not None:
            try:
                return self._linked(ref, replica, local, driver)
            except OSError as error:
                # The driver knows a file that is gone from a storage that is.
                driver.stat(replica.path)
                raise _unreadable(ref, local, error) from error
        target = self._directory / str(ref.file_id) / ref.basename
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            found = driver.fetch(replica.path, target, algorithm_of(ref.checksum))
        except StorageError as error:
            if error.of_path:
                check_disk(target.parent)
            raise
        try:
            _check_copy(ref, target, found.checksum)
        except StageInError:
            driver.check()
            raise
        self._note(replica, found.stamp)
        return Staged(ref.file_id, replica, target, False, _stamp(_stat(target)))

    def _linked(
        self, ref: FileRef, replica: ReplicaRef, path: Path, driver: StorageDriver
    ) -> Staged:
        try:
            there = _check(ref, path)
            if self._node.verify_linked or not _is_believed(replica, there):
                found = read_file(path, algorithm_of(ref.checksum))
                _check_sum(ref, path, found.checksum)
                self._note(replica, found.stamp)
        except StageInError:
            # Nothing is said of a file before it is plain that this is its storage.
            driver.check()
            raise
        return Staged(ref.file_id, replica, path, True, _stamp(there))

    def _note(self, replica: ReplicaRef, stamp: Stamp | None) -> None:
        """Remember with what a copy was read, unless its row says so already."""
        if stamp is None:
            return
        if replica.mtime_us is None or not same_time(replica.mtime_us, stamp.mtime_us):
            self._stamped.append(replace(replica, mtime_us=stamp.mtime_us))


def _is_believed(replica: ReplicaRef, there: os.stat_result) -> bool:
    """Whether a copy of the right size needn't be read: it has its stamp, or never had one."""
    return replica.mtime_us is None or same_time(replica.mtime_us, of_stat(there).mtime_us)


def _unreadable(ref: FileRef, path: Path, error: OSError) -> StorageError:
    what = f"file {ref.name!r} at {path} can't be read here: {error.strerror or error}."
    if error.errno in EXHAUSTED:
        return StorageError(ErrorCode.NODE_EXHAUSTED, what)
    return StorageError(ErrorCode.STORAGE_UNAVAILABLE, what, of_path=True)


def _finality(error: StorageError) -> int:
    kind = ERRORS[error.code].error_class
    return 0 if kind is ErrorClass.OUTAGE else 1 if kind is ErrorClass.TRANSIENT else 2


def _check_copy(ref: FileRef, path: Path, checksum: str | None) -> None:
    """Check a file that was fetched, and take it away again if it isn't what it should be."""
    try:
        _check(ref, path)
        _check_sum(ref, path, checksum)
    except StageInError:
        path.unlink()
        raise
    path.chmod(0o444)


def _check(ref: FileRef, path: Path) -> os.stat_result:
    """A file that has the catalog's size, as it is. Raises `OSError` where it can't be had."""
    found = _stat(path)
    if not os.access(path, os.R_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    if found.st_size != ref.size_bytes:
        raise StageInError(
            ErrorCode.INPUT_CORRUPT,
            f"file {ref.name!r} has {found.st_size} bytes at {path}, the catalog says "
            f"{ref.size_bytes}",
            ref.file_id,
        )
    return found


def _check_sum(ref: FileRef, path: Path, found: str | None) -> None:
    if found != ref.checksum:
        raise StageInError(
            ErrorCode.INPUT_CORRUPT,
            f"file {ref.name!r} has checksum {found} at {path}, the catalog says {ref.checksum}",
            ref.file_id,
        )


def _name_parts(basename: str) -> dict[str, str]:
    """CWL's nameroot and nameext: the extension is what follows the last dot but a leading one."""
    root, extension = os.path.splitext(basename)  # noqa: PTH122
    return {"nameroot": root, "nameext": extension}


def _stat(path: Path) -> os.stat_result:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise FileNotFoundError(errno.ENOENT, "no regular file", str(path))
    return found


def _stamp(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_size, found.st_mtime_ns, found.st_ino


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
