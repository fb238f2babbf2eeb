"""Mappings and lists of a document that know their file and their lines."""

from collections.abc import Callable, Iterator
from typing import Any

from ruamel.yaml.comments import CommentedMap, CommentedSeq


def line_of(node: Any, key: str | int | None = None) -> int | None:
    """The 1-based line of `node`, or of its `key`, where the document still knows it."""
    position = getattr(node, "lc", None)
    if position is None:
        return None
    data = position.data or {}
    line = data[key][0] if key is not None and key in data else position.line
    return None if line is None else int(line) + 1


def file_of(node: Any) -> str | None:
    """The path of the file that `node` was read from."""
    return getattr(getattr(node, "lc", None), "filename", None)


def mapping(like: Any = None, key: str | int | None = None, **fields: Any) -> CommentedMap:
    """A new mapping that says it stands where `like` (or its `key`) stands."""
    made = CommentedMap(fields)
    line = line_of(like, key)
    if line is not None:
        made.lc.line, made.lc.col = line - 1, 0
        made.lc.filename = file_of(like)
    return made


def copy_lines(made: Any, old: Any) -> None:
    """Let `made` know the lines of the keys that it took from `old`."""
    data = getattr(getattr(old, "lc", None), "data", None)
    if data:
        for key, position in data.items():
            made.lc.add_kv_line_col(key, position)


def sequence(items: Iterator[Any] | list[Any], like: Any = None) -> CommentedSeq:
    """A new list that says it stands where `like` stands."""
    made = CommentedSeq(items)
    line = line_of(like)
    if line is not None:
        made.lc.line, made.lc.col = line - 1, 0
    return made


def changed(node: Any, change: Callable[[Any], Any]) -> Any:
    """A copy of a mapping or list with each value changed, which knows the same lines."""
    made: CommentedMap | CommentedSeq
    if isinstance(node, CommentedMap):
        made = CommentedMap((key, change(value)) for key, value in node.items())
        for key, position in (node.lc.data or {}).items():
            made.lc.add_kv_line_col(key, position)
    else:
        made = CommentedSeq([change(value) for value in node])
        for index, position in (node.lc.data or {}).items():
            made.lc.add_idx_line_col(index, position)
    made.lc.line, made.lc.col = node.lc.line, node.lc.col
    made.lc.filename = getattr(node.lc, "filename", None)
    return made


def copied(node: Any) -> Any:
    """A copy of `node` and all below it."""
    return changed(node, copied) if isinstance(node, CommentedMap | CommentedSeq) else node
