"""Reading CWL files: YAML with line numbers, links between files followed."""

import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarfloat import ScalarFloat

from catalog.errors import BadTemplate

_REFERENCE = "#"


@dataclass(frozen=True)
class Source:
    """A document as read: `root` has its links resolved; `path` is for messages.

    `mixed` tells that `$mixin` was among the links.
    """

    uri: str
    path: str
    root: dict[str, Any]
    mixed: bool = False


def fragment_of(path_or_uri: str | Path) -> tuple[str, str | None]:
    """The `file://` URI of what is named, and the name behind `#`, if there is one."""
    text = str(path_or_uri)
    bare, _, fragment = text.partition(_REFERENCE)
    split = urllib.parse.urlsplit(bare)
    if split.scheme == "file":
        return bare, urllib.parse.unquote(fragment) or None
    if split.scheme:
        raise BadTemplate(
            f"{split.scheme} addresses are not fetched; save the document as a file and name that",
            text,
        )
    return Path(bare).absolute().as_uri(), fragment or None


def path_of(uri: str) -> Path:
    """The local path of a `file://` URI."""
    return Path(urllib.parse.unquote(urllib.parse.urlsplit(uri).path))


def read_source(uri: str) -> Source:
    """Read the document at a `file://` URI; raises `BadTemplate`."""
    path = path_of(uri)
    parsed = _parse(path)
    mixed = _has_mixin(parsed)
    root = _expand(parsed, uri, (uri,))
    if not isinstance(root, dict):
        raise BadTemplate("the document is no mapping, so it is no CWL", str(path))
    return Source(uri, str(path), root, mixed)


def _has_mixin(node: Any) -> bool:
    if isinstance(node, dict):
        return "$mixin" in node or any(map(_has_mixin, node.values()))
    return isinstance(node, list) and any(map(_has_mixin, node))


def _parse(path: Path) -> Any:
    yaml = YAML(typ="rt")
    try:
        return yaml.load(_text(path))
    except YAMLError as fault:
        mark = getattr(fault, "problem_mark", None)
        reason = getattr(fault, "problem", None) or str(fault).splitlines()[0]
        # A duplicate key comes with both of its values, however long.
        reason = reason.partition(' with value "')[0]
        line = mark.line + 1 if mark is not None else None
        raise BadTemplate(f"not valid YAML: {reason}", str(path), line) from fault


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        reason = getattr(fault, "strerror", None) or "it is no UTF-8 text"
        raise BadTemplate(f"the document can't be read: {reason}", str(path)) from fault


def _expand(node: Any, uri: str, stack: tuple[str, ...]) -> Any:
    """`node` with `$import`, `$include` and `$mixin` replaced and relative links made absolute."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            node[index] = _expand(item, uri, stack)
    elif isinstance(node, dict):
        linked = _linked(node, uri, stack)
        if linked is not None:
            return linked
        node.lc.filename = str(path_of(uri))  # type: ignore[attr-defined]
        _absolutise(node, uri)
        for key, value in node.items():
            node[key] = _expand(value, uri, stack)
    return node


def _linked(node: dict[str, Any], uri: str, stack: tuple[str, ...]) -> Any:
    for kind in ("$import", "$include", "$mixin"):
        if kind not in node or (kind != "$mixin" and len(node) != 1):
            continue
        target, fragment = fragment_of(urllib.parse.urljoin(uri, str(node[kind])))
        if target in stack:
            raise BadTemplate(f"{kind} of {target} leads back to itself", str(path_of(uri)))
        if kind == "$include":
            return _text(path_of(target))
        found = _expand(_parse(path_of(target)), target, (*stack, target))
        if fragment is not None and isinstance(found, dict) and "$graph" in found:
            found = _in_graph(found, fragment, target)
        if kind == "$mixin":
            del node[kind]
            found.update(_expand(node, uri, stack))
        return found
    return None


def _in_graph(found: dict[str, Any], fragment: str, target: str) -> Any:
    for item in found["$graph"]:
        if str(item.get("id", "")).rpartition(_REFERENCE)[2] == fragment:
            return item
    raise BadTemplate(f"there is no {fragment!r} in its $graph", str(path_of(target)))


def _absolutise(node: dict[str, Any], uri: str) -> None:
    if node.get("class") in ("File", "Directory"):
        for key in ("location", "path"):
            if isinstance(node.get(key), str) and "$(" not in node[key]:
                node["location"] = urllib.parse.urljoin(uri, _quoted(node.pop(key), key))
                break
    if isinstance(node.get("run"), str) and "in" in node:
        node["run"] = urllib.parse.urljoin(uri, node["run"])
    if isinstance(node.get("$schemas"), list):
        node["$schemas"] = [urllib.parse.urljoin(uri, str(item)) for item in node["$schemas"]]


def _quoted(text: str, key: str) -> str:
    """A plain path as a relative URI; what is a URI already stays as it is."""
    if key == "path" or ("%" not in text and not urllib.parse.urlsplit(text).scheme):
        return urllib.parse.quote(text)
    return text


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


def sequence(items: Iterator[Any] | list[Any], like: Any = None) -> CommentedSeq:
    """A new list that says it stands where `like` stands."""
    made = CommentedSeq(items)
    line = line_of(like)
    if line is not None:
        made.lc.line, made.lc.col = line - 1, 0
    return made


def plain(node: Any) -> Any:
    """`node` as plain JSON values, without ruamel's types.

    A whole number in scientific notation becomes an int, so that `1.23e5` is written `123000`.
    """
    if isinstance(node, Mapping):
        return {str(key): plain(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [plain(item) for item in node]
    if node is None or isinstance(node, bool):
        return node
    if isinstance(node, ScalarFloat) and getattr(node, "_exp", None) and float(node).is_integer():
        return int(node)
    for kind in (int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return str(node)
