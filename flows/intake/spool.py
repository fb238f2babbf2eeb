"""The spool: a directory in which programs leave requests as files, also while all else is away.

A program writes `.name` and renames it to `name.json` (one document) or `name.jsonl` (one a line).
A file is accepted whole, and is gone then; one that can't be goes to `rejected/`, with a sentence
in `name.why`; so does a link, or another thing that is no file. While the catalog is away files
stay where they are. A file that is renamed over one while that is accepted is looked at next.
"""

import json
import logging
import os
import stat
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from catalog.bulk import chunks
from catalog.db import Catalog
from catalog.errors import BadInput
from catalog.failpoints import reach
from catalog.names import spelt_out
from catalog.outage import in_halves, is_outage, isolated, sentence
from catalog.rejected import REJECTED, WHY
from catalog.requests import RequestDocument, parse, submit
from catalog.requests.clashes import clashes
from catalog.troubles import Of, Troubles
from flows.intake import INTAKE
from flows.intake.spoolfiles import Stamp, give_back, is_taken, set_aside, stamp_of, taken

log = logging.getLogger(__name__)

SUFFIXES = frozenset({".json", ".jsonl"})
MOST = 2000
"""Files that one look takes, in the order of their names."""
_BATCH = 200
_MOST_STAYING = 10_000
"""Files that can be neither taken nor moved, and are known as such."""
MOST_BYTES = 256 * 2**20
_MOST_WHERE, _MOST_END = 400, 180
_TROUBLE = zlib.crc32(b"the spool itself")
"""The number of its trouble among those of the service."""


@dataclass(frozen=True)
class _Spooled:
    path: Path
    stamp: Stamp
    documents: tuple[RequestDocument, ...]


class Spool:
    """Takes what lies in a directory."""

    def __init__(self, directory: Path, catalog: Catalog) -> None:
        self.directory, self._catalog = directory, catalog
        self._stays: set[str] = set()
        self._troubles = Troubles(catalog, INTAKE)

    def look(self) -> int:
        """Accept the files that are there; gives how many were taken or rejected.

        A directory that can't be looked at is made where there is none, else told as a trouble: no
        other loop, and no other process, is the better for an error.
        """
        try:
            found = self._files()
        except OSError as error:
            if is_outage(error):
                raise
            told = f"its spool {self.directory} can't be looked at ({error.strerror}); "
            told += "have a directory there that spdf may write to."
            self._troubles.note(Of.SERVICE, _TROUBLE, INTAKE, told)
            return 0
        self._troubles.over(Of.SERVICE, _TROUBLE)
        for batch in chunks(found, _BATCH):
            spooled = [item for path in batch if (item := self._read(path)) is not None]
            self._accept(spooled)
        return len(found)

    def _files(self) -> Sequence[Path]:
        try:
            with os.scandir(self.directory) as entries:
                left = [entry.name for entry in entries if is_taken(entry.name)]
            for name in left:
                with isolated("file", name):
                    give_back(self.directory / name)
            with os.scandir(self.directory) as entries:
                names = sorted(
                    entry.name
                    for entry in entries
                    if not entry.name.startswith(".")
                    and Path(entry.name).suffix.lower() in SUFFIXES
                    and entry.name not in self._stays
                )
        except FileNotFoundError:
            self.directory.mkdir(parents=True)
            return []
        return [self.directory / name for name in names[:MOST]]

    def _read(self, path: Path) -> _Spooled | None:
        try:
            stamp = stamp_of(path)
        except FileNotFoundError:
            return None
        try:
            return _Spooled(path, stamp, tuple(_documents(path)))
        except FileNotFoundError:
            return None
        except Exception as error:
            if is_outage(error):
                raise
            self._reject(path, stamp, error)
            return None

    def _accept(self, batch: Sequence[_Spooled]) -> None:
        """Accept files together; those that can't be are rejected, each by itself."""
        accepted: list[_Spooled] = []
        refused: list[tuple[_Spooled, Exception]] = []
        with self._catalog.write() as session:

            def write(items: Sequence[_Spooled]) -> None:
                with session.begin_nested():
                    # In one look: else each that clashes is searched for in ever smaller halves.
                    why = clashes(session, [item.documents for item in items])
                    told = list(zip(items, why, strict=True))
                    fitting = [item for item, error in told if error is None]
                    submit(session, [document for item in fitting for document in item.documents])
                accepted.extend(fitting)
                refused.extend((item, error) for item, error in told if error is not None)

            in_halves(batch, write, lambda item, error: refused.append((item, error)))
        reach("spool.accepted")
        for item in accepted:
            leave = partial(self._leave, item.path)
            with isolated("file", item.path.name, leave), taken(item.path, item.stamp) as file:
                if file is not None:
                    file.unlink()
        for item, error in refused:
            self._reject(item.path, item.stamp, error)

    def _reject(self, path: Path, stamp: Stamp, error: Exception) -> None:
        """Put a file aside, with why; one that can't even be moved is not looked at again."""
        why = sentence(error)
        with isolated("file", path.name, partial(self._leave, path)):
            folder = self.directory / REJECTED
            folder.mkdir(exist_ok=True)

            def tell(name: str) -> None:
                with isolated("file", f"{name}{WHY}", outage=lambda _error: False):
                    (folder / f"{name}{WHY}").write_text(f"{why}\n", errors="backslashreplace")

            with taken(path, stamp) as file:
                if file is None:
                    return
                set_aside(file, folder, path.name, tell)
        log.warning("spooled file rejected", extra={"file": str(path), "why": why})

    def _leave(self, path: Path, _error: Exception) -> None:
        if len(self._stays) < _MOST_STAYING:
            self._stays.add(path.name)


def _where(path: Path) -> str:
    """How sentences name a file, so that what they say of it isn't cut off behind its name."""
    text = spelt_out(str(path))
    return text if len(text) <= _MOST_WHERE else f"{text[:_MOST_END]}…{text[-_MOST_END:]}"


def _documents(path: Path) -> list[RequestDocument]:
    found, where = path.lstat(), _where(path)
    if not stat.S_ISREG(found.st_mode):
        raise BadInput(
            f"{where} is a link, a folder or a pipe; leave the file itself, by a rename."
        )
    size_bytes = found.st_size
    if size_bytes > MOST_BYTES:
        raise BadInput(
            f"{where} has {size_bytes} bytes, more than {MOST_BYTES}; cut it into parts."
        )
    with path.open("rb") as stream:
        if path.suffix.lower() == ".json":
            return [parse(read_json(stream.read(), where), where)]
        return [
            parse(read_json(line, f"{where}, line {n}"), f"{where}, line {n}")
            for n, line in enumerate(stream, 1)
            if line.strip()
        ]


def read_json(text: bytes | str, where: str) -> Any:
    """The value of a JSON text; raises `BadInput`, which says `where`."""
    try:
        return json.loads(text if isinstance(text, str) else text.decode())
    except (ValueError, RecursionError) as error:
        told = "it is no UTF-8 text" if isinstance(error, UnicodeError) else str(error)
        raise BadInput(f"{where} is no JSON ({told}); give one whole document.") from error
