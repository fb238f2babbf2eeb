"""Checksums: how they are written, and that they are right."""

import hashlib
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.checksums import BLOCK_BYTES, Hasher, file_checksum, normalise
from catalog.errors import BadInput

EMPTY_MD5 = hashlib.md5(b"").hexdigest()
EMPTY_SHA = hashlib.sha256(b"").hexdigest()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("00000001", "adler32:00000001"),
        ("DEADBEEF", "adler32:deadbeef"),
        (EMPTY_MD5, f"md5:{EMPTY_MD5}"),
        (EMPTY_SHA, f"sha256:{EMPTY_SHA}"),
        ("Adler32:0000ABCD", "adler32:0000abcd"),
        (f" md5:{EMPTY_MD5.upper()}\n", f"md5:{EMPTY_MD5}"),
        ("adler32:1", "adler32:00000001"),
        ("adler32:0xABC1234", "adler32:0abc1234"),
        ("ADLER32: 0x1", "adler32:00000001"),
        ("0x0ABC1234", "adler32:0abc1234"),
        (f"SHA-256:{EMPTY_SHA.upper()}", f"sha256:{EMPTY_SHA}"),
    ],
)
def test_checksums_are_normalised(text: str, expected: str) -> None:
    assert normalise(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", ":", "md5:", "xyz", "0000000", "adler32:0x", f"adler32:{EMPTY_MD5}", "md5:0000000g",
     ":00000001", "1:2:00000001", "sha1:" + "0" * 40, "0" * 40, "adler32=00000001", "٠" * 8],
)  # fmt: skip
def test_malformed_checksums_are_refused(text: str) -> None:
    with pytest.raises(BadInput):
        normalise(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("abc1234", "has 7 hex digits, by which nobody can tell its algorithm; write `adler32:abc"),
        ("sha1:" + "0" * 40, "algorithm 'sha1' is not known; take one of adler32, md5, sha256"),
        ("0" * 40, "malformed; write `algorithm:hex` with up to 8 hex digits for adler32, 32 for"),
        ("md5:12", "32 for md5"),
        ("adler32:123456789", "up to 8 hex digits for adler32"),
    ],
)
def test_what_is_refused_is_refused_with_a_true_sentence(text: str, sentence: str) -> None:
    with pytest.raises(BadInput) as refused:
        normalise(text)
    assert sentence in str(refused.value)


def test_an_unknown_algorithm_is_named_with_those_there_are() -> None:
    with pytest.raises(BadInput, match="'crc32' is not known; take one of adler32, md5, sha256"):
        Hasher("crc32")


@given(st.lists(st.binary(max_size=50)))
def test_pieces_give_the_checksum_of_the_whole(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    expected = {
        "adler32": f"{zlib.adler32(whole):08x}",
        "md5": hashlib.md5(whole).hexdigest(),
        "sha256": hashlib.sha256(whole).hexdigest(),
    }
    for algorithm, digits in expected.items():
        hasher = Hasher(algorithm)
        for piece in pieces:
            hasher.update(piece)
        assert hasher.checksum == normalise(hasher.checksum) == f"{algorithm}:{digits}"


@given(st.lists(st.binary(max_size=50)))
def test_an_adler32_is_had_of_pieces_that_were_hashed_apart(pieces: list[bytes]) -> None:
    whole = Hasher("adler32")
    for piece in pieces:
        part = Hasher("adler32")
        part.update(piece)
        whole.append(part, len(piece))
    assert whole.checksum == f"adler32:{zlib.adler32(b''.join(pieces)):08x}"


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES + 17])
def test_files_are_read_whole_at_any_size(tmp_path: Path, size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    path = tmp_path / "file"
    path.write_bytes(content[:size])
    assert file_checksum(path, "adler32") == f"adler32:{zlib.adler32(content[:size]):08x}"
    assert file_checksum(path, "md5") == f"md5:{hashlib.md5(content[:size]).hexdigest()}"
