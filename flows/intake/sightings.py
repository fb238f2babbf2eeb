"""Sightings: what a look at a storage finds that concerns one rule."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from catalog.drivers import ObjectInfo, StorageDriver
from catalog.drivers.walk import FOLDER
from catalog.errors import StorageError
from catalog.names import is_hidden
from catalog.patterns import Pattern
from catalog.refs import RefusalKind
from catalog.rule import LOST_AND_FOUND
from catalog.stamps import EARLIEST, LATEST, moment_of
from flows.intake.roles import Errand, Roles, roles_of

PAGE = 2000
_TICK = 1000
_SAMPLES, _FOLDERS = 16, 1000
_OTHERWISE = str.maketrans("0123456789", "1234567890")
"""Makes of a file's name that of another, of another run if it names one."""


@dataclass(frozen=True)
class Sighting:
    """A file of the rule, a marker, or with `refused` something that can't be taken.

    `dataset` is None where no name can be told. Times are in microseconds since 1970.
    """

    path: str
    dataset: str | None
    size_bytes: int
    mtime_us: int
    is_marker: bool = False
    refused: RefusalKind | None = None
    reason: str = ""

    @property
    def state(self) -> tuple[int, int]:
        """What differs when the thing has changed."""
        return self.size_bytes, self.mtime_us


Take = Callable[[Sequence[Sighting]], None]


def look(
    driver: StorageDriver, errand: Errand, take: Take, tick: Callable[[], None] = lambda: None
) -> None:
    """List a storage, and give what concerns the rule, page by page, in no order.

    `tick` is called now and then while the listing goes on. Raises `StorageError` where the
    storage can't be listed, `BadInput` for patterns that can't be used.
    """
    sorter = _Sorter(errand, take, roles_of(errand))
    listing = driver.list(errand.prefix, unread=sorter.unread, passed=sorter.passed)
    for number, info in enumerate(listing):
        if number % _TICK == 0:
            tick()
        sorter.file(info)
    sorter.end()


@dataclass
class _Sorter:
    """Tells what each thing of a listing is to the rule."""

    errand: Errand
    take: Take
    roles: Roles
    _page: list[Sighting] = field(default_factory=list)
    _samples: list[str] = field(default_factory=list)
    _folders: list[tuple[str, RefusalKind, str]] = field(default_factory=list)
    _beyond: tuple[str, RefusalKind, str] | None = None

    def file(self, info: ObjectInfo) -> None:
        """A file, as the listing gave it."""
        # Some programs make an object of S3 for a folder.
        if info.path.endswith("/") and info.size_bytes == 0:
            return
        role = self.roles.of(info.path)
        if role is None:
            return
        mtime_us = info.stamp.mtime_us
        if role.fault:
            told, size_bytes = role.fault, info.size_bytes
            self._refuse(info.path, role.dataset, RefusalKind.NAME, told, size_bytes, mtime_us)
        elif role.is_marker or EARLIEST < info.mtime < LATEST:
            if not role.is_marker and len(self._samples) < _SAMPLES:
                self._samples.append(info.path)
            found = Sighting(info.path, role.dataset, info.size_bytes, mtime_us, role.is_marker)
            self._add(found)
        else:
            told = "its date lies beyond the years 1 to 9999; `touch` gives it another"
            self._refuse(info.path, role.dataset, RefusalKind.DATE, told, info.size_bytes)

    def passed(self, path: str, what: str) -> None:
        """A thing that is no file; of folders only one in a marker's place is of interest."""
        if what == FOLDER:
            if not is_hidden(path) and (name := self.roles.dataset_of_marker(path)) is not None:
                told = "it is a folder, and a marker is a file; put a file there in its place"
                self._refuse(path, name, RefusalKind.LINK, told)
            return
        told = f"it is a {what}, and only files are taken; put the file itself there"
        self._aside(path, RefusalKind.LINK, told)

    def unread(self, path: str, error: StorageError) -> None:
        """A file or a folder that can't be looked at."""
        self._aside(path, RefusalKind.UNREADABLE, str(error))

    def end(self) -> None:
        """The listing is over: tell which folders may hold files, and of which dataset."""
        for path, kind, told in self._folders:
            names = set() if path == LOST_AND_FOUND else self._inside(path)
            if names or kind is RefusalKind.UNREADABLE:
                self._refuse(path, names.pop() if len(names) == 1 else None, kind, told)
        if self._beyond is not None:
            path, kind, told = self._beyond
            self._refuse(path, None, kind, told)
        self._flush()

    def _aside(self, path: str, kind: RefusalKind, told: str) -> None:
        if is_hidden(path):
            return
        name = self.roles.dataset_of(path)
        if name is not None:
            self._refuse(path, name, kind, told)
        elif len(self._folders) < _FOLDERS:
            self._folders.append((path, kind, told))
        elif (
            # One that may hold files of any dataset says enough for all that follow.
            self._beyond is None
            and kind is RefusalKind.UNREADABLE
            and Pattern(self.errand.pattern).may_begin(f"{path}/")
        ):
            self._beyond = path, kind, told

    def _inside(self, folder: str) -> set[str]:
        """The datasets of files in a folder, were they called as others of the rule are.

        One where the folder says which; several where the files' own names do.
        """
        found = set()
        for sample in self._samples:
            parts = sample.split("/")
            for depth in range(len(parts)):
                tail = "/".join(parts[depth:])
                for other in (tail, tail.translate(_OTHERWISE)):
                    name = self.roles.dataset_of_file(f"{folder}/{other}")
                    if name is not None:
                        found.add(name)
        return found

    def _refuse(
        self,
        path: str,
        name: str | None,
        kind: RefusalKind,
        told: str,
        size_bytes: int = 0,
        mtime_us: int = 0,
    ) -> None:
        self._add(Sighting(path, name, size_bytes, mtime_us, refused=kind, reason=told))

    def _add(self, sighting: Sighting) -> None:
        self._page.append(sighting)
        if len(self._page) >= PAGE:
            self._flush()

    def _flush(self) -> None:
        if self._page:
            page, self._page = self._page, []
            self.take(page)


def object_of(sighting: Sighting) -> ObjectInfo:
    """A sighting as the listing gave it."""
    return ObjectInfo(sighting.path, sighting.size_bytes, moment_of(sighting.mtime_us))


def written(sighting: Sighting) -> list[Any]:
    """A sighting as JSON."""
    return [
        sighting.path,
        sighting.dataset,
        sighting.size_bytes,
        sighting.mtime_us,
        sighting.is_marker,
        sighting.refused,
        sighting.reason,
    ]


def read(cells: Sequence[Any]) -> Sighting:
    """A sighting that was written so."""
    path, dataset, size_bytes, mtime_us, is_marker, refused, reason = cells
    kind = None if refused is None else RefusalKind(refused)
    return Sighting(path, dataset, size_bytes, mtime_us, is_marker, kind, reason)
