"""Reading CWL files: YAML with line numbers, links between files followed."""

import re
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from catalog.errors import BadTemplate
from workers.cwl.lines import changed, copied, file_of, line_of
from workers.cwl.reading import MAX_TEXT_BYTES, Word, read_yaml
from workers.cwl.words import spoken

_REFERENCE = "#"
_SCHEME = re.compile("[A-Za-z][A-Za-z0-9+.-]*:")
_BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True)
class Source:
    """A document as read: `root` has its links resolved; `path` is for messages."""

    uri: str
    path: str
    root: dict[str, Any]


def fragment_of(path_or_uri: str | Path) -> tuple[str, str | None]:
    """The `file://` URI of what is named, and the name behind `#`, if there is one."""
    text = str(path_or_uri)
    if is_file(text):
        # A file's name may hold any character.
        return Path(text).absolute().as_uri(), None
    bare, _, fragment = text.partition(_REFERENCE)
    scheme = urllib.parse.urlsplit(joined("", bare)).scheme
    if scheme == "file":
        return bare, urllib.parse.unquote(fragment) or None
    if scheme:
        raise BadTemplate(
            f"{scheme} addresses are not fetched; save the document as a file and name that",
            text,
        )
    return Path(bare).absolute().as_uri(), fragment or None


def joined(base: str, text: str) -> str:
    """An address as seen from another; raises `BadTemplate` for a text that can be none."""
    try:
        # An address that is whole is looked at only by `urlsplit`.
        urllib.parse.urlsplit(text)
        return urllib.parse.urljoin(base, text)
    except ValueError as fault:
        raise BadTemplate(f"{text!r} is no address: {fault}; correct it") from fault


