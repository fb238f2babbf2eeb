"""What commands take: numbers within bounds, choices, and paths; all else is one sentence.

`bound` gives each number of each command, also those to come, at least the bounds of what a catalog
can keep. An option with narrower ones says so by `min` and `max`. A path is never empty: it would
be the current folder.
"""

import math
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer
from typer.models import ParameterInfo

from catalog.errors import BadInput

MOST = 2**63 - 1
"""The largest number that a catalog keeps."""
MOST_SHORT = 2**31 - 1
"""The largest of those that are kept in short, such as the number of an attempt."""
MOST_RANK = 1_000_000_000
MOST_SLOTS = 65_536


def bound(app: typer.Typer) -> None:
    """Give every number, choice and path of the commands of `app` a check that says what it is."""
    for command in _commands(app):
        hints = get_type_hints(command, include_extras=True)
        for name, hint in hints.items():
            if get_origin(hint) is not Annotated:
                continue
            kind, info = _kind(get_args(hint)[0]), get_args(hint)[1]
            if kind is None or not isinstance(info, ParameterInfo) or info.parser is not None:
                continue
            info.parser = _parser(kind, info, _shown(name, info))
            if kind is Path and info.metavar is None:
                info.metavar = "PATH"


def _commands(app: typer.Typer) -> Iterator[Callable[..., Any]]:
    for command in app.registered_commands:
        if command.callback is not None:
            yield command.callback
    for group in app.registered_groups:
        if group.typer_instance is not None:
            yield from _commands(group.typer_instance)


def _kind(annotation: Any) -> Any:
    """`int`, `float`, `Path` or a choice, where the annotation is that, a list of it, or None."""
    if annotation in (int, float, Path):
        return annotation
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return annotation
    return next((kind for inner in get_args(annotation) if (kind := _kind(inner))), None)


def _shown(name: str, info: ParameterInfo) -> str:
    """How a message names an option or an argument."""
    if isinstance(info, typer.models.OptionInfo):
        # What an annotation names first, Typer has as the default until it makes the command.
        named = (info.default, *(info.param_decls or ()))
        words = [word for word in named if isinstance(word, str) and word.startswith("-")]
        return words[0] if words else f"--{name.replace('_', '-')}"
    return (info.metavar or name).strip("[].")


def _parser(kind: Any, info: ParameterInfo, shown: str) -> Callable[[Any], Any]:
    if kind is Path:
        return _path_parser(shown)
    return _number_parser(kind, info, shown) if kind in (int, float) else _choice(kind, shown)


def _path_parser(shown: str) -> Callable[[Any], Path]:
    def parse(given: Any) -> Path:
        if str(given) == "":
            raise BadInput(f"{shown} '' is no path; give one, or `.` for the current folder.")
        return Path(given)

    return parse


def _choice(kind: type[Enum], shown: str) -> Callable[[Any], Enum]:
    def parse(given: Any) -> Enum:
        try:
            return kind(given)
        except ValueError:
            *others, last = (str(one.value) for one in kind)
            words = f"{', '.join(others)} or {last}" if others else last
            raise BadInput(f"{shown} {str(given)[:40]!r} can't be used; give {words}.") from None

    return parse


def _number_parser(kind: type, info: ParameterInfo, shown: str) -> Callable[[Any], int | float]:
    least = -MOST - 1 if info.min is None else info.min
    most = MOST if info.max is None else info.max
    what = "a whole number" if kind is int else "a number"

    def parse(given: Any) -> int | float:
        try:
            value: int | float = kind(given)
        except (ValueError, OverflowError):
            value = math.nan
        if not least <= value <= most:
            text = str(given)[:40]
            raise BadInput(f"{shown} {text!r} can't be used; give {what} from {least} to {most}.")
        return value

    return parse
