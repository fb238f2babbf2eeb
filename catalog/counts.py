"""Counted things in sentences: one file, two files."""


def count_of(number: int, noun: str, many: str | None = None) -> str:
    """`1 file` or `2 files`; `many` is the plural that isn't the noun with an s."""
    return f"{number} {noun if number == 1 else many or f'{noun}s'}"
