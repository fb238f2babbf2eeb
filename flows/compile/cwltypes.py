"""CWL types in their JSON form: null, files, assignability, and how to say them."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_WIDER = {
    "int": {"int", "long", "float", "double"},
    "long": {"long", "float", "double"},
    "float": {"float", "double"},
    "double": {"double", "float"},
}
_FILES = frozenset({"File", "stdin", "stdout", "stderr"})


def union(value: Any) -> list[Any]:
    """The members of a type as a list."""
    return list(value) if isinstance(value, list) else [value]


def without_null(value: Any) -> list[Any]:
    """The members of a type other than null."""
    return [member for member in union(value) if member != "null"]


def required(value: Any) -> Any:
    """The type without null, as a type."""
    members = without_null(value)
    return members[0] if len(members) == 1 else members


def is_optional(value: Any) -> bool:
    """Whether null is a value of the type."""
    return any(member in ("null", "Any") for member in union(value))


def kind(member: Any) -> str:
    """The kind of a type that is no union: a primitive's name, `array`, `record` or `enum`."""
    return str(member.get("type")) if isinstance(member, Mapping) else str(member)


def is_file(value: Any) -> bool:
    """Whether the type is File (or a stream that becomes one), null aside."""
    members = without_null(value)
    return bool(members) and all(kind(member) in _FILES for member in members)


def is_file_array(value: Any) -> bool:
    """Whether the type is an array of File, null aside."""
    members = without_null(value)
    return len(members) == 1 and kind(members[0]) == "array" and is_file(members[0]["items"])


def is_directory_array(value: Any) -> bool:
    """Whether the type is an array of Directory, null aside."""
    return is_array(value) and all(member["items"] == "Directory" for member in without_null(value))


def is_array(value: Any) -> bool:
    """Whether the type is an array, null aside."""
    members = without_null(value)
    return bool(members) and all(kind(member) == "array" for member in members)


def joined(members: Iterable[Any]) -> Any:
    """One type of several, each once."""
    found: list[Any] = []
    for member in members:
        if member not in found:
            found.append(member)
    return found[0] if len(found) == 1 else found


def parts(value: Any) -> Iterator[str]:
    """The kinds of a type and of all types inside it."""
    for member in union(value):
        yield kind(member)
        if kind(member) == "array":
            yield from parts(member["items"])
        elif kind(member) == "record":
            for field in member.get("fields", []):
                yield from parts(field["type"])


def holds_files(value: Any) -> bool:
    """Whether a File may be in a value of the type."""
    return any(part in _FILES for part in parts(value))


def array_of(value: Any) -> dict[str, Any]:
    """The type of a list of such values."""
    return {"type": "array", "items": value}


def assignable(source: Any, sink: Any) -> str:
    """`yes`, `no` or `maybe` (some values of the source fit); a null on top is left out."""
    found = [
        any(_single(member, taken) for taken in without_null(sink))
        for member in without_null(source)
    ]
    if not found:
        return "maybe"
    if all(found):
        return "yes"
    return "maybe" if any(found) else "no"


def _single(source: Any, sink: Any) -> bool:
    first, second = kind(source), kind(sink)
    if "Any" in (first, second):
        return True
    if first in _FILES and second in _FILES:
        return True
    if first == "array" and second == "array":
        inner = source["items"], sink["items"]
        null_fits = not is_optional(inner[0]) or is_optional(inner[1])
        return null_fits and assignable(*inner) != "no"
    if first == "enum" and second == "enum":
        return set(source["symbols"]) <= set(sink["symbols"])
    if first == "record" and second == "record":
        return _record(source, sink)
    if first == "enum" and second == "string":
        return True
    return second in _WIDER.get(first, {first})


def _record(source: Any, sink: Any) -> bool:
    given = {field["name"]: field["type"] for field in source.get("fields", [])}
    for field in sink.get("fields", []):
        if field["name"] not in given:
            if not is_optional(field["type"]):
                return False
        elif assignable(given[field["name"]], field["type"]) == "no":
            return False
    return True


def describe(value: Any) -> str:
    """The type as a reader would write it, such as `File[]?`."""
    members = without_null(value)
    mark = "?" if len(members) < len(union(value)) else ""
    text = " | ".join(_describe_member(member) for member in members) or "null"
    return (f"({text})" if mark and len(members) > 1 else text) + mark


def _describe_member(member: Any) -> str:
    name = kind(member)
    if name == "array":
        inner = describe(member["items"])
        return f"({inner})[]" if " | " in inner else f"{inner}[]"
    if name == "enum":
        return "enum of " + "/".join(member["symbols"])
    return "File" if name in _FILES else name
