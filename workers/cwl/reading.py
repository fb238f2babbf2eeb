"""YAML as CWL takes it: values with their lines, and words that know how they were written."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from catalog.errors import BadTemplate

MAX_TEXT_BYTES = 16 * 1024 * 1024
MAX_DEPTH = 100
MAX_COPIED = 100_000
"""How many nodes a document's aliases may stand for."""
_LONG = 2**63
_CORE = "tag:yaml.org,2002:"
_WORDS = ("null", "bool", "int", "float")
_TEXTS = ("str", "timestamp", "value", "merge", "yaml")


@dataclass(frozen=True)
class Word:
    """A plain scalar that YAML takes for no string, such as `010`, `1e3`, `true` or `~`.

    `text` is how it was written, which counts where CWL's schema asks for a string; `found` is
    what it is elsewhere.
    """

    text: str
    found: Any
    path: str
    line: int

    @property
    def beyond(self) -> bool:
        """Whether it is a whole number that no `long` holds."""
        return isinstance(self.found, int) and not -_LONG <= self.found < _LONG

    @property
    def value(self) -> Any:
        """What it is where no string is asked for: None, a bool, an int or a float.

        Raises `BadTemplate` for a number that CWL's types can't hold.
        """
        if isinstance(self.found, float) and not abs(self.found) < float("inf"):
            raise self._bad("is no number that CWL has; its numbers are finite doubles")
        if self.beyond:
            raise self._bad("is beyond the range of a long (64 bits); as a double, add `.0`")
        return self.found

    def _bad(self, reason: str) -> BadTemplate:
        shown = self.text if len(self.text) <= 40 else f"{self.text[:40]}…"
        return BadTemplate(
            f"{shown} {reason}, and as a text, put it in quotes.", self.path, self.line
        )


def read_yaml(text: str, path: str) -> Any:
    """The document in `text`: mappings and lists of ruamel's with lines, strings and `Word`s.

    Keys are strings as they were written. An alias is a copy of what it names. `path` is for
    messages. Raises `BadTemplate` with the line: no YAML, two documents, a key that stands twice,
    a tag, nested or multiplied beyond bounds.
    """
    yaml = YAML(typ="safe", pure=True)
    # To define an anchor again is no fault.
    yaml.composer.warn_double_anchors = False
    try:
        root = yaml.compose(text)
        return None if root is None else _Builder(yaml.constructor, path).build(root)
    except YAMLError as fault:
        raise _translated(fault, text, path) from fault
    except RecursionError as fault:
        raise BadTemplate(_TOO_DEEP, path) from fault
    except (AssertionError, NotImplementedError, ValueError) as fault:
        # So ruamel says that it doesn't know a directive.
        raise BadTemplate(f"not valid YAML: {fault}", path, 1) from fault


_TOO_DEEP = f"it is nested more than {MAX_DEPTH} levels deep; put parts into files of their own."


def _translated(fault: YAMLError, text: str, path: str) -> BadTemplate:
    mark = getattr(fault, "problem_mark", None) or getattr(fault, "context_mark", None)
    position = getattr(fault, "position", None)
    line = None
    if mark is not None:
        line = mark.line + 1
    elif isinstance(position, int):
        line = text.count("\n", 0, position) + 1
    reason = getattr(fault, "problem", None) or str(getattr(fault, "reason", "") or fault)
    reason = " ".join(reason.split())
    if "'\\t'" in reason:
        reason = "a tab where YAML wants spaces; indent by spaces"
    elif "another document" in reason:
        reason = "there is a second document behind `---`; put it into a file of its own"
    return BadTemplate(f"not valid YAML: {reason}", path, line)


