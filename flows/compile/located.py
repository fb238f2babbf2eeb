"""CWL documents as plain dicts and lists that remember the file and line they came from."""

from typing import Any, NoReturn

from catalog.errors import BadTemplate
from workers.cwl.lines import file_of, line_of


class Mapping(dict[str, Any]):
    """A dict with its source file, its line and the line of each key (1-based, or None)."""

    source: str = ""
    line: int | None = None

    def __init__(self, items: dict[str, Any] | None = None) -> None:
        super().__init__(items or {})
        self.lines: dict[str, int | None] = {}

    def at(self, key: str) -> int | None:
        """The line of `key`, or of the mapping where the key has none."""
        return self.lines.get(key) or self.line


class Sequence(list[Any]):
    """A list with its source file, its line and the line of each item."""

    source: str = ""
    line: int | None = None

    def __init__(self, items: list[Any] | None = None) -> None:
        super().__init__(items or [])
        self.lines: list[int | None] = []

    def at(self, index: int) -> int | None:
        """The line of the item at `index`, or of the list."""
        return (self.lines[index] if index < len(self.lines) else None) or self.line


def locate(value: Any, source: str = "", line: int | None = None) -> Any:
    """`value` (read by `workers.cwl.document`, or plain JSON) as located dicts, lists, scalars.

    What doesn't know its own file or line takes `source` and `line`, its parent's.
    """
    if not isinstance(value, (dict, list, tuple)):
        return value
    source = file_of(value) or source
    line = line_of(value) or line
    if isinstance(value, dict):
        mapping = Mapping()
        mapping.source, mapping.line = source, line
        for key, item in value.items():
            at = line_of(value, key) or line
            mapping[str(key)] = locate(item, source, at)
            mapping.lines[str(key)] = at
        return mapping
    items = Sequence()
    items.source, items.line = source, line
    for index, item in enumerate(value):
        at = line_of(value, index) or line
        items.append(locate(item, source, at))
        items.lines.append(items[-1].line if isinstance(items[-1], (Mapping, Sequence)) else at)
    return items


def plain(value: Any) -> Any:
    """`value` as dicts and lists without lines."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def changed(origin: Mapping, changes: dict[str, Any]) -> Mapping:
    """A copy of `origin` with `changes`; a key whose new value is None goes."""
    copy = Mapping({**origin, **changes})
    copy.source, copy.line, copy.lines = origin.source, origin.line, dict(origin.lines)
    for key, value in changes.items():
        if value is None:
            del copy[key]
    return copy


def items_like(origin: Any, items: list[Any]) -> Sequence:
    """A list of located `items` at the place of `origin`, of whose items each may be made."""
    result = Sequence(items)
    result.source = getattr(origin, "source", "")
    result.line = getattr(origin, "line", None)
    old = getattr(origin, "lines", [])
    known = old if len(old) == len(items) else [None] * len(items)
    result.lines = [
        getattr(item, "line", None) or line for item, line in zip(items, known, strict=True)
    ]
    return result


def refuse(reason: str, node: Any, key: str | int | None = None) -> NoReturn:
    """Raise `BadTemplate` for what stands in `node` (under `key`, where one is given)."""
    line = getattr(node, "line", None)
    if (isinstance(node, Mapping) and isinstance(key, str)) or (
        isinstance(node, Sequence) and isinstance(key, int)
    ):
        line = node.at(key)  # type: ignore[arg-type]
    raise BadTemplate(reason, getattr(node, "source", ""), line)
