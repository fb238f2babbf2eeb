"""Numbers of CWL: within range, and written in one way however they were spelt."""

import json
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

EXACT = 2**53
"""Whole numbers beyond this lie between the doubles that JavaScript has."""


def number_text(value: int | float) -> str:
    """A number in plain decimal notation, by the fewest digits that give the same double.

    `1e3`, `1000` and `1000.0` are one number, and give one text.
    """
    if isinstance(value, int):
        return str(value)
    text = format(Decimal(repr(value)), "f")
    return text.removesuffix(".0")


def json_text(value: Any) -> str:
    """`value` as it stands inside of a text: a string as it is, anything else as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number_text(value)
    return json.dumps(_plain(value), sort_keys=True)


def _plain(value: Any) -> Any:
    """`value` with whole doubles as whole numbers, as JavaScript writes them."""
    if isinstance(value, float) and value.is_integer():
        return int(Decimal(repr(value)))
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def is_double(value: Any) -> bool:
    """Whether a value is a number that a double can hold."""
    if isinstance(value, float):
        return math.isfinite(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return False
    try:
        float(value)
    except OverflowError:
        return False
    return True


def beyond_range(value: Any, place: str = "") -> str | None:
    """Where in a JSON value a number lies beyond the range of a double; None: nowhere."""
    if isinstance(value, float):
        return None if math.isfinite(value) else place
    if isinstance(value, int):
        return None if is_double(value) or isinstance(value, bool) else place
    if isinstance(value, Mapping):
        pairs = ((f"{place}.{key}", one) for key, one in value.items())
    elif isinstance(value, list | tuple):
        pairs = ((f"{place}[{index}]", one) for index, one in enumerate(value))
    else:
        return None
    return next((found for at, one in pairs if (found := beyond_range(one, at)) is not None), None)


def is_inexact(value: Any) -> bool:
    """Whether a value holds a whole number that JavaScript would change; not of Files."""
    if isinstance(value, int):
        return not -EXACT <= value <= EXACT
    if isinstance(value, list | tuple):
        return any(map(is_inexact, value))
    if isinstance(value, Mapping) and value.get("class") not in ("File", "Directory"):
        return any(map(is_inexact, value.values()))
    return False
