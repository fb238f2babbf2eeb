"""The directory of a local storage: whether it is there and itself, and who writes its marker."""

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from catalog.drivers import root as module
from catalog.drivers.identity import Identity, require
from catalog.drivers.marker import Claim, Marker, May, read
from catalog.drivers.root import Root
from catalog.errors import ErrorCode, StorageError
from catalog.names import MARKER
from tests.privileges import modes_hold

OURS = Marker("abc").to_bytes()
THEIRS = Marker("other").to_bytes()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


def root_of(place: Path, *, known: bool = False) -> Root:
    return Root("disk", place, Identity("abc", marked=True) if known else None)


def fault_of(call: Any) -> StorageError:
    with pytest.raises(StorageError) as caught:
        call()
    return caught.value


def test_a_marker_is_written_once(place: Path) -> None:
    root = root_of(place)
    assert root.read_marker("") is None
    root.write_marker(OURS, before=None)
    assert root.read_marker("") == OURS
    assert stat.S_IMODE((place / MARKER).stat().st_mode) == 0o644
    fault = fault_of(lambda: root.write_marker(THEIRS, before=None))
    assert fault.code is ErrorCode.OUTPUT_EXISTS
    assert str(fault) == f"storage 'disk': another has written {place / MARKER} meanwhile."
    assert root.read_marker("") == OURS
    assert [path.name for path in place.iterdir()] == [MARKER]


def test_a_marker_is_replaced_only_by_who_has_seen_it_as_it_is(place: Path) -> None:
    root = root_of(place)
    root.write_marker(OURS, before=None)
    fault = fault_of(lambda: root.write_marker(b"mine", before=THEIRS))
    assert fault.code is ErrorCode.OUTPUT_EXISTS and "another has written" in str(fault)
    assert root.read_marker("") == OURS
    root.write_marker(THEIRS, before=OURS)
    assert root.read_marker("") == THEIRS
    assert [path.name for path in place.iterdir()] == [MARKER]


