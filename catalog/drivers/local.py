"""The local driver: a storage is a directory of a POSIX file system."""

import errno
import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

from catalog import uncached
from catalog.checksums import stream_checksum
from catalog.drivers.identity import Identity
from catalog.drivers.posix import (
    EXHAUSTED,
    LARGE_BYTES,
    NO_LINKS,
    fsync_path,
    start_writeback,
    steadily,
)
from catalog.drivers.protocol import NOTHING_SEEN, ObjectInfo, Passed, Stored, Unread
from catalog.drivers.root import ABSENT, Root
from catalog.drivers.storing import FULL, can_take, check_source, copy_in, copy_out, take
from catalog.drivers.unlinking import open_folder, prune, sync_folder, unlink, unlink_seen
from catalog.drivers.walk import info_of, walk
from catalog.errors import ErrorCode, OtherBytes, StorageError
from catalog.names import check_path
from catalog.stamps import Reading, reading, settled

log = logging.getLogger(__name__)

R = TypeVar("R")

_UNFIT = frozenset({errno.ENAMETOOLONG, errno.EFBIG, errno.EILSEQ})
"""What a file system says of a file that it can't have, whatever room there is."""
_TRIES = 100
_OPEN_AT_ONCE = 128
"""Files that are synced together."""


class LocalDriver:
    """A storage that is the directory `root`; its files are read-only once stored.

    With an `identity` nothing is written, listed or told to be absent where the directory isn't the
    one that has it.
    """

    def __init__(self, name: str, root: Path, identity: Identity | None = None) -> None:
        self.name, self.root, self.shared = name, root, False
        self._itself = Root(name, root, identity)
        self._apart = False

    def check(self, *, marked: bool = False) -> None:
        """Raise `StorageError` where the directory is away: see `StorageDriver.check`."""
        self._itself.check(marked=marked)

    def read_marker(self, folder: str = "") -> bytes | None:
        """The marker of the storage, or of another whose root is that folder of it."""
        return self._itself.read_marker(check_path("folder", folder) if folder else "")

    def write_marker(self, text: bytes, *, before: bytes | None = None) -> None:
        """Write the marker: see `StorageDriver.write_marker`."""
        self._itself.write_marker(text, before=before)

    def put(
        self,
        source: Path,
        path: str,
        *,
        checksum: str | None = None,
        move: bool = False,
        keep: bool = False,
        sync: bool = True,
    ) -> Stored:
        """Store a local file under `path`: see `StorageDriver.put`.

        A file that is moved in is renamed where it lies on the same file system and has no other
        name; else it is copied to a partial file beside the final one, which is then published
        (a large one shares its blocks with the source where the file system can do that).
        """
        final = self._path(path)
        size_bytes = check_source(source)
        self._itself.glance()
        with self._errors(path, writing=True):
            # The committer syncs many small files at once; a large one would keep it from others.
            now = sync or size_bytes >= LARGE_BYTES
            stored = self._in_folder(
                final, lambda: self._put(source, final, size_bytes, checksum, move, keep, now)
            )
            if move and not keep:
                source.unlink(missing_ok=True)
        return stored

    def put_again(self, held: str, path: str) -> bool:
        """Give a stored file another name: see `StorageDriver.put_again`."""
        source, final = self._path(held), self._path(path)
        self._itself.glance()
        with self._errors(path, writing=True):
            return self._in_folder(final, lambda: _linked(source, final))

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

        def copy() -> str | None:
            with source.open("rb", buffering=0) as reader:
                found = os.fstat(reader.fileno())
                if not stat.S_ISREG(found.st_mode):
                    raise FileNotFoundError(errno.ENOENT, "not a regular file", str(source))
                if not link:
                    return copy_out(path, reader, found.st_size, target, checksum)
                found_sum = stream_checksum(reader.readinto, checksum) if checksum else None
                target.symlink_to(source)
                return found_sum

        with self._errors(path):
            return steadily(copy)

    def fetch(self, path: str, target: Path, algorithm: str) -> Reading:
        """As `get` of a copy with a checksum: see `StorageDriver.fetch`."""
        source = self._path(path)

        def copy() -> Reading:
            with source.open("rb", buffering=0) as reader:
                before = os.fstat(reader.fileno())
                checksum = copy_out(path, reader, before.st_size, target, algorithm)
                assert checksum is not None
                return Reading(checksum, settled(before, os.fstat(reader.fileno())))

        with self._errors(path):
            return steadily(copy)

    def open(self, path: str) -> BinaryIO:
        """The bytes under `path`."""
        with self._errors(path):
            return steadily(lambda: self._path(path).open("rb"))

    def delete(self, path: str) -> bool:
        """Remove what is under `path`, and the folders that this leaves empty."""
        check_path("path", path)
        with self._errors(path), self._itself.held() as root:
            there = unlink(path, root)
            folder = path.rpartition("/")[0]
            with suppress(FileNotFoundError, NotADirectoryError):
                sync_folder(folder, root)
            prune(folder, root)
        return there

    def delete_many(
        self, paths: Iterable[str], seen: Mapping[str, ObjectInfo] = NOTHING_SEEN
    ) -> dict[str, StorageError]:
        """Remove what is under `paths`; each folder is synced once. See `StorageDriver`."""
        folders: dict[str, dict[str, str]] = {}
        for path in paths:
            folder, _, name = check_path("path", path).rpartition("/")
            folders.setdefault(folder, {})[name] = path
        faults: dict[str, StorageError] = {}
        for folder, inside in folders.items():
            try:
                with self._errors(folder), self._itself.held() as root:
                    faults |= self._unlink_in(folder, inside, root, seen)
                    prune(folder, root)
            except StorageError as error:
                faults |= dict.fromkeys(inside.values(), error)
        return faults

    def _unlink_in(
        self, folder: str, names: Mapping[str, str], root: int, seen: Mapping[str, ObjectInfo]
    ) -> dict[str, StorageError]:
        """Remove files of one folder, given by their names with their paths."""
        try:
            descriptor = open_folder(folder, root)
        except (FileNotFoundError, NotADirectoryError):
            # Also where a file has the name of the folder, or of one above it.
            return {}
        faults: dict[str, StorageError] = {}
        try:
            for name, path in names.items():
                try:
                    what = unlink_seen(path, name, descriptor, seen.get(path))
                    if what is not None:
                        faults[path] = OtherBytes(self.name, path, what)
                except FileNotFoundError:
                    pass  # Perhaps it went by a try whose sync failed.
                except OSError as error:
                    faults[path] = self._explain(path, error, False)
            # By its descriptor: another may have found the folder empty, and removed it.
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return faults

    def list(
        self, prefix: str = "", *, unread: Unread | None = None, passed: Passed | None = None
    ) -> Iterator[ObjectInfo]:
        """All regular files whose path begins with `prefix`; symbolic links are passed over.

        Partial files that a crash left behind are listed too, so that they can be found.
        """
        self.check()
        folder, _, start = prefix.rpartition("/")
        if folder:
            check_path("prefix", folder)

        def tell(path: str, error: OSError) -> None:
            fault = self._explain(path, error, False)
            if path == "":
                raise fault from error
            if unread is not None:
                unread(path, fault)
            else:
                log.warning("not listed", extra={"why": str(fault)})

        base = f"{folder}/" if folder else ""
        yield from walk(self.root / folder, base, start, tell, passed)
        # What was unmounted meanwhile looks like an end.
        self.check()

    def stat(self, path: str) -> ObjectInfo:
        """Size and time of what is under `path`."""
        with self._errors(path):
            found = steadily(self._path(path).stat)
            if not stat.S_ISREG(found.st_mode):
                raise FileNotFoundError(errno.ENOENT, "not a regular file", path)
            return info_of(path, found)

    def checksum(self, path: str, algorithm: str) -> str:
        """`algorithm:hex` of the bytes under `path`."""
        return self.read(path, algorithm).checksum

    def read(self, path: str, algorithm: str) -> Reading:
        """As `checksum`, with the stamp of what was read."""
        place = self._path(path)

        def read() -> Reading:
            with place.open("rb", buffering=0) as file:
                descriptor = file.fileno()
                return reading(
                    descriptor, lambda: stream_checksum(uncached.reader(descriptor), algorithm)
                )

        with self._errors(path):
            return steadily(read)

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
        keep: bool,
        sync: bool,
    ) -> Stored:
        if move and not self._apart and can_take(source, final.parent):
            try:
                return take(source, final, size_bytes, algorithm, sync, keep)
            except OSError as error:
                if error.errno != errno.EXDEV and not (keep and error.errno in NO_LINKS):
                    raise
                # Two mounts of one file system, such as the volumes of a container.
                self._apart = error.errno == errno.EXDEV
        return copy_in(source, final, size_bytes, algorithm, sync)

    def _in_folder(self, final: Path, store: Callable[[], R]) -> R:
        """What `store` gives, which brings a file to `final`; its folder is made where need be."""
        for tries in range(_TRIES):
            try:
                if tries:
                    self._make_folder(final.parent)
                return store()
            except FileNotFoundError as error:
                # The folder isn't there yet, or a `delete`, which left it empty, has removed it.
                missing = error
        raise missing

    def _make_folder(self, folder: Path) -> None:
        """Make the folder and, so that a power cut can't lose it, sync each new one's parent."""
        self._itself.check()
        missing = []
        while not steadily(folder.exists):
            missing.append(folder)
            folder = folder.parent
        for folder in reversed(missing):
            # With `exist_ok` it would raise where a `delete` takes the folder just then.
            with suppress(FileExistsError):
                steadily(folder.mkdir)
            fsync_path(folder.parent)

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
        what = f"storage {self.name!r}: {self.root / path}: {error.strerror or error}"
        if error.errno in EXHAUSTED:
            return StorageError(ErrorCode.NODE_EXHAUSTED, f"{what}, on this machine.")
        if error.errno in ABSENT and not writing:
            if self._itself.is_absent(path):
                return StorageError(ErrorCode.INPUT_MISSING, f"{what}; the bytes are not there.")
        else:
            self._itself.check()
        if error.errno in _UNFIT and writing:
            return StorageError(ErrorCode.OUTPUT_INVALID, f"{what}; no such file can lie there.")
        if error.errno in FULL:
            return StorageError(ErrorCode.STORAGE_FULL, f"{what}; free some space there.")
        if error.errno == errno.EIO and writing:
            return StorageError(ErrorCode.STORAGE_FAILED, f"{what}; look after its disk.")
        return StorageError(
            ErrorCode.STORAGE_UNAVAILABLE,
            f"{what}; check the path and its permissions.",
            of_path=True,
        )


def _linked(held: Path, final: Path) -> bool:
    try:
        os.link(held, final, follow_symlinks=False)
    except FileNotFoundError:
        if held.exists():
            raise
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return False
    return True
