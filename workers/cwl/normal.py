"""The packed form of a CWL process: maps as lists, names bare, types spelled out."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from catalog.errors import BadTemplate
from workers.cwl.lines import copy_lines, file_of, line_of, mapping, sequence
from workers.cwl.source import Source, joined
from workers.cwl.words import type_defaults, typed

PRIMITIVES = frozenset(
    (
        *("null", "boolean", "int", "long", "float", "double", "string", "Any"),
        *("File", "Directory", "stdin", "stdout", "stderr"),
    )
)
_DEEP = {"class": "LoadListingRequirement", "loadListing": "deep_listing"}
_NETWORK = {"class": "NetworkAccess", "networkAccess": True}
_STEP_LISTS = ("in", "out", "scatter", "run", "requirements", "hints", "id")


def bare(name: Any) -> str:
    """The last part of an identifier: `x` of `file#main/x`."""
    return str(name).rpartition("#")[2].rpartition("/")[2]


def has_expression(text: Any) -> bool:
    """Whether `text` is a string with a `$(` or `${` in it."""
    return isinstance(text, str) and ("$(" in text or "${" in text)


@dataclass(frozen=True)
class Normaliser:
    """Brings processes of one document to the packed form."""

    source: Source
    version: str
    types: Mapping[str, Any] = field(default_factory=dict)
    namespaces: Mapping[str, str] = field(default_factory=dict)
    within: str = ""
    """The identifier, as the document has it, of the parameter, field or type that is looked at."""

    def process(self, node: Mapping[str, Any]) -> dict[str, Any]:
        """The packed form of one process; `node` is left as it was."""
        if not isinstance(node.get("class"), str):
            raise self._bad("the document has no `class`, so it is no CWL process", node)
        inner = self._inside(node)
        made = mapping(node)
        copy_lines(made, node)
        for key, value in node.items():
            if key not in ("$graph", "steps"):
                made[key] = value
        made["cwlVersion"] = "v1.2"
        made["id"] = bare(node.get("id") or self.source.path or "tool")
        for key in ("requirements", "hints"):
            made[key] = sequence(
                [one for one in inner._classes(node.get(key)) if not _is_types(one)],
                node.get(key),
            )
        made["inputs"] = inner._parameters(node, "inputs", "id")
        made["outputs"] = inner._parameters(node, "outputs", "id")
        if self._root("$schemas") is not None and "$schemas" not in made:
            made["$schemas"] = self._root("$schemas")
        if inner.namespaces:
            made["$namespaces"] = dict(inner.namespaces)
        if node["class"] == "Workflow":
            inner._workflow(node, made, inner._prefix(node))
        elif inner.version == "v1.0":
            made["hints"] += [_DEEP, _NETWORK]
        return made

    def _root(self, key: str) -> Any:
        return self.source.root.get(key)

    def _inside(self, node: Mapping[str, Any]) -> "Normaliser":
        own = node.get("$namespaces") or {}
        if not isinstance(own, Mapping):
            raise self._bad("`$namespaces` is no mapping of prefixes", node, "$namespaces")
        namespaces = {**self.namespaces, **(self._root("$namespaces") or {}), **own}
        inner = replace(
            self, namespaces=namespaces, version=str(node.get("cwlVersion") or self.version)
        )
        types = dict(self.types)
        for one in (
            *self.entries(node.get("requirements"), "class"),
            *self.entries(node.get("hints"), "class"),
        ):
            if _is_types(one):
                for schema in _flat(one.get("types", ())):
                    inner._define(types, schema)
        return replace(inner, types=types)

    def _define(self, types: dict[str, Any], schema: Mapping[str, Any]) -> None:
        """Add a named type: by its address, and by its bare name unless another file has that."""
        name = str(schema.get("name", ""))
        types[self._address(name, schema)] = schema
        known = types.setdefault(bare(name), schema)
        if file_of(known) == file_of(schema):
            types[bare(name)] = schema

    def _address(self, name: str, near: Any) -> str:
        """A type's name with the file that it belongs to, which is where it stands by default."""
        path, hash_, rest = name.rpartition("#")
        here = file_of(near)
        if here is None:
            return name
        base = Path(here).as_uri()
        return f"{joined(base, path) if path else base}#{rest if hash_ else name}"

    def _classes(self, value: Any) -> list[dict[str, Any]]:
        """Requirements or hints; without the names that `cwltool --pack` gives to imported ones."""
        made = self.entries(value, "class")
        for one in made:
            one.pop("id", None)
        return made

    def entries(
        self, value: Any, key_field: str, value_field: str | None = None
    ) -> list[dict[str, Any]]:
        """A list of mappings out of CWL's list or map form (its `mapSubject`)."""
        if value is None:
            return []
        if isinstance(value, list | tuple):
            return [self._entry(one, key_field, value, i) for i, one in enumerate(value)]
        if not isinstance(value, Mapping):
            raise self._bad(f"a list or a map was expected, not {value!r}", value)
        made: list[dict[str, Any]] = []
        for key, one in value.items():
            entry = mapping(value, key, **{key_field: key})
            if isinstance(one, Mapping):
                entry.update(one)
                copy_lines(entry, one)
            elif value_field is not None:
                entry[value_field] = one
            elif one is not None:
                raise self._bad(f"{key!r} holds {one!r}; a mapping was expected", value, key)
            made.append(entry)
        return made

    def _entry(self, one: Any, key_field: str, parent: Any, index: int) -> dict[str, Any]:
        if isinstance(one, str):
            return mapping(parent, index, **{key_field: one})
        if not isinstance(one, Mapping) or key_field not in one:
            raise self._bad(f"an entry without {key_field!r}: {one!r}", parent, index)
        entry = mapping(one, **one)
        copy_lines(entry, one)
        return entry

    def _parameters(self, node: Mapping[str, Any], key: str, name: str) -> list[dict[str, Any]]:
        if key not in node:
            raise self._bad(f"`{key}` is missing; write `{key}: []` where there are none", node)
        made = sequence([], node.get(key))
        for entry in self.entries(node[key], name, "type"):
            made.append(self.parameter(entry, name))
        names = [entry[name] for entry in made]
        for index, one in enumerate(names):
            if one in names[:index]:
                raise self._bad(f"{key}: {one!r} is declared twice", made[index])
        return made

    def parameter(self, entry: dict[str, Any], name: str) -> dict[str, Any]:
        """One input, output or record field; `entry` is changed in place."""
        inner = replace(self, within=str(entry[name]))
        entry[name] = bare(entry[name])
        if "type" not in entry:
            raise self._bad(f"{entry[name]!r} has no type", entry)
        entry["type"] = inner.type_of(entry["type"], entry)
        if entry.get("default") is not None:
            entry["default"] = typed(entry["default"], entry["type"])
        if entry.get("secondaryFiles") is not None:
            entry["secondaryFiles"] = [
                self._secondary(one) for one in _listed(entry["secondaryFiles"])
            ]
        if entry.get("format") is not None:
            formats = entry["format"]
            entry["format"] = (
                [self.iri(one) for one in formats]
                if isinstance(formats, list)
                else self.iri(formats)
            )
        return entry

    def iri(self, text: str) -> str:
        """A format with its namespace prefix spelled out."""
        prefix, colon, rest = str(text).partition(":")
        if colon and not has_expression(text) and prefix in self.namespaces:
            return f"{self.namespaces[prefix]}{rest}"
        return str(text)

    def _secondary(self, one: Any) -> dict[str, Any]:
        if isinstance(one, Mapping):
            pattern, required = one["pattern"], one.get("required")
        else:
            pattern, required = str(one), None
        if pattern.endswith("?"):
            pattern, required = pattern[:-1], False if required is None else required
        return {"pattern": pattern, "required": required}

    def type_of(self, kind: Any, near: Any, seen: tuple[str, ...] = ()) -> Any:
        """A type, spelled out. Raises `BadTemplate` on a name that nobody defines."""
        if isinstance(kind, list | tuple):
            members: list[Any] = []
            for one in kind:
                inner = self.type_of(one, near, seen)
                for member in inner if isinstance(inner, list) else [inner]:
                    if member not in members:
                        members.append(member)
            return members[0] if len(members) == 1 else members
        if isinstance(kind, Mapping):
            return self._schema(kind, seen)
        text = str(kind)
        if text.endswith("?"):
            return self.type_of(["null", text[:-1]], near, seen)
        if text.endswith("[]"):
            return {"type": "array", "items": self.type_of(text[:-2], near, seen)}
        if text in PRIMITIVES:
            return text
        name = self._address(text, near)
        if name not in self.types:
            name = bare(text)
        if name not in self.types:
            raise self._bad(f"type {text!r} is not defined", near, "type")
        if name in seen:
            raise self._bad(f"type {text!r} contains itself", near, "type")
        return self.type_of(self.types[name], near, (*seen, name))

    def _schema(self, schema: Mapping[str, Any], seen: tuple[str, ...]) -> Any:
        kind = schema.get("type")
        if kind not in ("record", "array", "enum"):
            return self.type_of(kind, schema, seen)
        made = mapping(schema, **schema)
        inner = self
        if "name" in made:
            inner = replace(self, within=str(made["name"]))
            made["name"] = bare(made["name"])
        if kind == "enum":
            made["symbols"] = [inner._symbol(str(one)) for one in schema["symbols"]]
        elif kind == "array":
            made["items"] = inner.type_of(schema["items"], schema, seen)
        else:
            made["fields"] = [
                inner.parameter(entry, "name")
                for entry in self.entries(schema.get("fields"), "name", "type")
            ]
        return made

    def _symbol(self, text: str) -> str:
        """A symbol as the author wrote it.

        Packing makes an identifier of it, below that of what it stands in; else a `/` or a `#` is
        part of it.
        """
        if "#" not in self.within:
            return text
        below = f"{self.within}/"
        if text.startswith(below):
            return text[len(below) :]
        return bare(text) if text.startswith("#") else text

    def _prefix(self, node: Mapping[str, Any]) -> str:
        """What stands before the names of a workflow's inputs and steps where they are absolute."""
        if "id" in node:
            return str(node["id"]).rpartition("#")[2]
        # A packed workflow inside of a step has no id of its own, but its steps have.
        ids = (str(step["id"]) for step in self.entries(node.get("steps"), "id"))
        return next((one.rpartition("#")[2].rpartition("/")[0] for one in ids if "#" in one), "")

    def _workflow(self, node: Mapping[str, Any], made: dict[str, Any], prefix: str) -> None:
        for output in made["outputs"]:
            if output.get("outputSource") is not None:
                output["outputSource"] = _references(output["outputSource"], prefix)
        made["steps"] = sequence([], node.get("steps"))
        for step in self.entries(node.get("steps"), "id"):
            made["steps"].append(self._step(step, prefix))

    def _step(self, step: dict[str, Any], prefix: str) -> dict[str, Any]:
        made = mapping(step, id=bare(step["id"]))
        made.update((key, value) for key, value in step.items() if key not in _STEP_LISTS)
        copy_lines(made, step)
        made["in"] = sequence([], step.get("in"))
        for entry in self.entries(step.get("in"), "id", "source"):
            entry["id"] = bare(entry["id"])
            if entry.get("source") is not None:
                entry["source"] = _references(entry["source"], prefix)
            made["in"].append(entry)
        made["out"] = [bare(one["id"]) for one in self.entries(step.get("out"), "id")]
        if step.get("scatter") is not None:
            made["scatter"] = [bare(one) for one in _listed(step["scatter"])]
        for key in ("requirements", "hints"):
            made[key] = self._classes(step.get(key))
        if "run" not in step:
            raise self._bad(f"step {made['id']!r} has no `run`", step)
        run = step["run"]
        made["run"] = self.process(run) if isinstance(run, Mapping) else run
        if isinstance(run, Mapping):
            type_defaults(made, made["run"])
        return made

    def _bad(self, reason: str, near: Any, key: str | int | None = None) -> BadTemplate:
        return BadTemplate(reason, file_of(near) or self.source.path, line_of(near, key))


def _is_types(requirement: Mapping[str, Any]) -> bool:
    return requirement.get("class") == "SchemaDefRequirement"


def _flat(types: Iterable[Any]) -> Iterable[Mapping[str, Any]]:
    for one in types:
        if isinstance(one, Mapping):
            yield one
        elif isinstance(one, list):
            yield from _flat(one)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _references(value: Any, prefix: str) -> Any:
    if isinstance(value, list | tuple):
        return sequence([_reference(str(one), prefix) for one in value], value)
    return _reference(str(value), prefix)


def _reference(text: str, prefix: str) -> str:
    """A source as `input` or `step/port`."""
    name = text.rpartition("#")[2]
    if "#" in text and prefix and name.startswith(f"{prefix}/"):
        name = name[len(prefix) + 1 :]
    return re.sub(r"^/", "", name)