def test_a_marker_that_was_replaced_while_one_waited_for_it_is_not_written_over(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits at the lock has the file open that the other has just replaced."""
    root = root_of(place)
    root.write_marker(OURS, before=None)

    def another(_descriptor: int, _how: int) -> None:
        new = place / "new"
        new.write_bytes(THEIRS)
        new.replace(place / MARKER)

    monkeypatch.setattr(module.fcntl, "flock", another)
    fault = fault_of(lambda: root.write_marker(b"mine", before=OURS))
    assert fault.code is ErrorCode.OUTPUT_EXISTS
    assert root.read_marker("") == THEIRS


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.EACCES, ErrorCode.STORAGE_DENIED),
        (errno.EPERM, ErrorCode.STORAGE_DENIED),
        (errno.EROFS, ErrorCode.STORAGE_DENIED),
        (errno.EIO, ErrorCode.STORAGE_UNAVAILABLE),
    ],
)
def test_a_marker_that_can_not_be_written_is_told_with_why(
    place: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: ErrorCode
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module, "publish", refuse)
    fault = fault_of(lambda: root_of(place).write_marker(OURS, before=None))
    assert fault.code is code
    assert f"{place / MARKER} can't be written ({os.strerror(number)})" in str(fault)
    assert list(place.iterdir()) == []


def test_the_marker_of_a_folder_is_the_one_in_it(place: Path) -> None:
    (place / "part").mkdir()
    (place / "part" / MARKER).write_bytes(THEIRS)
    assert root_of(place).read_marker("part") == THEIRS
    assert root_of(place).read_marker("") is None
    assert root_of(place).read_marker("nowhere") is None
    (place / "file").touch()
    assert root_of(place).read_marker("file") is None


def test_a_marker_that_can_not_be_read_is_no_missing_one(place: Path) -> None:
    (place / "real").write_bytes(OURS)
    (place / MARKER).symlink_to("real")
    fault = fault_of(lambda: root_of(place).read_marker(""))
    assert fault.code is ErrorCode.STORAGE_UNAVAILABLE
    assert f"its marker {place / MARKER} can't be read" in str(fault)
    (place / MARKER).unlink()
    (place / MARKER).write_bytes(OURS)
    (place / MARKER).chmod(0o000)
    with modes_hold():
        fault = fault_of(lambda: root_of(place, known=True).check())
    assert "can't be read (Permission denied)" in str(fault)


def test_a_directory_that_is_none_or_closed_is_told(place: Path) -> None:
    gone, file = place / "gone", place / "file"
    file.touch()
    for path in (gone, file):
        fault = fault_of(root_of(path).check)
        assert fault.code is ErrorCode.STORAGE_UNAVAILABLE
        assert f"its directory {path} is not there; mount or make it." in str(fault)
    place.chmod(0o000)
    with modes_hold():
        fault = fault_of(root_of(place).check)
    assert f"its directory {place} can't be opened (Permission denied)" in str(fault)


def test_a_glance_looks_again_only_at_another_directory(place: Path) -> None:
    root = root_of(place, known=True)
    fault = fault_of(root.glance)
    assert f"storage 'disk': {place} is not what it was" in str(fault)
    (place / MARKER).write_bytes(OURS)
    root.glance()
    (place / MARKER).unlink()
    root.glance()
    place.rename(place.with_name("aside"))
    place.mkdir()
    assert "is not what it was" in str(fault_of(root.glance))
    place.rmdir()
    assert "is not there; mount or make it" in str(fault_of(root.glance))


def test_who_concludes_needs_a_marker_also_where_the_catalog_has_none(place: Path) -> None:
    root = root_of(place)
    root.check()
    assert "has no marker .spdf-storage yet" in str(fault_of(lambda: root.check(marked=True)))
    (place / MARKER).write_bytes(OURS)
    assert "has not taken up the marker" in str(fault_of(lambda: root.check(marked=True)))


def test_only_its_own_marker_makes_a_storage_itself() -> None:
    known = Identity("abc", marked=True)
    require("disk", "/disk", known, OURS, marked=True)
    fault = fault_of(lambda: require("disk", "/disk", known, THEIRS, marked=False))
    assert "/disk is another storage, by its marker .spdf-storage (other, not abc)" in str(fault)
    fault = fault_of(lambda: require("disk", "/disk", known, b"{", marked=False))
    assert "the marker .spdf-storage of /disk is damaged (it can't be read as a marker)" in str(
        fault
    )
    require("disk", "/disk", Identity("abc", marked=False), None, marked=False)


def test_a_marker_is_json_that_says_what_it_is() -> None:
    found = json.loads(Marker("abc", rest={"later": 1}).to_bytes())
    assert list(found) == ["about", "later", "format", "storage", "claims"]
    assert found["about"] == "tells spdf which storage this is: leave it here"
    assert (found["format"], found["storage"], found["claims"], found["later"]) == (1, "abc", [], 1)


def test_a_marker_is_read_as_it_was_written() -> None:
    whole = Marker("abc", rest={"later": [1]}).with_claim(Claim("c", "i", May.REMOVES, 3))
    found = read(whole.to_bytes())
    assert found.to_bytes() == whole.to_bytes()
    assert found.is_claimed_by(Claim("c", "i", May.READS))
    assert not found.is_claimed_by(Claim("c", "j", May.READS))
    assert found.rest == {"later": [1]}
    assert dict(found.claims[0]) == {"catalog": "c", "instance": "i", "may": "removes", "beat": 3}
    assert found.with_claim(Claim("d", "i", May.REMOVES)).claims[1]["may"] is May.READS


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"{", "can't be read"),
        (b"[]", "can't be read"),
        (b'{"storage": "a"}', "can't be read"),
        (b'{"storage": "", "format": 1}', "names no storage"),
        (b'{"storage": 5, "format": 1}', "names no storage"),
        (b'{"storage": "a", "format": 0}', "names no storage"),
        (b'{"storage": "a", "format": true}', "names no storage"),
        (b'{"storage": "a", "format": "1"}', "names no storage"),
        (b'{"storage": "a", "format": 1, "claims": {}}', "no list of claims"),
        (b'{"storage": "a", "format": 1, "claims": [1]}', "no list of claims"),
    ],
)
def test_what_is_no_marker_is_refused(text: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read(text)
