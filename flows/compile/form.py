"""The inputs of a template as a form: its JSON Schema, and what was typed as CWL values."""

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from catalog.errors import BadInput
from catalog.places import kept_path
from flows.compile import cwltypes
from flows.plan import FixedInput, Plan
from workers.cwl.files import place_of
from workers.cwl.numbers import beyond_range, is_double

_SHOWN = 200
_SAID = ("basename", "format", "size", "checksum", "metadata", "secondaryFiles")
"""What a File object may say beside where it lies."""
_INTEGERS = {"int": 2**31, "long": 2**63}
_SIMPLE = {
    "int": "integer",
    "long": "integer",
    "float": "number",
    "double": "number",
    "boolean": "boolean",
    "string": "string",
}


def parameter_schema(plan: Plan, name: str) -> dict[str, Any]:
    """The JSON Schema (Prefect's `parameter_openapi_schema`) of the template's run form."""
    inputs = plan.fixed
    properties = {}
    for position, item in enumerate(inputs):
        properties[item.name] = {**_field(item), "position": position}
    needed = [item.name for item in inputs if item.required]
    group: dict[str, Any] = {
        "title": "inputs",
        "type": "object",
        "description": "The template's inputs other than the dataset.",
        "properties": properties,
        "additionalProperties": False,
        "position": 1,
    }
    if needed:
        group["required"] = needed
    else:
        group["default"] = {}
    return {
        "title": name,
        "type": "object",
        "properties": {
            "dataset": {
                "title": "dataset",
                "type": "string",
                "description": f"Name of the dataset for `{plan.dataset_input}`.",
                "position": 0,
            },
            "inputs": group,
            "rank": {
                "title": "rank",
                "type": "integer",
                "description": "Priority; a higher rank is served first.",
                "default": plan.rank,
                "position": 2,
            },
        },
        "required": ["dataset", "inputs"] if needed else ["dataset"],
        "definitions": {},
    }


def _field(item: FixedInput) -> dict[str, Any]:
    field: dict[str, Any] = {"title": item.name, **_schema(item.type)}
    if item.doc:
        field["description"] = item.doc
    if item.default is not None:
        field["default"] = _typed(item.default)
    return field


def _typed(default: Any) -> Any:
    """A default as a user would type it: a File by its path, or `file:ID` once it is stored."""
    if isinstance(default, Mapping):
        if default.get("class") == "File":
            if "file_id" in default:
                return f"file:{default['file_id']}"
            return str(default.get("location") or default.get("path") or "").removeprefix("file://")
        return {key: _typed(value) for key, value in default.items()}
    if isinstance(default, list):
        return [_typed(value) for value in default]
    return default


def _schema(kind: Any) -> dict[str, Any]:
    members = cwltypes.without_null(kind)
    if len(members) != 1:
        return {"anyOf": [_schema(member) for member in members]}
    member, name = members[0], cwltypes.kind(members[0])
    if name in _SIMPLE:
        return {"type": _SIMPLE[name]}
    if name == "File":
        return {"type": "string", "format": "path"}
    if name == "enum":
        return {"type": "string", "enum": list(member["symbols"])}
    if name == "array":
        return {"type": "array", "items": _schema(member["items"])}
    if name == "record":
        fields = member.get("fields", [])
        return {
            "type": "object",
            "properties": {f["name"]: {"title": f["name"], **_schema(f["type"])} for f in fields},
            "required": [f["name"] for f in fields if not cwltypes.is_optional(f["type"])],
            "additionalProperties": False,
        }
    return {}


def parse_input(plan: Plan, name: str, text: Any) -> Any:
    """The CWL value that `text` (of `--input NAME=TEXT`) stands for, or that a form's value does.

    A File is a path; in a text, lists and records are JSON. Raises BadInput.
    """
    item = _named(plan, name)
    if not isinstance(text, str):
        return _value(item.type, text, name)
    fault = ""
    for member in cwltypes.without_null(item.type):
        try:
            return _value(member, _read(member, text), name)
        except BadInput as error:
            fault = fault or str(error)
    if text == "null" and cwltypes.is_optional(item.type):
        return None
    raise BadInput(fault)


