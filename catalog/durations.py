"""Times as people write them: `90s`, `30m`, `12h`, `7d`."""

from catalog.errors import BadInput

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
MOST_S = 100 * 366 * 86400


def seconds(text: str, what: str = "a time") -> float:
    """Seconds of `90s`, `30m`, `12h` or `7d`; `what` names it in the `BadInput` for others."""
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not (number.isascii() and number.isdecimal()):
        raise BadInput(f"{what} {text!r} is no time; write 90s, 30m, 12h or 7d.")
    found = float(number) * _UNITS[unit]
    if found > MOST_S:
        raise BadInput(f"{what} {text!r} is more than a hundred years; give a shorter one.")
    return found


def words(value_s: float) -> str:
    """Seconds as people read them, such as `3 h 20 min`, two units at the most."""
    rest = max(0, round(value_s))
    parts = []
    for name, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {name}")
        elif parts:
            break
    return " ".join(parts[:2]) or "0 s"
