"""The listing of an InitialWorkDirRequirement, compiled."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from catalog.errors import BadTemplate
from workers.cwl.expressions import Expression
from workers.cwl.parameters import ParameterCompiler

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


def check_places(
    listing: tuple[Dirent | Expression, ...] | Expression,
    streams: tuple[Expression | None, ...],
    tool: str,
) -> None:
    """Refuse (`BadTemplate`) what would lie at one path in every job, as the document alone tells.

    An entry that is nothing but an expression may be null in one job or the other.
    """
    entries = () if isinstance(listing, Expression) else listing
    names = [
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
            if above in held:
                raise BadTemplate(
                    f"tool {tool!r}: {name!r} would lie below {held[above][0]!r}, which is a file; "
                    "give it another name"
                )