class _Builder:
    """Makes values of ruamel's nodes."""

    def __init__(self, constructor: Any, path: str) -> None:
        self._constructor, self._path = constructor, path
        self._open: list[int] = []
        self._made: set[int] = set()
        self._copied = 0

    def build(self, node: Node) -> Any:
        """The value of a node and of all below it."""
        if isinstance(node, ScalarNode):
            return self._scalar(node)
        if id(node) in self._open:
            self._bad("an alias stands inside of what it names, so it has no end", node)
        if len(self._open) >= MAX_DEPTH:
            self._bad(_TOO_DEEP, node)
        self._count(node)
        self._open.append(id(node))
        made = self._sequence(node) if isinstance(node, SequenceNode) else self._mapping(node)
        self._open.pop()
        return made

    def _count(self, node: Node) -> None:
        self._copied += id(node) in self._made
        self._made.add(id(node))
        if self._copied > MAX_COPIED:
            self._bad(f"aliases stand for more than {MAX_COPIED} nodes; write fewer", node)

    def _sequence(self, node: SequenceNode) -> CommentedSeq:
        self._check_tag(node, "seq")
        made = CommentedSeq()
        self._place(made, node)
        for index, item in enumerate(node.value):
            made.append(self.build(item))
            made.lc.add_idx_line_col(index, [item.start_mark.line, item.start_mark.column])
        return made

    def _mapping(self, node: Node) -> CommentedMap:
        self._check_tag(node, "map")
        made = CommentedMap()
        self._place(made, node)
        lines: dict[str, int] = {}
        for key, at, value in self._pairs(node):
            line = at.start_mark.line + 1
            if key in lines:
                self._bad(f'duplicate key "{key}", which stands in line {lines[key]} too', at)
            lines[key] = line
            self._add(made, key, at, value)
        for merged in self._merges(node):
            for key, value in merged.items():
                if key not in made:
                    made[key] = value
                    made.lc.add_kv_line_col(key, merged.lc.data[key])
        return made

    def _add(self, made: CommentedMap, key: str, at: Node, value: Node) -> None:
        made[key] = self.build(value)
        first, second = at.start_mark, value.start_mark
        made.lc.add_kv_line_col(key, [first.line, first.column, second.line, second.column])

    def _pairs(self, node: Node) -> Iterator[tuple[str, Node, Node]]:
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                self._bad("a key is a list or a mapping; keys are names", key)
            if not self._is_merge(key):
                yield self._text(key), key, value

    def _merges(self, node: Node) -> Iterator[CommentedMap]:
        for key, value in node.value:
            if not self._is_merge(key):
                continue
            for one in value.value if isinstance(value, SequenceNode) else [value]:
                if not isinstance(one, MappingNode):
                    self._bad("`<<` takes in a mapping or a list of mappings; correct it", key)
                yield self.build(one)

    @staticmethod
    def _is_merge(key: Node) -> bool:
        return isinstance(key, ScalarNode) and key.style is None and _kind(key) == "merge"

    def _scalar(self, node: ScalarNode) -> Any:
        self._count(node)
        kind = _kind(node)
        if kind in _TEXTS:
            return self._text(node)
        if kind not in _WORDS:
            self._bad(f"the tag {node.tag!r} means nothing in CWL; remove it", node)
        try:
            found = getattr(self._constructor, f"construct_yaml_{kind}")(node)
        except (ValueError, KeyError, IndexError):
            found = _huge(node.value) if kind == "int" else None
            if found is None:
                return self._text(node)
        return Word(node.value, found, self._path, node.start_mark.line + 1)

    def _text(self, node: ScalarNode) -> str:
        text: str = node.value
        try:
            # JSON writes characters above U+FFFF as two escapes.
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError:
            self._bad("an escape is one half of a character; write both", node)

    def _check_tag(self, node: Node, kind: str) -> None:
        if _kind(node) != kind:
            self._bad(f"the tag {node.tag!r} means nothing in CWL; remove it", node)

    def _place(self, made: Any, node: Node) -> None:
        made.lc.line, made.lc.col = node.start_mark.line, node.start_mark.column
        made.lc.filename = self._path

    def _bad(self, reason: str, node: Node) -> NoReturn:
        raise BadTemplate(reason, self._path, node.start_mark.line + 1)


def _kind(node: Node) -> str:
    return str(node.tag).removeprefix(_CORE)


def _huge(text: str) -> int | None:
    """A number of more digits than Python reads: only that it is beyond all bounds counts."""
    return 2**64 if text.lstrip("+-").replace("_", "").isdigit() else None
