"""Listings of odd directory trees: what can't be looked at is told, and all the rest is listed."""

import os
import socket
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from catalog.drivers.local import LocalDriver
from catalog.errors import ErrorCode, StorageError
from catalog.stamps import EARLIEST, LATEST, time_of
from tests.privileges import modes_hold


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for path in ("run-1/a.raw", "run-2/b.raw", "z.raw"):
        (tmp_path / "root" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / path).write_text(path)
    return tmp_path / "root"


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def listed(driver: LocalDriver, prefix: str = "") -> tuple[list[str], dict[str, StorageError]]:
    told: dict[str, StorageError] = {}
    found = driver.list(prefix, unread=lambda path, why: told.update({path: why}))
    return sorted(info.path for info in found), told


def test_an_unreadable_folder_is_named_and_the_rest_is_listed(root: Path) -> None:
    (root / "run-1" / "lost+found").mkdir(mode=0o000)
    with modes_hold():
        found, told = listed(LocalDriver("disk", root))
    assert found == ["run-1/a.raw", "run-2/b.raw", "z.raw"]
    assert list(told) == ["run-1/lost+found"]
    assert "Permission denied" in str(told["run-1/lost+found"])


def test_a_folder_without_the_right_to_enter_it_names_its_files(root: Path) -> None:
    (root / "run-1").chmod(0o444)
    with modes_hold():
        found, told = listed(LocalDriver("disk", root))
    assert found == ["run-2/b.raw", "z.raw"]
    assert list(told) == ["run-1/a.raw"]


def test_a_file_that_may_not_be_read_is_named_until_it_may(root: Path) -> None:
    (root / "run-1" / "a.raw").chmod(0o000)
    (root / "run-2" / "b.raw").chmod(0o400)
    with modes_hold():
        found, told = listed(LocalDriver("disk", root))
        assert found == ["run-2/b.raw", "z.raw"]
        assert list(told) == ["run-1/a.raw"] and "Permission denied" in str(told["run-1/a.raw"])
        (root / "run-1" / "a.raw").chmod(0o440)
        assert listed(LocalDriver("disk", root)) == (["run-1/a.raw", "run-2/b.raw", "z.raw"], {})


def test_what_is_no_file_is_told_as_what_it_is(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "run-1" / "link.raw").symlink_to("a.raw")
    os.mkfifo(root / "run-1" / "pipe.raw")
    (root / ".spdf-storage").write_text("{}")
    monkeypatch.chdir(root)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("run-2/socket.raw")
    told: dict[str, str] = {}
    found = list(
        LocalDriver("disk", root).list(passed=lambda path, what: told.update({path: what}))
    )
    assert sorted(info.path for info in found) == ["run-1/a.raw", "run-2/b.raw", "z.raw"]
    assert told == {
        "run-1": "folder",
        "run-1/link.raw": "symbolic link",
        "run-1/pipe.raw": "pipe",
        "run-2": "folder",
        "run-2/socket.raw": "socket",
    }
    (first,) = [info for info in found if info.path == "run-1/a.raw"]
    there = (root / "run-1" / "a.raw").stat()
    assert (first.size_bytes, first.inode) == (there.st_size, there.st_ino)


def test_a_root_that_cannot_be_read_is_a_storage_that_is_away(root: Path) -> None:
    root.chmod(0o000)
    with modes_hold(), pytest.raises(StorageError) as caught:
        listed(LocalDriver("disk", root))
    assert caught.value.code is ErrorCode.STORAGE_UNAVAILABLE


def test_folders_too_deep_for_a_path_are_named_and_end_nothing(root: Path) -> None:
    before = Path.cwd()
    os.chdir(root)
    try:
        for _ in range(1100):
            Path("dd").mkdir()
            os.chdir("dd")
        Path("deep.raw").write_text("x")
    finally:
        os.chdir(before)
    found, told = listed(LocalDriver("disk", root))
    # Deeper than Python's own way of removing a tree goes.
    subprocess.run(["rm", "-rf", root / "dd"], check=True)
    assert found == ["run-1/a.raw", "run-2/b.raw", "z.raw"]
    (path,) = told
    assert path.startswith("dd/dd/") and "too deep" in str(told[path])


@pytest.mark.parametrize(
    "seconds", [300_000_000_000, 99_999_999_999_999, -70_000_000_000, -(2**40)]
)
def test_a_file_of_an_absurd_time_is_listed_with_a_time_that_can_be_had(
    root: Path, seconds: int
) -> None:
    moment = time_of(float(seconds))
    assert EARLIEST <= moment <= LATEST
    # What of it the file system keeps is its own affair.
    os.utime(root / "z.raw", (seconds, seconds))
    driver = LocalDriver("disk", root)
    assert listed(driver)[0] == ["run-1/a.raw", "run-2/b.raw", "z.raw"]
    assert EARLIEST <= driver.stat("z.raw").mtime <= LATEST
    assert f"{moment.timestamp():.6f}" and moment.astimezone()


def test_ordinary_times_stay_as_they_are() -> None:
    assert time_of(0.25) == datetime(1970, 1, 1, 0, 0, 0, 250_000, UTC)
    assert time_of(-86400.0) == datetime(1969, 12, 31, tzinfo=UTC)


def test_no_marker_is_listed_wherever_it_lies(root: Path) -> None:
    for folder in (root, root / "run-1"):
        (folder / ".spdf-storage").write_text("{}")
    assert listed(LocalDriver("disk", root)) == (["run-1/a.raw", "run-2/b.raw", "z.raw"], {})
    assert listed(LocalDriver("disk", root), "run-1/.spdf")[0] == []


def test_a_listing_has_no_more_folders_open_than_a_path_has_levels(root: Path) -> None:
    for number in range(300):
        (root / f"folder-{number}").mkdir()
        (root / f"folder-{number}" / "x").write_text("")
    before = open_files()
    most = max(open_files() for _ in LocalDriver("disk", root).list())
    assert most - before <= 5
    assert open_files() == before
