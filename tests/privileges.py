"""Tests without root's right to read and write what its mode forbids."""

import ctypes
import struct
from collections.abc import Iterator
from contextlib import contextmanager

_VERSION = 0x20080522
_OVERRIDE = 1 << 1 | 1 << 2
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH."""


@contextmanager
def modes_hold() -> Iterator[None]:
    """In this thread, and in those that it starts meanwhile, modes hold for root, too."""
    before = _capabilities()
    effective = before[0] & ~_OVERRIDE
    _set((effective, *before[1:]))
    try:
        yield
    finally:
        _set(before)


def _capabilities() -> tuple[int, ...]:
    header, data = struct.pack("Ii", _VERSION, 0), ctypes.create_string_buffer(24)
    _call("capget", header, data)
    return struct.unpack("6I", data.raw)


def _set(words: tuple[int, ...]) -> None:
    header = struct.pack("Ii", _VERSION, 0)
    _call("capset", header, ctypes.create_string_buffer(struct.pack("6I", *words), 24))


def _call(name: str, header: bytes, data: "ctypes.Array[ctypes.c_char]") -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(header, data) != 0:
        raise OSError(ctypes.get_errno(), name)
