"""The local driver: a storage is a directory of a POSIX file system."""

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from catalog.checksums import Hasher, file_checksum, read_blocks
from catalog.drivers.posix import fsync_path, partial_name, publish
from catalog.drivers.protocol import ObjectInfo, Stored
from catalog.errors import BadInput, ErrorCode, StorageError
from catalog.names import check_path

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR})
_MODE = 0o444
_TRIES = 100


class LocalDriver:
    """A storage that is the directory `root`; its files are read-only once stored."""

    def __init__(self, name: str, root: Path) -> None:
        self.name, self.root = name, root

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
        name; else it is copied to a partial file beside the final one, which is then published.
        """
        final = self._path(path)
        check_source(source)
        with self._errors(path, writing=True):
            stored = self._put(source, final, checksum, move, sync)
            if move:
                source.unlink(missing_ok=True)
        return stored

    def sync(self, paths: Sequence[str]) -> None:
        """Have the files' bytes, and their names in their folders, on the disk."""
        with self._errors(paths[0] if paths else "", writing=True):
            files = [self._path(path) for path in paths]
            for file in files:
                fsync_path(file)
            for folder in {file.parent for file in files}:
                fsync_path(folder)

    def get(self, path: str, target: Path, *, link: bool = False) -> None:
        """Make `target` a copy of what is under `path`, or with `link` a symbolic link to it.

        Raises `StorageError` `NODE_DISK_FULL` where the target's disk has no space.
        """
        source = self._path(path)
        with self._errors(path), source.open("rb", buffering=0) as reader:
            if not stat.S_ISREG(os.fstat(reader.fileno()).st_mode):
                raise FileNotFoundError(errno.ENOENT, "not a regular file", str(source))
            if link:
                target.symlink_to(source)
            else:
                _copy_out(path, reader.readinto, target)

    def open(self, path: str) -> BinaryIO:
        """The bytes under `path`."""
        with self._errors(path):
            return self._path(path).open("rb")

    def delete(self, path: str) -> bool:
        """Remove what is under `path`, and the folders that this leaves empty."""
        final = self._path(path)
        with self._errors(path):
            try:
                final.unlink()
            except FileNotFoundError:
                self._check_root()
                return False
            with suppress(FileNotFoundError):
                fsync_path(final.parent)
        for folder in final.parents:
            if folder == self.root:
                break
            try:
                folder.rmdir()
            except OSError:
                break
        return True

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
        self, source: Path, final: Path, algorithm: str | None, move: bool, sync: bool
    ) -> Stored:
        for tries in range(_TRIES):
            try:
                if tries:
                    self._make_folder(final.parent)
                if move and _can_take(source, final.parent):
                    return _take(source, final, algorithm, sync)
                return _copy_in(source, final, algorithm, sync)
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
        if error.errno in _ABSENT and not writing:
            return StorageError(ErrorCode.INPUT_MISSING, f"{what}; the bytes are not there.")
        return StorageError(
            ErrorCode.STORAGE_UNAVAILABLE, f"{what}; check the directory and its permissions."
        )


def check_source(source: Path) -> None:
    """Raise `StorageError` or `BadInput` for what is no file that can be stored."""
    try:
        found = source.stat()
    except FileNotFoundError as error:
        raise StorageError(
            ErrorCode.INPUT_MISSING, f"{source} is not there, so it can't be stored."
        ) from error
    if not stat.S_ISREG(found.st_mode):
        raise BadInput(f"{source} is no regular file, so it can't be stored.")


def _can_take(source: Path, folder: Path) -> bool:
    """Whether a link to `source` in `folder` would be the file's only other name, and ours."""
    found = source.lstat()
    return (
        stat.S_ISREG(found.st_mode)
        and found.st_nlink == 1
        and found.st_dev == folder.stat().st_dev
        and os.geteuid() in (0, found.st_uid)
    )


def _take(source: Path, final: Path, algorithm: str | None, sync: bool) -> Stored:
    source.chmod(_MODE)
    checksum = file_checksum(source, algorithm) if algorithm else None
    size_bytes = source.stat().st_size
    if sync:
        fsync_path(source)
    publish(source, final)
    if sync:
        fsync_path(final.parent)
    return Stored(size_bytes, checksum)


def _copy_in(source: Path, final: Path, algorithm: str | None, sync: bool) -> Stored:
    if os.path.lexists(final):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final))
    hasher = Hasher(algorithm) if algorithm else None
    size_bytes = 0
    partial = final.with_name(partial_name())
    try:
        with source.open("rb", buffering=0) as reader, partial.open("xb", buffering=0) as writer:
            for block in read_blocks(reader.readinto):
                if hasher:
                    hasher.update(block)
                size_bytes += _write_all(writer.write, block)
            os.fchmod(writer.fileno(), _MODE)
            if sync:
                os.fsync(writer.fileno())
        publish(partial, final)
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()
    if sync:
        fsync_path(final.parent)
    return Stored(size_bytes, hasher.checksum if hasher else None)


def _copy_out(path: str, readinto: Callable[[memoryview], int | None], target: Path) -> None:
    writer = target.open("xb", buffering=0)
    try:
        with writer:
            for block in read_blocks(readinto):
                try:
                    _write_all(writer.write, block)
                except OSError as error:
                    if error.errno not in _FULL:
                        raise
                    raise StorageError(
                        ErrorCode.NODE_DISK_FULL,
                        f"no space left for {target} while {path!r} was copied; free some there.",
                    ) from error
    except BaseException:
        target.unlink()
        raise


def _write_all(write: Callable[[memoryview], int | None], block: memoryview) -> int:
    done = 0
    while done < len(block):
        done += write(block[done:]) or 0
    return done


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
