"""One self-contained document out of a template's files: what the catalog stores."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from catalog.errors import BadTemplate
from flows.compile.explain import check_references, explain
from flows.compile.hints import NAMESPACES, canonical_class
from flows.compile.located import Mapping, Sequence, changed, items_like, locate, refuse
from workers.cwl.document import Reader, resolve
from workers.cwl.source import is_file, path_of, read_source
from workers.cwl.words import type_defaults

MAX_LITERAL_BYTES = 64 * 1024
"""CWL's own limit for the contents that a File literal carries."""


def pack(path: Path) -> Mapping:
    """The workflow at `path` with everything that it refers to inside, and its lines.

    Raises BadTemplate: no such file, no YAML, no CWL, no Workflow, or a reference that can't
    be followed.
    """
    uri = path.absolute().as_uri()
    read: Reader = lru_cache(maxsize=None)(read_source)
    root = _read(uri, (), read)
    if root.get("class") != "Workflow":
        refuse(
            f"a template is a Workflow, and this is a {root.get('class')}; write a Workflow "
            "with one step that runs it.",
            root,
            "class",
        )
    packed = _process(root, (uri,), read, main=True)
    used = {prefix: NAMESPACES[prefix] for prefix in _prefixes(packed)}
    return changed(packed, {"$namespaces": used}) if used else packed


def _read(reference: str, stack: tuple[str, ...], read: Reader) -> Mapping:
    if reference in stack:
        raise BadTemplate(f"{reference} runs itself; a template can't be recursive.", reference)
    uri = reference.partition("#")[0]
    root = locate(read(uri).root, source=str(path_of(uri)))
    # Before the schema's checks, which look for what a `run` names even on the network.
    check_references(root)
    try:
        document = resolve(reference, read)
    except BadTemplate as fault:
        if fault.reason.startswith("not valid CWL"):
            explain(root)
        raise
    located: Mapping = locate(document, source=str(path_of(uri)))
    return located


def _process(node: Mapping, stack: tuple[str, ...], read: Reader, main: bool = False) -> Mapping:
    """The process without what belongs to its file alone, and with its steps' runs inside."""
    namespaces = node.get("$namespaces") or {}
    kept = changed(
        node,
        {key: None for key in node if key.startswith("$") or ":" in key or key == "id"},
    )
    for key in ("requirements", "hints"):
        kept[key] = _classes(kept.get(key), namespaces)
    for key in ("inputs", "outputs"):
        kept[key] = _each(kept.get(key), lambda port: _port(port, embed=not main))
    if kept.get("class") == "Workflow":
        kept["steps"] = _each(kept.get("steps"), lambda step: _step(step, stack, namespaces, read))
    return kept


def _step(step: Mapping, stack: tuple[str, ...], namespaces: Any, read: Reader) -> Mapping:
    run = step.get("run")
    inner = stack
    if isinstance(run, str):
        inner = (*stack, run)
        try:
            run = _read(run, stack, read)
        except BadTemplate as fault:
            # A reference that can't be followed is a fault of the document that has it.
            if fault.line is None:
                refuse(f"step {step.get('id')!r} can't run {run!r}: {fault.reason}", step, "run")
            raise
    if not isinstance(run, Mapping):
        refuse(f"step {step.get('id')!r} has no `run`.", step, "run")
    if not run.get("$namespaces"):
        run["$namespaces"] = namespaces
    type_defaults(step, run)
    for port in step["in"]:
        if "default" in port:
            port["default"] = locate(port["default"], port.source, port.at("default"))
    changes: dict[str, Any] = {"run": _process(run, inner, read)}
    changes.update({key: None for key in step if ":" in key})
    for key in ("requirements", "hints"):
        changes[key] = _classes(step.get(key), namespaces)
    changes["in"] = _each(step.get("in"), lambda port: _port(port, embed=True))
    return changed(step, changes)


def _each(nodes: Any, change: Any) -> Sequence:
    return items_like(nodes, [change(node) for node in nodes or ()])


def _classes(nodes: Any, namespaces: Any) -> Sequence:
    """Requirements or hints with the classes that we know under their usual prefix."""
    result = []
    for node in nodes or ():
        name = canonical_class(node, namespaces)
        result.append(_embed(changed(node, {"class": name})))
    return items_like(nodes, result)


def _port(port: Mapping, embed: bool) -> Mapping:
    changes: dict[str, Any] = {key: None for key in port if ":" in key}
    if "type" in port:
        changes["type"] = _unnamed(port["type"])
    if port.get("default") is not None:
        _no_directory(port["default"], port)
        if embed:
            changes["default"] = _embed(port["default"])
    return changed(port, changes)


def _no_directory(value: Any, port: Mapping) -> None:
    if isinstance(value, dict):
        if value.get("class") == "Directory":
            refuse("a Directory can't be a default; pack it into one File.", port, "default")
        for item in value.values():
            _no_directory(item, port)
    elif isinstance(value, list):
        for item in value:
            _no_directory(item, port)


def _unnamed(value: Any) -> Any:
    """A type without names: each place has its own copy, and a name may stand only once."""
    if isinstance(value, Sequence):
        return items_like(value, [_unnamed(item) for item in value])
    if not isinstance(value, Mapping):
        return value
    changes: dict[str, Any] = {"name": None} if "name" in value else {}
    if "items" in value:
        changes["items"] = _unnamed(value["items"])
    if isinstance(value.get("fields"), list):
        changes["fields"] = _each(
            value["fields"], lambda field: changed(field, {"type": _unnamed(field.get("type"))})
        )
    return changed(value, changes)


def _embed(value: Any) -> Any:
    """`value` with small text Files in it as literals, so that no file of the template is left."""
    if isinstance(value, Sequence):
        return items_like(value, [_embed(item) for item in value])
    if not isinstance(value, Mapping):
        return value
    changes = {key: _embed(item) for key, item in value.items() if isinstance(item, (dict, list))}
    result = changed(value, changes)
    if result.get("class") == "File" and "contents" not in result:
        text = _text(result)
        if text is not None:
            name = result.get("basename") or _path(result).name
            result = changed(result, {"contents": text, "basename": name, "location": None})
    return result


def _path(value: Mapping) -> Path:
    location = str(value.get("location", ""))
    if not location.startswith("file:"):
        refuse(f"the File {location!r} is not on this machine; give a path.", value, "location")
    return path_of(location)


def _text(value: Mapping) -> str | None:
    """The contents of a default File, if they may stand in a document."""
    if "location" not in value:
        return None
    path = _path(value)
    if not is_file(path):
        refuse(f"there is no file {str(path)!r}; correct its location.", value, "location")
    if path.stat().st_size > MAX_LITERAL_BYTES:
        return None
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _prefixes(packed: Mapping) -> list[str]:
    found: set[str] = set()

    def walk(process: Mapping) -> None:
        for node in (process, *process.get("steps", ())):
            for key in ("requirements", "hints"):
                for entry in node.get(key, ()):
                    found.add(str(entry["class"]).partition(":")[0])
        for step in process.get("steps", ()):
            walk(step["run"])

    walk(packed)
    return [prefix for prefix in NAMESPACES if prefix in found]
