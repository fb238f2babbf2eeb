"""Plainer words for faults that the schema's own messages hide among alternatives."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from flows.compile.hints import canonical_class
from flows.compile.located import Mapping, Sequence, refuse
from flows.compile.requirements import check_requirement
from workers.cwl.source import is_file, path_of


def check_references(root: Mapping) -> None:
    """Raise BadTemplate for a step that runs what is not on this machine."""
    for node in _mappings(root):
        run = node.get("run")
        if not isinstance(run, str) or "in" not in node:
            continue
        scheme = urlsplit(run).scheme
        if scheme not in ("", "file"):
            refuse(
                f"{run!r} is not on this machine, and nothing is fetched; save it beside the "
                "template and name that file.",
                node,
                "run",
            )
        if scheme == "file" and not is_file(path_of(run.partition("#")[0])):
            refuse(f"there is no file {str(path_of(run))!r} to run; correct `run`.", node, "run")


def explain(root: Mapping) -> None:
    """Raise BadTemplate for an unknown requirement or a repeated step in an invalid document.

    Returns where neither is at fault.
    """
    namespaces = root.get("$namespaces") or {}
    for node in _mappings(root):
        for entry in _classes(node.get("requirements")):
            entry["class"] = canonical_class(entry, namespaces)
            check_requirement(entry)
        _check_steps(node.get("steps"))


def _mappings(node: Any) -> Iterator[Mapping]:
    if isinstance(node, Mapping):
        yield node
    for item in node.values() if isinstance(node, Mapping) else node:
        if isinstance(item, (Mapping, Sequence)):
            yield from _mappings(item)


def _classes(node: Any) -> Iterator[Mapping]:
    if isinstance(node, Sequence):
        yield from (item for item in node if isinstance(item, Mapping) and "class" in item)
    elif isinstance(node, Mapping):
        for name in node:
            entry = Mapping({"class": name})
            entry.source, entry.line = node.source, node.at(name)
            yield entry


def _check_steps(node: Any) -> None:
    seen: set[Any] = set()
    for step in node if isinstance(node, Sequence) else ():
        name = step.get("id") if isinstance(step, Mapping) else None
        if not isinstance(name, str):
            continue
        if name in seen:
            refuse(f"there are two steps {name!r}; rename one.", step)
        seen.add(name)