def is_file(path: str | Path) -> bool:
    """Whether there is a regular file of that name, which may be one that no file can have."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def path_of(uri: str) -> Path:
    """The local path of a `file://` URI."""
    return Path(urllib.parse.unquote(urllib.parse.urlsplit(uri).path))


def read_source(uri: str) -> Source:
    """Read the CWL document at a `file://` URI; raises `BadTemplate`."""
    root = spoken(read_values(uri))
    own = uri + _REFERENCE
    bases = tuple(base for base in set(_bases(root)) if base != own)
    return Source(uri, str(path_of(uri)), _moved(root, bases, own) if bases else root)


def _bases(node: Any) -> Iterator[str]:
    """The addresses, with `#`, of the files in which a document says that its processes stand."""
    for item in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _bases(item)
    if isinstance(node, dict) and "class" in node and isinstance(node.get("id"), str):
        base, hash_, _ = node["id"].partition(_REFERENCE)
        if hash_ and base.startswith("file:"):
            yield base + hash_


def _moved(node: Any, bases: tuple[str, ...], own: str) -> Any:
    """A copy in which names in the files that a packed document was made of are its own names."""
    if isinstance(node, str):
        base = next((base for base in bases if node.startswith(base)), None)
        return node if base is None else own + node.removeprefix(base)
    if isinstance(node, dict | list):
        return changed(node, lambda one: _moved(one, bases, own))
    return node


def read_values(uri: str, form: str = "`cwlVersion: v1.2`, `class: …`") -> dict[str, Any]:
    """The mapping at a `file://` URI with its links resolved; its words are `Word`s yet.

    Raises `BadTemplate`, which says what `form` it has to have.
    """
    path = path_of(uri)
    parsed = _parse(path)
    if not isinstance(parsed, dict):
        said = "is empty" if parsed is None else "is no mapping of names to values"
        raise BadTemplate(f"the document {said}; write {form}", str(path))
    root: Any = _Links(uri, parsed).expanded(parsed, (uri,))
    return cast("dict[str, Any]", root)


def _parse(path: Path) -> Any:
    return read_yaml(_text(path).removeprefix(_BYTE_ORDER_MARK), str(path))


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise BadTemplate(f"it has more than {MAX_TEXT_BYTES >> 20} MiB", str(path))
        return path.read_text("utf-8")
    except (OSError, ValueError) as fault:
        reason = getattr(fault, "strerror", None) or (
            "it is no UTF-8 text" if isinstance(fault, UnicodeDecodeError) else str(fault)
        )
        raise BadTemplate(f"the document can't be read: {reason}", str(path)) from fault


@dataclass(frozen=True)
class _Links:
    """Resolves `$import`, `$include`, `$mixin` and relative addresses of one file."""

    uri: str
    root: Any

    def expanded(self, node: Any, stack: tuple[str, ...]) -> Any:
        """`node`, changed in place, or what it links to; `stack` is what is being read."""
        if isinstance(node, list):
            for index, item in enumerate(node):
                node[index] = self.expanded(item, stack)
        elif isinstance(node, dict):
            linked = self._linked(node, stack)
            if linked is not None:
                return linked
            self._absolutise(node)
            for key, value in node.items():
                node[key] = self.expanded(value, stack)
        return node

    def _linked(self, node: dict[str, Any], stack: tuple[str, ...]) -> Any:
        for kind in ("$import", "$include", "$mixin"):
            if kind not in node:
                continue
            if kind != "$mixin" and len(node) != 1:
                raise self._bad(f"`{kind}` stands alone; remove what is beside it", node, kind)
            named = written(node[kind])
            try:
                target, fragment = fragment_of(joined(self.uri, named))
                if kind == "$include":
                    return _text(path_of(target))
                found = self._imported(node, kind, target, fragment, stack)
            except BadTemplate as fault:
                if fault.line is not None:
                    raise
                raise self._bad(f"{kind} of {named!r}: {fault.reason}", node, kind) from fault
            if kind == "$mixin":
                del node[kind]
                found.update(self.expanded(node, stack))
            return found
        return None

    def _absolutise(self, node: dict[str, Any]) -> None:
        """Make relative addresses of a mapping whole."""
        if node.get("class") in ("File", "Directory"):
            for key in ("location", "path"):
                text = written(node.get(key) or "")
                if text and "$(" not in text:
                    place = self._joined(node, key, _quoted(text, key))
                    del node[key]
                    node["location"] = place
                    break
        if isinstance(node.get("run"), str) and "in" in node:
            node["run"] = self._joined(node, "run", node["run"])
        schemas = node.get("$schemas")
        if isinstance(schemas, list):
            # In place: the list knows its lines.
            schemas[:] = [self._joined(node, "$schemas", written(item)) for item in schemas]

    def _joined(self, node: dict[str, Any], key: str, text: str) -> str:
        try:
            return joined(self.uri, text)
        except BadTemplate as fault:
            raise self._bad(f"`{key}`: {fault.reason}", node, key) from fault

    def _bad(self, reason: str, node: Any, kind: str) -> BadTemplate:
        return BadTemplate(reason, file_of(node) or str(path_of(self.uri)), line_of(node, kind))

    def _imported(
        self, node: Any, kind: str, target: str, fragment: str | None, stack: tuple[str, ...]
    ) -> Any:
        """What stands at a link: a file, or what a file (this one, too) has under a name."""
        within = target == self.uri and fragment is not None
        name = f"{target}{_REFERENCE}{fragment}" if within else target
        if name in stack:
            raise self._bad(f"{kind} of {name} leads back to itself", node, kind)
        links = self if within else _Links(target, _parse(path_of(target)))
        found = links.root
        if fragment is not None:
            found = _named(found, fragment)
            if found is None:
                raise self._bad(
                    f"{kind} names {fragment!r}, which {path_of(target)} does not have; correct it",
                    node,
                    kind,
                )
        return links.expanded(copied(found), (*stack, name))


def _named(node: Any, fragment: str) -> Any:
    """The first mapping in `node` whose `id` or `name` is `fragment`; None if there is none."""
    if isinstance(node, dict):
        for key in ("id", "name"):
            if key in node and written(node[key]).rpartition(_REFERENCE)[2] == fragment:
                return node
    for item in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        found = _named(item, fragment)
        if found is not None:
            return found
    return None


def _quoted(text: str, key: str) -> str:
    """A plain path as a relative URI; what is a URI already stays as it is."""
    if key == "path" or ("%" not in text and not _SCHEME.match(text)):
        return urllib.parse.quote(text)
    return text


def written(node: Any) -> str:
    """A scalar as it stands in the document."""
    return node.text if isinstance(node, Word) else str(node)


def plain(node: Any) -> Any:
    """`node` as plain JSON values, without ruamel's types. Raises `BadTemplate` as `Word.value`."""
    if isinstance(node, Word):
        return node.value
    if isinstance(node, Mapping):
        return {str(key): plain(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [plain(item) for item in node]
    return node
