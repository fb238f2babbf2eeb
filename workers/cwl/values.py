"""Values as their declared types say, whatever way they were written."""

import json
from collections.abc import Mapping
from typing import Any

from workers.cwl.numbers import beyond_range
from workers.cwl.parameters import Type

_MOST_LEVELS = 100
_MOST_BYTES = 16 << 20


def settled(kind: Type, value: Any) -> Any:
    """`value`, which fits `kind`, in the one form that all spellings of it have.

    A double is one, also where it was written as `1000` or a database gave it back so; a field
    that a record leaves out is null.
    """
    if not kind.settles or value is None:
        return value
    kind = kind.member(value)
    match kind.kind:
        case "float" | "double":
            # The sum makes -0.0 the 0 that databases and JavaScript make of it.
            return float(value) + 0.0
        case "array":
            assert kind.items is not None
            return [settled(kind.items, one) for one in value]
        case "record":
            fields = {one.name: settled(one.type, value.get(one.name)) for one in kind.fields}
            return {**value, **fields}
    return value


def unstorable(value: Any) -> str | None:
    """Why no row can hold a JSON value, in words that follow its name; None: one can.

    Fields that its type doesn't declare may be anything.
    """
    level, left = 0, [value]
    while left:
        level += 1
        if level > _MOST_LEVELS:
            return f"is nested more than {_MOST_LEVELS} levels deep"
        inner: list[Any] = []
        for one in left:
            if isinstance(one, Mapping):
                inner += [*one.keys(), *one.values()]
            elif isinstance(one, list | tuple):
                inner += one
            elif (fault := _fault_of(one)) is not None:
                return fault
        left = inner
    if len(json.dumps(value)) > _MOST_BYTES:
        return f"is a value of more than {_MOST_BYTES} bytes; let the tool write a file"
    return None


def _fault_of(value: str | int | float | bool | None) -> str | None:
    if not isinstance(value, str):
        far = beyond_range(value) is not None
        return "holds a number beyond the range of a double" if far else None
    try:
        value.encode()
    except UnicodeEncodeError:
        return f"holds the text {value[:100]!r}, which is no UTF-8"
    return f"holds the text {value[:100]!r}, with a NUL in it" if "\0" in value else None
