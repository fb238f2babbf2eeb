"""Intake: files of this machine measured, and registered in a dataset."""

import os
import stat
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from sqlmodel import Session

from catalog import answering, datasets, files
from catalog.bulk import chunks
from catalog.checksums import DEFAULT, algorithm_of, check_algorithm, normalise
from catalog.datasets import Member
from catalog.drivers import StorageDriver, driver_for, undo
from catalog.drivers.posix import partial_name
from catalog.errors import BadInput, Conflict, ErrorCode, StorageError
from catalog.files import NewFileRow
from catalog.models import StorageKind, StorageRole
from catalog.names import check_path
from catalog.stamps import Reading, read_file
from catalog.storages import StorageInfo

THREADS = 4
_WINDOW = 256


@dataclass(frozen=True)
class Expected:
    """What the user says of a file, to be compared with what it is; None is not compared."""

    size_bytes: int | None = None
    checksum: str | None = None


@dataclass(frozen=True)
class Measured:
    """A file that was read: where it lies, on which storage and how it is to be registered.

    `copied` says that its bytes are a copy made just now, not an original.
    """

    source: Path
    storage_id: int
    row: NewFileRow
    copied: bool = False


def measure(
    paths: Sequence[Path],
    storages: Sequence[StorageInfo],
    *,
    algorithm: str = DEFAULT,
    expected: Mapping[Path, Expected] | None = None,
) -> list[Measured]:
    """Size and checksum of files that lie on local storages, read by a few threads.

    Each is named by its path on the innermost storage that holds it, in that storage's scope.
    `expected` is by the paths as given; a file gets the checksum that is expected of it. Raises
    `BadInput` for what is no regular file, lies on no storage, or is not what was expected,
    `StorageError` where its storage doesn't answer; another one that doesn't is in nobody's way.
    """
    check_algorithm(algorithm)
    roots = _roots(storages, paths)
    located = [_locate(path, roots) for path in paths]
    found = _read(paths, algorithm, expected or {})
    return [
        Measured(path, storage.id, _row(storage, name, size_bytes, reading))
        for path, (storage, name), (size_bytes, reading) in zip(paths, located, found, strict=True)
    ]


def copy_in(
    paths: Sequence[Path],
    storage: StorageInfo,
    folder: str,
    *,
    algorithm: str = DEFAULT,
    expected: Mapping[Path, Expected] | None = None,
) -> list[Measured]:
    """Copy files into `folder` of a storage and measure them on the way, in one read.

    On a local storage they have names of their own until all are whole: where one is not as
    expected, none is seen by others, who may have the same files. On others those that are whole
    stay. A copy of an earlier try stays if it has the same bytes. Raises as `measure` does.
    """
    check_algorithm(algorithm)
    check_path("folder", folder)
    names = [f"{folder}/{check_path('file name', path.name)}" for path in paths]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise BadInput(f"two of the files would both be {twice!r}; copy them in two steps.")
    wanted = _claims(paths, expected or {})
    driver = driver_for(storage)
    measured = []
    staged: dict[str, str] = {}
    try:
        for path, name, claim in zip(paths, names, wanted, strict=True):
            found = _put(driver, path, name, claim, algorithm, staged)
            size_bytes, reading = found or _there(driver, path, name, claim, algorithm)
            row = _row(storage, name, size_bytes, reading)
            measured.append(Measured(path, storage.id, row, copied=found is not None))
        return [_published(driver, item, staged) for item in measured]
    finally:
        undo(driver, staged.values())


def aligned(measured: Sequence[Measured], known: Mapping[tuple[str, str], str]) -> list[Measured]:
    """Files whose checksum is of another kind than the catalog's `known` one, read once more.

    By scope and name: the same bytes are the same file, whichever checksum was given of them.
    """
    found = []
    for item in measured:
        row = item.row
        there = known.get((row.scope, row.name), row.checksum)
        if algorithm_of(there) != algorithm_of(row.checksum):
            claim = Expected(size_bytes=row.size_bytes)
            _, reading = _read_one(item.source, claim, algorithm_of(there))
            stamp = row.stamp if item.copied else reading.stamp
            item = replace(item, row=replace(row, checksum=reading.checksum, stamp=stamp))
        found.append(item)
    return found