def _named(plan: Plan, name: str) -> FixedInput:
    for item in plan.fixed:
        if item.name == name:
            return item
    if name == plan.dataset_input:
        raise BadInput(f"input {name!r} is the dataset; name the dataset instead of giving it.")
    known = ", ".join(item.name for item in plan.fixed) or "none"
    raise BadInput(f"the template has no input {name!r}; it has {known}.")


def _read(member: Any, text: str) -> Any:
    """The JSON value that a text is for a type; the text itself where it is none."""
    if cwltypes.kind(member) in ("string", "enum", "File"):
        return text
    try:
        return json.loads(text, object_pairs_hook=_each_once)
    except ValueError:
        return text
    except RecursionError:
        raise BadInput(f"{_shown(text)} is nested too deeply; give fewer levels.") from None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadInput(f"{twice!r} stands twice in one JSON object; give it once.")
    return made


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _value(kind: Any, value: Any, name: str) -> Any:
    """`value`, if it fits the type, with Files as CWL objects."""
    if value is None and cwltypes.is_optional(kind):
        return None
    members = cwltypes.without_null(kind)
    if len(members) == 1:
        return _single(members[0], value, name)
    for member in members:
        try:
            return _single(member, value, name)
        except BadInput:
            continue
    return _wrong(kind, value, name)


def _single(member: Any, value: Any, name: str) -> Any:
    kind = cwltypes.kind(member)
    if kind == "Any":
        if beyond_range(value) is not None:
            _wrong(member, value, name, "keep to the range of a double")
        return value if value is not None else _wrong(member, value, name)
    if kind == "File":
        return _file(value, name)
    if kind == "array":
        if not isinstance(value, list):
            _wrong(member, value, name, "give a JSON list")
        return [_value(member["items"], item, f"{name}[{i}]") for i, item in enumerate(value)]
    if kind == "record":
        return _record(member, value, name)
    if kind == "enum":
        return value if value in member["symbols"] else _wrong(member, value, name)
    if kind in _INTEGERS:
        bound = _INTEGERS[kind]
        if isinstance(value, bool) or not isinstance(value, int) or not -bound <= value < bound:
            _wrong(member, value, name)
        return value
    if kind in ("float", "double"):
        if not is_double(value):
            _wrong(member, value, name, "correct it, or keep to the range of a double")
        return float(value)
    expected = bool if kind == "boolean" else str
    return value if isinstance(value, expected) else _wrong(member, value, name)


def _record(member: Any, value: Any, name: str) -> dict[str, Any]:
    fields = {field["name"]: field["type"] for field in member.get("fields", [])}
    if not isinstance(value, Mapping):
        _wrong(member, value, name, "give a JSON object")
    unknown = [key for key in value if key not in fields]
    if unknown:
        raise BadInput(
            f"input {name!r} has no field {unknown[0]!r}; it has {', '.join(fields) or 'none'}."
        )
    return {key: _value(kind, value.get(key), f"{name}.{key}") for key, kind in fields.items()}


def _file(value: Any, name: str) -> dict[str, Any]:
    said: dict[str, Any] = {}
    if isinstance(value, Mapping) and value.get("class") == "File":
        said = {key: one for key, one in value.items() if key in _SAID}
        value = place_of(value)
    if not isinstance(value, str) or not value or "\0" in value:
        return _wrong("File", value, name, "give a path")
    path = kept_path(value)
    if not path.is_file():
        raise BadInput(f"input {name!r}: there is no file {str(path)!r}; correct the path.")
    return {**said, "class": "File", "path": str(path)}


def _wrong(kind: Any, value: Any, name: str, mend: str = "correct it") -> NoReturn:
    said = f"input {name!r} is {_shown(value)}, but must be {cwltypes.describe(kind)}"
    raise BadInput(f"{said}; {mend}.")
