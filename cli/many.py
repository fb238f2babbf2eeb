"""Many names: of the command line, of a list (`--from`), and of the files in a folder."""

import fnmatch
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from catalog.errors import BadInput, Conflict, NotFound, SpdfError
from catalog.names import is_hidden, shown, spelt_out
from cli.output import note

if TYPE_CHECKING:
    from sqlmodel import Session

    from catalog.datasets import DatasetInfo

T = TypeVar("T")
R = TypeVar("R")

From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="FILE|-",
        help="Take more from a list, one a line or each ended by NUL; `-` reads standard input.",
        show_default=False,
    ),
]
MOST_BYTES = 256 * 2**20
"""Of a list."""
_SHOWN = 20
"""Of many that can't be done so many are named."""
_BELOW = "**"


class _NoneOf(SpdfError):
    """None of several is done, since there aren't all of them."""

    exit_code = NotFound.exit_code


@dataclass(frozen=True)
class Names:
    """What a command is asked for: each once, in the order given.

    `one`: the command line names one alone, so that JSON is its document and no list of such.
    """

    all: tuple[str, ...]
    one: bool

    def shape(self, documents: Sequence[Any]) -> Any:
        """Of the documents of all what JSON has: the one's, or a list."""
        return documents[0] if self.one else documents


def names_of(given: Sequence[object] | None, source: str | None, what: str) -> Names:
    """What was named as arguments, then what a list names; raises `BadInput` where that is none."""
    words = [str(word) for word in given or ()]
    listed = [] if source is None else read_list(source)
    if not words and source is None:
        raise BadInput(f"name a {what}, or more of them, or give a list of them with --from.")
    if not words and not listed:
        raise BadInput(f"{_where(source)} names no {what}: nothing was done.")
    found = tuple(dict.fromkeys(words + listed))
    return Names(found, one=source is None and len(words) == 1)


def ids_of(given: Sequence[int] | None, source: str | None, what: str) -> list[int]:
    """As `names_of`, for ids; raises `BadInput` also for what is none."""
    return ids_in(names_of(given, source, what), source, what)


def ids_in(chosen: Names, source: str | None, what: str) -> list[int]:
    """The names as ids; raises `BadInput` for what is none."""
    from cli.parameters import MOST

    names = chosen.all
    for name in names:
        if not (name.isascii() and name.isdigit() and 0 < int(name[:20]) <= MOST):
            raise BadInput(
                f"{what} {shown(name)[:40]!r} is no id; "
                + (f"{_where(source)} must have such." if source else "give its number.")
            )
    return [int(name) for name in names]


def read_list(source: str) -> list[str]:
    """The names in a file, or in standard input (`-`): ended by NUL where there is one, else lines.

    Names are bytes, as on the command line: one that is no UTF-8 keeps them.
    """
    text = _bytes(source)
    if len(text) > MOST_BYTES:
        raise BadInput(f"{_where(source)} has more than {MOST_BYTES} bytes; cut it into parts.")
    return [os.fsdecode(name) for name in text.split(b"\0" if b"\0" in text else b"\n") if name]


def _bytes(source: str) -> bytes:
    if source == "-":
        if sys.stdin is None:
            raise BadInput("--from - reads standard input, and there is none.")
        return sys.stdin.buffer.read(MOST_BYTES + 1)
    try:
        # Not asked whether it is a file: `<(find …)` is a pipe.
        with Path(source).open("rb") as stream:
            return stream.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise BadInput(f"the list {shown(source)} can't be read ({why}); check it.") from error


def _where(source: str | None) -> str:
    return "standard input" if source == "-" else f"the list {shown(source or '')}"


def files_in(folder: Path, pattern: str) -> list[Path]:
    """The files of a folder whose path in it fits, in the order of their bytes.

    As in a shell `*` is within a name, and `**/` any folders below; links to folders are not
    followed. What is hidden, or lies in a hidden folder, is left out, as the intake leaves it.
    Raises `BadInput` where none fits, and where a folder can't be looked at.
    """
    parts = _parts(pattern)
    try:
        kind = folder.stat().st_mode
    except OSError as error:
        raise BadInput(f"{folder} can't be read ({error.strerror}); check the path.") from error
    if not stat.S_ISDIR(kind):
        raise BadInput(f"{folder} is no folder, and --pattern is for such; leave one of them out.")
    found = sorted(set(_fitting(folder, "", parts)), key=os.fsencode)
    if not found:
        raise BadInput(
            f"no file of {folder} fits {pattern!r} (hidden ones aren't taken, and only `**/` looks "
            "into folders): nothing was done."
        )
    return [folder / path for path in found]


