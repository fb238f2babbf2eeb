"""JSON that every database gives back as it was: a double stays a double."""

import json
import re
from decimal import Decimal
from typing import Any

_TEXT_OR_LARGE = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?e\+\d+')


def dumps(value: Any) -> str:
    """`value` as JSON text.

    PostgreSQL's jsonb keeps numbers as decimals, and so gives `1e+16` back as a whole number: such
    doubles are written with all their digits and a `.0`.
    """
    text = json.dumps(value)
    return _TEXT_OR_LARGE.sub(_in_digits, text) if "e+" in text else text


def _in_digits(found: re.Match[str]) -> str:
    text = found.group()
    return text if text.startswith('"') else f"{Decimal(text):f}.0"
