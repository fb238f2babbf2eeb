"""What the commands print: tables and fields for people, JSON for programs."""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from catalog.causes import Cause
    from catalog.events import EventInfo

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]

_WIDE = 100_000
"""Width of what goes to a file or a pipe: nothing is ever cut or wrapped there."""
_NARROW = 20
"""Texts up to this length are never folded: a time, a state, a short name."""
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
NOTHING = "–"


def console(*, err: bool = False) -> "Console":
    """The terminal, or the pipe or file that stands in its place."""
    from rich.console import Console

    stream = sys.stderr if err else sys.stdout
    width = None if stream.isatty() else _WIDE
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def emit(renderable: "RenderableType") -> None:
    """Something that rich draws, on stdout.

    A terminal that is too narrow for a table breaks its lines, as rich would break its words; a
    pipe or file gets no padding.
    """
    from rich.measure import Measurement

    target = console()
    if target.is_terminal:
        least = Measurement.get(target, target.options.update(width=_WIDE), renderable).minimum
        target.width = max(target.width, least)
        target.print(renderable, crop=False)
        return
    with target.capture() as drawn:
        target.print(renderable)
    lines = [line.rstrip() for line in drawn.get().splitlines()]
    typer.echo("\n".join(lines).strip("\n"))


def say(text: str) -> None:
    """A sentence on stdout."""
    typer.echo(text)


def note(text: str) -> None:
    """A remark on stderr, so that what stdout holds stays clean."""
    typer.echo(text, err=True)


def plain(value: Any) -> Any:
    """`value` as JSON values: times in ISO 8601, states as their words."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(plain(item) for item in value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, Path) else value


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    typer.echo(json.dumps(plain(value), indent=2, ensure_ascii=False))


def stream_json(values: Iterable[Any]) -> None:
    """A JSON list on stdout, an element a line, however long it is."""
    comma = "["
    for value in values:
        typer.echo(comma + json.dumps(plain(value), ensure_ascii=False), nl=False)
        comma = ",\n "
    typer.echo("[]" if comma == "[" else "]")


def show_list(
    values: Sequence[Any],
    as_json: bool,
    row: Callable[[Any], Mapping[str, Any]],
    *,
    empty: str,
    limit: int | None = None,
) -> None:
    """A list of things: as JSON all they have, as a table what `row` gives of each."""
    if as_json:
        print_json(values)
        return
    if not values:
        say(empty)
        return
    print_table([row(value) for value in values])
    if limit is not None and len(values) >= limit:
        note(f"the first {limit}; --limit shows more.")


def print_table(rows: Sequence[Mapping[str, Any]], title: str | None = None) -> None:
    """A table with the keys of the first row as its head."""
    emit(table(rows, title))


def table(rows: Sequence[Mapping[str, Any]], title: str | None = None) -> "RenderableType":
    """A table to be printed; columns of numbers stand to the right, only long texts are folded."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    made.show_edge, made.padding = False, (0, 1, 0, 0)
    for head in rows[0] if rows else ():
        values = [row[head] for row in rows]
        right = all(isinstance(value, int | float | None) for value in values)
        longest = max(len(head), *(len(cell(value)) for value in values))
        made.add_column(
            Text(head),
            justify="right" if right else "left",
            overflow="fold",
            min_width=min(longest, _NARROW),
        )
    for row in rows:
        made.add_row(*(Text(cell(value)) for value in row.values()))
    return made


def show_causes(causes: "Sequence[Cause]", as_json: bool) -> None:
    """Facts that explain something, each with what happens next."""
    if as_json:
        print_json(causes)
        return
    for cause in causes:
        say(f"- {cause.fact.removesuffix('.')}; {cause.next}" if cause.next else f"- {cause.fact}")


def print_fields(fields: Mapping[str, Any]) -> None:
    """One thing's fields, a line each."""
    from rich.table import Table
    from rich.text import Text

    made = Table.grid(padding=(0, 2))
    for name, value in fields.items():
        made.add_row(Text(name, style="bold"), Text(cell(value), overflow="fold"))
    emit(made)


def print_history(events: "Sequence[EventInfo]") -> None:
    """What happened to one thing."""
    print_table(
        [{"at": e.at, "from": e.before, "to": e.after, "why": e.message} for e in events], "history"
    )


def cell(value: Any) -> str:
    """A value as people read it."""
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(plain(value), ensure_ascii=False) if value else NOTHING
    return str(value.value) if isinstance(value, Enum) else str(value)


class Size(int):
    """A number of bytes, shown with a unit."""

    def __str__(self) -> str:
        value, unit = float(self), 0
        while value >= 1000 and unit < len(_UNITS) - 1:
            value, unit = value / 1000, unit + 1
        return f"{int(self)} B" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def size(count_bytes: int | None) -> Size | None:
    """Bytes for a table's cell."""
    return None if count_bytes is None else Size(count_bytes)
