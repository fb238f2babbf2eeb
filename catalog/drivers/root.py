"""The directory of a local storage, and whether it is the one that the catalog means."""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from catalog import answering
from catalog.drivers.identity import Identity, require
from catalog.drivers.marker import MOST_BYTES
from catalog.drivers.posix import EXHAUSTED, fsync_path, partial_name, publish, steadily
from catalog.errors import ErrorCode, StorageError
from catalog.names import MARKER

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR})
"""What is said where no file has a path."""
_MODE = 0o644
"""A marker's owner writes claims into it."""


class Root:
    """The directory `path`; with an `identity` its marker says whether it is itself."""

    def __init__(self, name: str, path: Path, identity: Identity | None) -> None:
        self.name, self.path, self.identity = name, path, identity
        self._seen: tuple[int, int] | None = None

    def check(self, *, marked: bool = False) -> None:
        """Raise `StorageError` where it isn't there, or isn't itself; see `StorageDriver.check`."""
        answering.require(self.name, self.path)
        with self.held(marked=marked):
            pass

    def is_absent(self, path: str) -> bool:
        """Whether no file is under a path that has just been looked for in vain.

        Looked for on what is the storage at that very moment. Raises as `check` does.
        """
        answering.require(self.name, self.path, lately=True)
        with self.held() as root:
            try:
                found = steadily(lambda: os.stat(path, dir_fd=root))
                return not stat.S_ISREG(found.st_mode)
            except OSError as error:
                return error.errno in ABSENT

    def glance(self) -> None:
        """As `check`, by one `stat` where the directory is the one that was looked at before."""
        if self.identity is None:
            return
        try:
            found = steadily(self.path.stat)
        except OSError as error:
            raise self._away(error) from error
        place = (found.st_dev, found.st_ino)
        if place != self._seen:
            self.check()
            self._seen = place

    @contextmanager
    def held(self, *, marked: bool = False) -> Iterator[int]:
        """A descriptor of the directory, which is itself: whatever is mounted there meanwhile.

        What is looked for by it, and isn't there, isn't on the storage.
        """
        with self._opened() as descriptor:
            if marked or self.identity is not None:
                found = self._read(MARKER, descriptor)
                require(self.name, str(self.path), self.identity, found, marked=marked)
            yield descriptor

    def read_marker(self, folder: str) -> bytes | None:
        """The marker in a folder of it; None where there is none."""
        answering.require(self.name, self.path)
        with self._opened() as descriptor:
            return self._read(f"{folder}/{MARKER}" if folder else MARKER, descriptor)

    def write_marker(self, text: bytes, *, before: bytes | None) -> None:
        """Write the marker where there is none, or in the place of the one that says `before`.

        Raises `StorageError`: `OUTPUT_EXISTS` where another one is there by now.
        """
        answering.require(self.name, self.path)
        final = self.path / MARKER
        partial = self.path / partial_name()
        try:
            with self._opened():
                partial.write_bytes(text)
                partial.chmod(_MODE)
                fsync_path(partial)
                if before is None:
                    publish(partial, final)
                else:
                    self._replace(final, partial, before)
                fsync_path(self.path)
        except FileExistsError as error:
            raise self._changed() from error
        except OSError as error:
            code = (
                ErrorCode.STORAGE_DENIED
                if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
                else ErrorCode.STORAGE_UNAVAILABLE
            )
            raise StorageError(
                code, f"storage {self.name!r}: {final} can't be written ({error.strerror})."
            ) from error
        finally:
            with suppress(OSError):
                partial.unlink()

    def _replace(self, final: Path, partial: Path, before: bytes) -> None:
        """Writers of claims wait for each other at the marker's own lock."""
        with final.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if file.read(MOST_BYTES) != before or not _is(final, file.fileno()):
                raise self._changed()
            partial.replace(final)

    def _changed(self) -> StorageError:
        return StorageError(
            ErrorCode.OUTPUT_EXISTS,
            f"storage {self.name!r}: another has written {self.path / MARKER} meanwhile.",
        )

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """The directory, whatever its marker says."""
        try:
            descriptor = steadily(lambda: os.open(self.path, _FOLDER))
        except OSError as error:
            raise self._away(error) from error
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _read(self, path: str, descriptor: int) -> bytes | None:
        def text() -> bytes:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=descriptor)
            with os.fdopen(file, "rb") as stream:
                return stream.read(MOST_BYTES)

        try:
            return steadily(text)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StorageError(
                ErrorCode.STORAGE_UNAVAILABLE,
                f"storage {self.name!r}: its marker {self.path / path} can't be read "
                f"({error.strerror}); let the user that spdf runs as read it.",
            ) from error

    def _away(self, error: OSError) -> StorageError:
        if error.errno in EXHAUSTED:
            return StorageError(
                ErrorCode.NODE_EXHAUSTED,
                f"storage {self.name!r} can't be looked at: {error.strerror}, on this machine.",
            )
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return StorageError(
                ErrorCode.STORAGE_UNAVAILABLE,
                f"storage {self.name!r}: its directory {self.path} is not there; mount or make it.",
            )
        return StorageError(
            ErrorCode.STORAGE_UNAVAILABLE,
            f"storage {self.name!r}: its directory {self.path} can't be opened "
            f"({error.strerror}); check the mount and its permissions.",
        )


def _is(path: Path, descriptor: int) -> bool:
    """Whether an open file is the one under `path`."""
    return os.path.samestat(path.stat(), os.fstat(descriptor))
