"""The listing of an InitialWorkDirRequirement, compiled."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from catalog.errors import BadTemplate
from workers.cwl.expressions import Expression
from workers.cwl.files import literal_name, place_of
from workers.cwl.parameters import ParameterCompiler, is_file_object

_LISTING = "initial work directory's listing"


@dataclass(frozen=True)
class Dirent:
    """An entry of InitialWorkDirRequirement; `name` None where the entry names itself."""

    entry: Expression
    name: Expression | None
    writable: bool


def work_dir(
    requirement: Mapping[str, Any], compiler: ParameterCompiler
) -> tuple[Dirent | Expression, ...] | Expression:
    """The entries of the requirement, or the expression that gives them."""
    listing = requirement.get("listing") or ()
    if isinstance(listing, str):
        return compiler.expression(listing, _LISTING)
    entries: list[Dirent | Expression] = []
    for one in listing:
        if isinstance(one, Mapping) and "entry" in one:
            name = one.get("entryname")
            entries.append(
                Dirent(
                    compiler.expression(one["entry"], f"entry of the {_LISTING}", strip=False),
                    None if name is None else compiler.expression(name, "entryname"),
                    bool(one.get("writable")),
                )
            )
        else:
            entries.append(compiler.expression(one, _LISTING))
    return tuple(entries)


@dataclass(frozen=True)
class _Folder:
    """A Directory object; two are one where they list the same."""

    listed: str


def literals(entry: Expression) -> Iterator[tuple[str, Any]]:
    """The names of the File or Directory object that an entry is, and of what it lists.

    With each, what tells whether two are one. Nothing, where the entry is an expression.
    """
    if entry.constant:
        yield from _literal(entry.text, "")


def _literal(value: Any, above: str) -> Iterator[tuple[str, Any]]:
    if not is_file_object(value):
        return
    place = place_of(value)
    name = value.get("basename") or (literal_name(value) if place is None else PurePath(place).name)
    listed = value.get("listing") or ()
    if value["class"] == "Directory":
        yield f"{above}{name}", _Folder(place or json.dumps(listed, sort_keys=True, default=str))
    else:
        yield f"{above}{name}", (place,) if place is not None else value.get("contents")
    for other in value.get("secondaryFiles") or ():
        yield from _literal(other, above)
    for one in listed:
        yield from _literal(one, f"{above}{name}/")


def check_places(
    listing: tuple[Dirent | Expression, ...] | Expression,
    streams: tuple[Expression | None, ...],
    tool: str,
) -> None:
    """Refuse (`BadTemplate`) what would lie at one path in every job, as the document alone tells.

    An entry that is nothing but an expression may be null in one job or the other.
    """
    entries = () if isinstance(listing, Expression) else listing
    names: list[tuple[str, Any]] = [
        found for one in entries if isinstance(one, Expression) for found in literals(one)
    ]
    names += [
        (str(one.name.text), one.entry.text)
        for one in entries
        if isinstance(one, Dirent)
        and one.name is not None
        and one.name.constant
        and not one.entry.is_sole
    ]
    names += [
        (str(one.text), one.place)
        for one in dict.fromkeys(streams)
        if one is not None and one.constant
    ]
    held: dict[str, tuple[str, Any]] = {}
    for name, what in names:
        path = os.path.normpath(name)
        other = held.setdefault(path, (name, what))
        if other[1] != what and {other[1], what} != {"stdout", "stderr"}:
            raise BadTemplate(
                f"tool {tool!r}: {name!r} would be two things in one work directory; give each a "
                "name of its own"
            )
    for path, (name, _) in held.items():
        for above in map(str, PurePath(path).parents):
            if above in held and not isinstance(held[above][1], _Folder):
                raise BadTemplate(
                    f"tool {tool!r}: {name!r} would lie below {held[above][0]!r}, which is a file; "
                    "give it another name"
                )
