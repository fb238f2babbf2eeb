"""Whether two runners ended a case alike: by failure or success, values, names and checksums."""

from collections.abc import Mapping
from typing import Any

from tests.differential.runners import Ended

_OF_FILES = ("class", "basename", "checksum", "size", "format")


def difference(ours: Ended, theirs: Ended) -> str | None:
    """What is different, in words; None: nothing."""
    if ours.defect:
        return f"ours broke:\n{ours.reason}"
    if (ours.outputs is None) != (theirs.outputs is None):
        if ours.outputs is None:
            return f"only ours fails: {ours.reason}"
        return f"only theirs fails: {theirs.reason[-800:]}"
    if ours.outputs is None or theirs.outputs is None:
        return None
    return _differ("outputs", normal(ours.outputs), normal(theirs.outputs))


def normal(value: Any) -> Any:
    """An output in a form that doesn't tell where its files lie; what is null is left out.

    A pattern may name the file itself; that one isn't taken for a secondary file.
    """
    if isinstance(value, list):
        return [normal(one) for one in value]
    if not isinstance(value, Mapping):
        return value
    if value.get("class") in ("File", "Directory"):
        made = {key: value[key] for key in _OF_FILES if value.get(key) is not None}
        for key in ("secondaryFiles", "listing"):
            if value.get(key):
                inner = sorted(map(normal, value[key]), key=lambda one: str(one["basename"]))
                made[key] = [one for one in inner if one["basename"] != value.get("basename")]
        if made.get("secondaryFiles") == []:
            del made["secondaryFiles"]
        return made
    return {key: normal(one) for key, one in value.items() if one is not None}


def _differ(place: str, ours: Any, theirs: Any) -> str | None:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted(ours.keys() | theirs.keys()):
            found = _differ(f"{place}.{key}", ours.get(key), theirs.get(key))
            if found:
                return found
        return None
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs, strict=True))
        return next((d for i, (a, b) in pairs if (d := _differ(f"{place}[{i}]", a, b))), None)
    if isinstance(ours, bool) == isinstance(theirs, bool) and ours == theirs:
        return None
    return f"{place}: ours {ours!r}, theirs {theirs!r}"
