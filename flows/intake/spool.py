"""The spool: a directory in which programs leave requests as files, also while all else is away.

A program writes `.name` and renames it to `name.json` (one document) or `name.jsonl` (one a line).
A file is accepted whole, and is gone then; one that can't be goes to `rejected/`, with a sentence
in `name.why`. While the catalog is away files stay where they are.
"""

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalog.bulk import chunks
from catalog.db import Catalog
from catalog.errors import BadInput, SpdfError
from catalog.failpoints import reach
from catalog.requests import RequestDocument, parse, submit

log = logging.getLogger(__name__)

SUFFIXES = frozenset({".json", ".jsonl"})
REJECTED = "rejected"
MOST = 2000
"""Files that one look takes, in the order of their names."""
_BATCH = 200
MOST_BYTES = 256 * 2**20


@dataclass(frozen=True)
class _Spooled:
    path: Path
    documents: tuple[RequestDocument, ...]


class Spool:
    """Takes what lies in a directory."""

    def __init__(self, directory: Path, catalog: Catalog) -> None:
        self.directory, self._catalog = directory, catalog

    def look(self) -> int:
        """Accept the files that are there; gives how many were taken or rejected."""
        found = self._files()
        for batch in chunks(found, _BATCH):
            spooled = [item for path in batch if (item := self._read(path)) is not None]
            self._accept(spooled)
        return len(found)

    def _files(self) -> Sequence[Path]:
        try:
            with os.scandir(self.directory) as entries:
                names = sorted(
                    entry.name
                    for entry in entries
                    if not entry.name.startswith(".")
                    and Path(entry.name).suffix in SUFFIXES
                    and entry.is_file(follow_symlinks=False)
                )
        except FileNotFoundError:
            return []
        return [self.directory / name for name in names[:MOST]]

    def _read(self, path: Path) -> _Spooled | None:
        try:
            return _Spooled(path, tuple(_documents(path)))
        except FileNotFoundError:
            return None
        except SpdfError as error:
            self._reject(path, error)
            return None

    def _accept(self, batch: Sequence[_Spooled]) -> None:
        """Accept files together; where one is refused, each alone, in their order."""
        if not batch:
            return
        try:
            with self._catalog.write() as session:
                submit(session, [document for item in batch for document in item.documents])
        except SpdfError as error:
            if len(batch) == 1:
                self._reject(batch[0].path, error)
                return
            for item in batch:
                self._accept([item])
            return
        reach("spool.accepted")
        for item in batch:
            item.path.unlink(missing_ok=True)

    def _reject(self, path: Path, error: SpdfError) -> None:
        folder = self.directory / REJECTED
        folder.mkdir(exist_ok=True)
        (folder / f"{path.name}.why").write_text(f"{error}\n")
        path.rename(folder / path.name)
        log.warning("spooled file rejected", extra={"file": str(path), "why": str(error)})


def _documents(path: Path) -> list[RequestDocument]:
    size_bytes = path.stat().st_size
    if size_bytes > MOST_BYTES:
        raise BadInput(f"{path} has {size_bytes} bytes, more than {MOST_BYTES}; cut it into parts.")
    with path.open("rb") as stream:
        if path.suffix == ".json":
            return [parse(read_json(stream.read(), str(path)), str(path))]
        return [
            parse(read_json(line, f"{path}, line {n}"), f"{path}, line {n}")
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