def add(session: Session, dataset_id: int, measured: Sequence[Measured]) -> int:
    """Register measured files and attach them to a dataset; gives how many were new to it.

    Raises `Conflict` and `StateConflict` as `files.register` and `datasets.attach` do.
    """
    ids: dict[int, int] = {}
    for storage_id, copied in sorted({(item.storage_id, item.copied) for item in measured}):
        mine = [
            (i, item.row)
            for i, item in enumerate(measured)
            if (item.storage_id, item.copied) == (storage_id, copied)
        ]
        rows = [row for _, row in mine]
        new = files.register(session, storage_id, rows, in_place=not copied)
        ids.update(zip((i for i, _ in mine), new, strict=True))
    members = [Member(ids[i], item.row.name) for i, item in enumerate(measured)]
    return datasets.attach(session, dataset_id, members)


def _roots(
    storages: Sequence[StorageInfo], paths: Sequence[Path]
) -> list[tuple[Path, StorageInfo]]:
    """Directories of local storages that answer, the innermost first; see `measure`."""
    local = [storage for storage in storages if storage.kind is StorageKind.LOCAL]
    hanging = answering.hanging(storage.url for storage in local)
    for storage in local:
        if storage.url in hanging and any(path.is_relative_to(storage.url) for path in paths):
            raise StorageError(
                ErrorCode.STORAGE_UNAVAILABLE, f"{answering.words(storage.name, storage.url)}."
            )
    found = [(Path(s.url).resolve(), s) for s in local if s.url not in hanging]
    return sorted(found, key=lambda pair: len(pair[0].parts), reverse=True)


def _locate(path: Path, roots: Sequence[tuple[Path, StorageInfo]]) -> tuple[StorageInfo, str]:
    """The storage on which a file lies, and its path there."""
    _check_regular(path)
    real = path.parent.resolve() / path.name
    for root, storage in roots:
        if real.is_relative_to(root):
            return storage, check_path("file name", real.relative_to(root).as_posix())
    raise BadInput(
        f"{path} lies on no storage; `spdf storage add NAME {real.parent} "
        f"--role {StorageRole.INPUT}` makes its directory one, "
        "`--copy-to STORAGE` copies the file to one."
    )


def _check_regular(path: Path) -> os.stat_result:
    try:
        found = path.lstat()
    except OSError as error:
        raise BadInput(f"{path} can't be read ({error.strerror}); check the path.") from error
    if stat.S_ISLNK(found.st_mode):
        raise BadInput(
            f"{path} is a symbolic link; give the file itself, {path.resolve()}, instead."
        )
    if stat.S_ISDIR(found.st_mode):
        raise BadInput(
            f"{path} is a directory; give the files in it, or --pattern for those that fit."
        )
    if not stat.S_ISREG(found.st_mode):
        raise BadInput(f"{path} is no regular file; only such can be registered.")
    return found


def _read(
    paths: Sequence[Path], algorithm: str, expected: Mapping[Path, Expected]
) -> list[tuple[int, Reading]]:
    """Size of each file, and what was read of it, which are what is expected of it.

    A window of files is read at a time, so that the first fault ends the reading soon.
    """
    wanted = _claims(paths, expected)
    found: list[tuple[int, Reading]] = []
    with ThreadPoolExecutor(THREADS, thread_name_prefix="measure") as pool:
        for pairs in chunks(list(zip(paths, wanted, strict=True)), _WINDOW):
            found += pool.map(lambda pair: _read_one(pair[0], pair[1], algorithm), pairs)
    return found


def _claims(paths: Sequence[Path], expected: Mapping[Path, Expected]) -> list[Expected]:
    """What is expected of each file; checked as far as that goes without reading."""
    wanted = [expected.get(path, Expected()) for path in paths]
    for path, claim in zip(paths, wanted, strict=True):
        _check_size(path, claim, _check_regular(path).st_size)
        if claim.checksum is not None:
            normalise(claim.checksum)
    return wanted