def _parts(pattern: str) -> tuple[re.Pattern[str] | None, ...]:
    """One for each part of a path; None for any number of folders."""
    words = pattern.split("/")
    if not all(words) or ".." in words or "." in words or words[-1] == _BELOW:
        raise BadInput(
            f"--pattern {pattern!r} can't be used; give names below the folder, as `*.raw`, "
            "`run-*/*.raw`, or `**/*.raw` for all folders in it."
        )
    kept = [word for i, word in enumerate(words) if word != _BELOW or words[i + 1] != _BELOW]
    return tuple(None if word == _BELOW else re.compile(fnmatch.translate(word)) for word in kept)


def _fitting(folder: Path, path: str, parts: tuple[re.Pattern[str] | None, ...]) -> Iterator[str]:
    part, rest = parts[0], parts[1:]
    if part is None:
        yield from _fitting(folder, path, rest)
    try:
        with os.scandir(folder / path) as entries:
            seen = [entry for entry in entries if not is_hidden(entry.name)]
    except OSError as error:
        raise BadInput(f"{folder / path} can't be read ({error.strerror}); check it.") from error
    for entry in seen:
        below = f"{path}/{entry.name}" if path else entry.name
        if part is None:
            if entry.is_dir(follow_symlinks=False):
                yield from _fitting(folder, below, parts)
        elif part.match(entry.name):
            if rest and entry.is_dir(follow_symlinks=False):
                yield from _fitting(folder, below, rest)
            elif not rest and not entry.is_dir(follow_symlinks=False):
                yield below


def all_or_none(items: Sequence[T], call: Callable[[T], R]) -> list[R]:
    """What `call` gives of each, in one transaction; an error tells of all that can't be done.

    It must leave the transaction, so that nothing is changed. An outage is no item's, and raised.
    """
    found: list[R] = []
    faults: list[SpdfError] = []
    for item in items:
        try:
            found.append(call(item))
        except SpdfError as error:
            if error.is_outage or len(items) == 1:
                raise
            faults.append(error)
    if faults:
        raise _all_of(faults, len(items))
    return found


def _all_of(faults: Sequence[SpdfError], count: int) -> SpdfError:
    """One error for several, of which each has been told."""
    for fault in faults[:_SHOWN]:
        note(f"spdf: {spelt_out(str(fault))}")
    if len(faults) > _SHOWN:
        note(f"and {len(faults) - _SHOWN} more")
    told = f"{len(faults)} of {count} can't be done, so none is: nothing was changed."
    codes = {type(fault).exit_code for fault in faults}
    if Conflict.exit_code in codes:
        return Conflict(told)
    return _NoneOf(told) if NotFound.exit_code in codes else BadInput(told)


def find_datasets(session: "Session", names: Sequence[str]) -> "list[DatasetInfo]":
    """The datasets of these names; raises `NotFound`, or an error that tells of several."""
    from catalog import datasets

    there = datasets.known(session, names)

    def find(name: str) -> "DatasetInfo":
        if (info := there.get(name)) is None:
            raise NotFound("dataset", name)
        return info

    return all_or_none(names, find)


def change(infos: Sequence[Any], call: Callable[[Any], R]) -> list[R]:
    """As `all_or_none`, for things that have an `id`: by that, as locks are taken, whoever asks."""
    chosen = sorted({info.id: info for info in infos}.values(), key=lambda info: info.id)
    by_id = dict(zip((info.id for info in chosen), all_or_none(chosen, call), strict=True))
    return [by_id[info.id] for info in infos]


def one_by_one(items: Sequence[T], call: Callable[[T], R]) -> tuple[list[R], int]:
    """What `call` gives of those that can be done, and the exit code of those that can't.

    For what is no transaction: each that can't is told, and the others go on. An outage is no
    item's, and raised.
    """
    found: list[R] = []
    code = 0
    for item in items:
        try:
            found.append(call(item))
        except SpdfError as error:
            if error.is_outage or len(items) == 1:
                raise
            note(f"spdf: {spelt_out(str(error))}")
            code = max(code, type(error).exit_code)
    return found, code
