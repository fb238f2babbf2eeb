"""The local driver: a storage is a directory of a POSIX file system."""

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from catalog.checksums import file_checksum, stream_checksum
from catalog.drivers.filecopy import copy_file
from catalog.drivers.posix import (
    LARGE_BYTES,
    fsync_path,
    partial_name,
    publish,
    start_writeback,
    synced,
)
from catalog.drivers.protocol import ObjectInfo, Stored
from catalog.errors import BadInput, ErrorCode, StorageError
from catalog.names import check_path

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR})
_MODE = 0o444
_TRIES = 100
_OPEN_AT_ONCE = 128
"""Files that are synced together."""


class LocalDriver:
    """A storage that is the directory `root`; its files are read-only once stored."""

    def __init__(self, name: str, root: Path) -> None:
        self.name, self.root = name, root
        self._apart = False

    def put(
        self,
        source: Path,
        path: str,
        *,
        checksum: str | None = None,
        move: bool = False,
        sync: bool = True,
    ) -> Stored:
        """Store a local file under `path`: see `StorageDriver.put`.

        A file that is moved in is renamed where it lies on the same file system and has no other
        name; else it is copied to a partial file beside the final one, which is then published
        (a large one shares its blocks with the source where the file system can do that).
        """
        final = self._path(path)
        size_bytes = check_source(source)
        with self._errors(path, writing=True):
            stored = self._put(source, final, size_bytes, checksum, move, sync)
            if move:
                source.unlink(missing_ok=True)
        return stored

    def sync(self, paths: Sequence[str]) -> dict[str, StorageError]:
        """Have the files' bytes, and their names in their folders, on the disk.

        Linux tells of lost bytes once: a second try would say that all is well. The disk begins
        with all of them before one is waited for: else a file system commits its journal for each.
        """
        listed = [check_path("path", path) for path in dict.fromkeys(paths)]
        faults: dict[str, StorageError] = {}
        for start in range(0, len(listed), _OPEN_AT_ONCE):
            faults |= self._sync_files(listed[start : start + _OPEN_AT_ONCE])
        folders: dict[str, list[str]] = {}
        for path in listed:
            folders.setdefault(path.rpartition("/")[0], []).append(path)
        for folder, inside in folders.items():
            try:
                with self._errors(inside[0], writing=True):
                    fsync_path(self.root / folder)
            except StorageError as error:
                faults |= dict.fromkeys(inside, error)
        return faults

    def _sync_files(self, paths: Sequence[str]) -> dict[str, StorageError]:
        """The one descriptor of a file tells of all that goes wrong from its start to its close."""
        faults: dict[str, StorageError] = {}
        opened: dict[str, int] = {}
        for path in paths:
            try:
                with self._errors(path, writing=True):
                    opened[path] = os.open(f"{self.root}/{path}", os.O_RDONLY | os.O_CLOEXEC)
                start_writeback(opened[path], 0, 0)
            except StorageError as error:
                faults[path] = error
        for path, descriptor in opened.items():
            try:
                with self._errors(path, writing=True):
                    try:
                        os.fsync(descriptor)
                    finally:
                        os.close(descriptor)
            except StorageError as error:
                faults[path] = error
        return faults

    def get(
        self, path: str, target: Path, *, checksum: str | None = None, link: bool = False
    ) -> str | None:
        """Make `target` a copy of what is under `path`, or with `link` a symbolic link to it.

        See `StorageDriver.get`. Raises `StorageError` `NODE_DISK_FULL` where the target's disk
        has no space.
        """
        source = self._path(path)
        with self._errors(path), source.open("rb", buffering=0) as reader:
            found = os.fstat(reader.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise FileNotFoundError(errno.ENOENT, "not a regular file", str(source))
            if not link:
                return _copy_out(path, reader, found.st_size, target, checksum)
            target.symlink_to(source)
            return stream_checksum(reader.readinto, checksum) if checksum else None

    def open(self, path: str) -> BinaryIO:
        """The bytes under `path`."""
        with self._errors(path):
            return self._path(path).open("rb")

    def delete(self, path: str) -> bool:
        """Remove what is under `path`, and the folders that this leaves empty."""
        with self._errors(path):
            there = self._unlink(path)
            folder = self._path(path).parent
            with suppress(FileNotFoundError):
                fsync_path(folder)
            self._prune(folder)
        return there

    def delete_many(self, paths: Iterable[str]) -> dict[str, StorageError]:
        """Remove what is under `paths`; each folder is synced once. See `StorageDriver`."""
        folders: dict[str, dict[str, str]] = {}
        for path in paths:
            folder, _, name = check_path("path", path).rpartition("/")
            folders.setdefault(folder, {})[name] = path
        faults: dict[str, StorageError] = {}
        for folder, inside in folders.items():
            try:
                with self._errors(folder):
                    faults |= self._unlink_in(self.root / folder, inside)
                    self._prune(self.root / folder)
            except StorageError as error:
                faults |= dict.fromkeys(inside.values(), error)
        return faults

    def _unlink_in(self, folder: Path, names: Mapping[str, str]) -> dict[str, StorageError]:
        """Remove files of one folder, given by their names with their paths."""
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._check_root()
            return {}
        faults: dict[str, StorageError] = {}
        try:
            for name, path in names.items():
                try:
                    os.unlink(name, dir_fd=descriptor)
                except FileNotFoundError:
                    pass  # Perhaps it went by a try whose sync failed.
                except OSError as error:
                    faults[path] = self._explain(path, error, False)
            # By its descriptor: another may have found the folder empty, and removed it.
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return faults

    def _unlink(self, path: str) -> bool:
        try:
            self._path(path).unlink()
        except FileNotFoundError:
            self._check_root()
            return False
        return True

    def _prune(self, folder: Path) -> None:
        """Remove a folder, and those above it, where they are empty now."""
        for place in (folder, *folder.parents):
            if place == self.root:
                break
            try:
                place.rmdir()
            except OSError:
                break

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All regular files whose path begins with `prefix`; symbolic links are passed over.

        Partial files that a crash left behind are listed too, so that they can be found.
        """
        self._check_root()
        folder, _, start = prefix.rpartition("/")
        if folder:
            check_path("prefix", folder)
        with self._errors(prefix):
            yield from _walk(self.root / folder, f"{folder}/" if folder else "", start)

    def stat(self, path: str) -> ObjectInfo:
        """Size and time of what is under `path`."""
        with self._errors(path):
            found = self._path(path).stat()
            if not stat.S_ISREG(found.st_mode):
                raise FileNotFoundError(errno.ENOENT, "not a regular file", path)
            return _info(path, found)

    def checksum(self, path: str, algorithm: str) -> str:
        """`algorithm:hex` of the bytes under `path`."""
        with self._errors(path):
            return file_checksum(self._path(path), algorithm)

    def local_path(self, path: str) -> Path:
        """Where the bytes lie; they need not exist."""
        return self._path(path)

    def _path(self, path: str) -> Path:
        return self.root / check_path("path", path)

    def _put(
        self,
        source: Path,
        final: Path,
        size_bytes: int,
        algorithm: str | None,
        move: bool,
        sync: bool,
    ) -> Stored:
        # The committer syncs many small files at once; a large one would keep it from others.
        now = sync or size_bytes >= LARGE_BYTES
        for tries in range(_TRIES):
            try:
                if tries:
                    self._make_folder(final.parent)
                if move and not self._apart and _can_take(source, final.parent):
                    try:
                        return _take(source, final, size_bytes, algorithm, now)
                    except OSError as error:
                        if error.errno != errno.EXDEV:
                            raise
                        # Two mounts of one file system, such as the volumes of a container.
                        self._apart = True
                return _copy_in(source, final, size_bytes, algorithm, now)
            except FileNotFoundError as error:
                # The folder isn't there yet, or a `delete`, which left it empty, has removed it.
                missing = error
        raise missing

    def _make_folder(self, folder: Path) -> None:
        """Make the folder and, so that a power cut can't lose it, sync each new one's parent."""
        self._check_root()
        missing = []
        while not folder.exists():
            missing.append(folder)
            folder = folder.parent
        for folder in reversed(missing):
            # With `exist_ok` it would raise where a `delete` takes the folder just then.
            with suppress(FileExistsError):
                folder.mkdir()
            fsync_path(folder.parent)

    def _check_root(self) -> None:
        if not self.root.is_dir():
            raise StorageError(
                ErrorCode.STORAGE_UNAVAILABLE,
                f"storage {self.name!r}: its directory {self.root} is not there; mount or make it.",
            )

    @contextmanager
    def _errors(self, path: str, *, writing: bool = False) -> Iterator[None]:
        """Give every error of the file system its code."""
        try:
            yield
        except FileExistsError as error:
            if not writing:
                raise
            raise StorageError(
                ErrorCode.OUTPUT_EXISTS,
                f"storage {self.name!r} has something under {path!r} already; "
                "nothing is ever overwritten there.",
            ) from error
        except OSError as error:
            raise self._explain(path, error, writing) from error

    def _explain(self, path: str, error: OSError, writing: bool) -> StorageError:
        self._check_root()
        what = f"storage {self.name!r}: {self.root / path}: {error.strerror or error}"
        if error.errno in _FULL:
            return StorageError(ErrorCode.STORAGE_FULL, f"{what}; free some space there.")
        if error.errno == errno.EIO and writing:
            return StorageError(ErrorCode.STORAGE_FAILED, f"{what}; look after its disk.")
        if error.errno in _ABSENT and not writing:
            return StorageError(ErrorCode.INPUT_MISSING, f"{what}; the bytes are not there.")
        return StorageError(
            ErrorCode.STORAGE_UNAVAILABLE, f"{what}; check the directory and its permissions."
        )


def check_source(source: Path) -> int:
    """A file's size; raises `StorageError` or `BadInput` for what is none that can be stored."""
    try:
        found = source.stat()
    except FileNotFoundError as error:
        raise StorageError(
            ErrorCode.INPUT_MISSING, f"{source} is not there, so it can't be stored."
        ) from error
    if not stat.S_ISREG(found.st_mode):
        raise BadInput(f"{source} is no regular file, so it can't be stored.")
    return found.st_size


def _can_take(source: Path, folder: Path) -> bool:
    """Whether a link to `source` in `folder` would be the file's only other name, and ours."""
    found = source.lstat()
    return (
        stat.S_ISREG(found.st_mode)
        and found.st_nlink == 1
        and found.st_dev == folder.stat().st_dev
        and os.geteuid() in (0, found.st_uid)
    )


def _take(source: Path, final: Path, size_bytes: int, algorithm: str | None, sync: bool) -> Stored:
    source.chmod(_MODE)
    with source.open("rb", buffering=0) as file:
        on_disk = synced(file.fileno(), early=size_bytes >= LARGE_BYTES) if sync else nullcontext()
        with on_disk:
            checksum = stream_checksum(file.readinto, algorithm) if algorithm else None
    publish(source, final)
    if sync:
        fsync_path(final.parent)
    return Stored(size_bytes, checksum)


def _copy_in(
    source: Path, final: Path, size_bytes: int, algorithm: str | None, sync: bool
) -> Stored:
    if os.path.lexists(final):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final))
    partial = final.with_name(partial_name())
    try:
        with source.open("rb", buffering=0) as reader, partial.open("x+b", buffering=0) as writer:
            copied, checksum = copy_file(reader, writer, size_bytes, algorithm, flush=sync)
            os.fchmod(writer.fileno(), _MODE)
            if sync:
                os.fsync(writer.fileno())
        publish(partial, final)
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()
    if sync:
        fsync_path(final.parent)
    return Stored(copied, checksum)


def _copy_out(
    path: str, reader: FileIO, size_bytes: int, target: Path, algorithm: str | None
) -> str | None:
    writer = target.open("x+b", buffering=0)
    try:
        with writer:
            return copy_file(reader, writer, size_bytes, algorithm)[1]
    except BaseException as error:
        target.unlink()
        if isinstance(error, OSError) and error.errno in _FULL:
            raise StorageError(
                ErrorCode.NODE_DISK_FULL,
                f"no space left for {target} while {path!r} was copied; free some there.",
            ) from error
        raise


def _walk(folder: Path, base: str, start: str) -> Iterator[ObjectInfo]:
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith(start):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(folder / entry.name, f"{base}{entry.name}/", "")
            elif entry.is_file(follow_symlinks=False):
                with suppress(FileNotFoundError):
                    yield _info(base + entry.name, entry.stat(follow_symlinks=False))


def _info(path: str, found: os.stat_result) -> ObjectInfo:
    return ObjectInfo(path, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))