def _check_size(path: Path, claim: Expected, size_bytes: int) -> None:
    if claim.size_bytes is not None and claim.size_bytes != size_bytes:
        raise BadInput(
            f"{path} has {size_bytes} bytes, not the {claim.size_bytes} given; "
            "check the file, or the list it is in."
        )


def _read_one(path: Path, claim: Expected, algorithm: str) -> tuple[int, Reading]:
    before = _check_regular(path)
    _check_size(path, claim, before.st_size)
    try:
        found = read_file(path, _algorithm(claim, algorithm))
    except OSError as error:
        raise BadInput(f"{path} can't be read ({error.strerror}); check it.") from error
    _check_read(path, claim, before, found.checksum)
    return before.st_size, found


def _algorithm(claim: Expected, algorithm: str) -> str:
    return algorithm if claim.checksum is None else algorithm_of(normalise(claim.checksum))


def _check_read(path: Path, claim: Expected, before: os.stat_result, checksum: str) -> None:
    """Raise `BadInput` where what was read isn't all of one state, or not what is expected."""
    after = _check_regular(path)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise BadInput(f"{path} changed while it was read; add it once it is complete.")
    if claim.checksum is not None and checksum != normalise(claim.checksum):
        raise BadInput(
            f"{path} has the checksum {checksum}, not the {normalise(claim.checksum)} given; "
            "check the file, or the list it is in."
        )


def _put(
    driver: StorageDriver,
    path: Path,
    name: str,
    claim: Expected,
    algorithm: str,
    staged: dict[str, str],
) -> tuple[int, Reading] | None:
    """Copy one file; its size and what was read of it, None where something is there already.

    A name of its own that it has until it gets its final one is noted in `staged`.
    """
    before = _check_regular(path)
    if not os.access(path, os.R_OK):
        raise BadInput(f"{path} can't be read; check its permissions.")
    place, final = name, driver.local_path(name)
    if final is not None:
        if os.path.lexists(final):
            return None
        place = staged[name] = f"{name.rpartition('/')[0]}/{partial_name()}"
    try:
        stored = driver.put(path, place, checksum=_algorithm(claim, algorithm))
    except StorageError as error:
        if error.code is not ErrorCode.OUTPUT_EXISTS:
            raise
        return None
    assert stored.checksum is not None
    try:
        _check_read(path, claim, before, stored.checksum)
    except BaseException:
        if place == name:
            undo(driver, [name])
        raise
    return stored.size_bytes, Reading(stored.checksum, stored.stamp)


def _published(driver: StorageDriver, item: Measured, staged: dict[str, str]) -> Measured:
    """Give a copy its final name, unless the same bytes have come there meanwhile."""
    name = item.row.path
    own = driver.local_path(staged[name]) if name in staged else None
    if own is None:
        return item
    try:
        driver.put(own, name, move=True)
    except StorageError as error:
        if error.code is not ErrorCode.OUTPUT_EXISTS:
            raise
        row = item.row
        found = _check_there(driver, item.source, name, row.size_bytes, row.checksum)
        return replace(item, row=replace(row, stamp=found.stamp), copied=False)
    del staged[name]
    return item


def _there(
    driver: StorageDriver, path: Path, name: str, claim: Expected, algorithm: str
) -> tuple[int, Reading]:
    """Size and reading of a file whose bytes are on the storage already; else `Conflict`."""
    size_bytes, mine = _read_one(path, claim, algorithm)
    return size_bytes, _check_there(driver, path, name, size_bytes, mine.checksum)


def _check_there(
    driver: StorageDriver, path: Path, name: str, size_bytes: int, checksum: str
) -> Reading:
    """What was read on the storage, which is the same."""
    if driver.stat(name).size_bytes == size_bytes:
        found = driver.read(name, algorithm_of(checksum))
        if found.checksum == checksum:
            return found
    raise Conflict(f"the storage has another file under {name!r} already; rename {path}.")


def _row(storage: StorageInfo, name: str, size_bytes: int, found: Reading) -> NewFileRow:
    return NewFileRow(storage.name, name, name, size_bytes, found.checksum, found.stamp, read=True)
