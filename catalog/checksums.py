"""Checksums, written `algorithm:hex`."""

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from zlib_ng import zlib_ng

from catalog.errors import BadInput

ADLER32, MD5, SHA256 = "adler32", "md5", "sha256"

DEFAULT = ADLER32
"""What files made by this system get: the cheapest that storages of physics understand."""

FIRST_BLOCK_BYTES, BLOCK_BYTES = 1 << 16, 1 << 22
"""The first and the largest block of a file that is read through.

Small files want small buffers. Large ones want few calls: each call that reads or hashes leaves the
interpreter, and comes back only when a thread that computes lets go of it, after 5 ms.
"""

_ADLER_BASE = 65521

_LENGTHS = {ADLER32: 8, MD5: 32, SHA256: 64}
_BY_LENGTH = {length: algorithm for algorithm, length in _LENGTHS.items()}
_HEX = re.compile(r"[0-9a-f]+\Z")
_NORMAL = re.compile(
    "(?:" + "|".join(f"{name}:[0-9a-f]{{{length}}}" for name, length in _LENGTHS.items()) + r")\Z"
)


def check_algorithm(algorithm: str) -> str:
    """`algorithm`, if it is one of ours; else `BadInput`."""
    if algorithm not in _LENGTHS:
        raise BadInput(
            f"checksum algorithm {algorithm!r} is not known; take one of {', '.join(_LENGTHS)}."
        )
    return algorithm


def normalise(text: str) -> str:
    """`algorithm:hex` in lower case, as other systems write it, too; else `BadInput`.

    Bare digits tell their algorithm by their number: 8 adler32, 32 md5, 64 sha256. With its name an
    adler32 is a number, which may have lost its leading zeros. `0x` before the digits, capitals and
    `SHA-256` mean the same.
    """
    if _NORMAL.match(text):
        return text
    algorithm, colon, digits = text.strip().lower().rpartition(":")
    algorithm, digits = algorithm.strip().replace("-", ""), digits.strip().removeprefix("0x")
    if colon:
        check_algorithm(algorithm)
    if not _HEX.match(digits):
        raise BadInput(_malformed(text))
    if not colon:
        algorithm = _BY_LENGTH.get(len(digits), "")
        if not algorithm:
            raise BadInput(_unnamed(text, digits))
    if algorithm == ADLER32:
        digits = digits.zfill(_LENGTHS[ADLER32])
    if len(digits) != _LENGTHS[algorithm]:
        raise BadInput(_malformed(text))
    return f"{algorithm}:{digits}"


def _unnamed(text: str, digits: str) -> str:
    if len(digits) < _LENGTHS[ADLER32]:
        return (
            f"checksum {text!r} has {len(digits)} hex digits, by which nobody can tell its "
            f"algorithm; write `adler32:{digits}` if it is an adler32 without its leading zeros."
        )
    return _malformed(text)


def _malformed(text: str) -> str:
    return (
        f"checksum {text!r} is malformed; write `algorithm:hex` with up to 8 hex digits for "
        "adler32, 32 for md5, 64 for sha256."
    )


def algorithm_of(checksum: str) -> str:
    """The algorithm of a checksum in `algorithm:hex` form."""
    return checksum.partition(":")[0]


class Hasher:
    """A checksum that is fed in pieces."""

    def __init__(self, algorithm: str) -> None:
        self.algorithm = check_algorithm(algorithm)
        self._adler = 1
        self._hash: Any = None
        if algorithm != ADLER32:
            self._hash = hashlib.new(algorithm, usedforsecurity=False)

    def update(self, block: bytes | memoryview) -> None:
        """Take the next bytes."""
        if self._hash is None:
            self._adler = zlib_ng.adler32(block, self._adler)
        else:
            self._hash.update(block)

    def append(self, other: "Hasher", other_bytes: int) -> None:
        """Take, by its adler32 alone, a piece that another has hashed: see RFC 1950, 8.2."""
        assert self._hash is None and other._hash is None
        before, piece = self._adler, other._adler
        low = (before & 0xFFFF) + (piece & 0xFFFF) - 1
        high = (before >> 16) + (piece >> 16) + other_bytes * ((before & 0xFFFF) - 1)
        self._adler = (high % _ADLER_BASE) << 16 | low % _ADLER_BASE

    @property
    def checksum(self) -> str:
        """`algorithm:hex` of what was given so far."""
        digits = f"{self._adler:08x}" if self._hash is None else self._hash.hexdigest()
        return f"{self.algorithm}:{digits}"


def read_blocks(read_into: Callable[[memoryview], int | None]) -> Iterator[memoryview]:
    """The blocks that `read_into` (a raw file's `readinto`) gives, in one buffer used again.

    It grows with what was read, up to `BLOCK_BYTES`.
    """
    buffer = memoryview(bytearray(FIRST_BLOCK_BYTES))
    while count := read_into(buffer):
        yield buffer[:count]
        if count == len(buffer) < BLOCK_BYTES:
            buffer = memoryview(bytearray(2 * count))


def file_checksum(path: Path, algorithm: str = DEFAULT) -> str:
    """`algorithm:hex` of a file's bytes, read in blocks; raises `OSError` as `open` does."""
    with path.open("rb", buffering=0) as file:
        return stream_checksum(file.readinto, algorithm)


def stream_checksum(read_into: Callable[[memoryview], int | None], algorithm: str) -> str:
    """`algorithm:hex` of all that `read_into` (a raw file's `readinto`) gives."""
    hasher = Hasher(algorithm)
    for block in read_blocks(read_into):
        hasher.update(block)
    return hasher.checksum
