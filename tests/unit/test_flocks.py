"""Roles of dead processes: free at once on this machine, after their lease elsewhere."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from catalog import clock, flocks, overview, singletons
from catalog.db import Catalog

HOLD = """
import sys
from pathlib import Path
from catalog import flocks
print(flocks.mine(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""
LEASE_S = 30.0
Holder = tuple["subprocess.Popen[str]", str]


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Callable[[], Holder]]:
    """Starts a process that keeps a mark; gives it and the mark."""
    started = []

    def start() -> Holder:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, tmp_path / "holders"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        assert process.stdout is not None
        mark = process.stdout.readline().strip()
        if mark == "None":
            pytest.skip(f"NOT TESTED: {tmp_path} is on no local file system that is known")
        return process, mark

    yield start
    for process in started:
        process.kill()
        process.communicate()


def take(catalog: Catalog, owner: str, holder: str | None = None) -> int | None:
    with catalog.write() as session:
        return singletons.acquire(session, "intake", owner, LEASE_S, holder=holder)


def is_held(catalog: Catalog) -> bool:
    with catalog.read() as session:
        assert ("intake" in overview.at_work(session)) == singletons.is_held(session, "intake")
        return singletons.is_held(session, "intake")


def end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.wait()


def test_the_role_of_a_killed_process_of_this_machine_is_free_at_once(
    catalog: Catalog, hold: Callable[[], Holder]
) -> None:
    process, mark = hold()
    assert take(catalog, "first", mark) == 1
    assert take(catalog, "second") is None and is_held(catalog)
    end(process)
    assert not is_held(catalog)
    assert take(catalog, "second") == 2
    with catalog.write() as session:
        assert not singletons.renew(session, "intake", "first", 1, LEASE_S)
    assert take(catalog, "third") is None, "it names no file that anybody could look at"


def test_a_living_process_keeps_its_role_for_its_lease(
    catalog: Catalog, hold: Callable[[], Holder]
) -> None:
    _, mark = hold()
    assert take(catalog, "first", mark) == 1
    clock.shift_clock(LEASE_S - 1)
    assert take(catalog, "second") is None
    clock.shift_clock(LEASE_S + 1)
    assert take(catalog, "second") == 2, "it hasn't said for a lease that it goes on"


@pytest.mark.parametrize("change", ["boot", "inode", "device", "path", "text"])
def test_who_may_be_of_another_machine_is_not_taken_for_dead(
    catalog: Catalog, hold: Callable[[], Holder], change: str
) -> None:
    process, mark = hold()
    end(process)
    assert flocks.is_dead(mark)
    boot, device, inode, path = mark.split("|", 3)
    other = {
        "boot": f"another|{device}|{inode}|{path}",
        "inode": f"{boot}|{device}|{int(inode) + 1}|{path}",
        "device": f"{boot}|{int(device) + 1}|{inode}|{path}",
        "path": f"{boot}|{device}|{inode}|{path}-gone",
        "text": "what a later program writes",
    }[change]
    assert take(catalog, "first", other) == 1
    assert take(catalog, "second") is None
    clock.shift_clock(LEASE_S + 1)
    assert take(catalog, "second") == 2


def test_a_mark_is_made_once_in_a_process_and_no_more_is_left_of_old_ones(tmp_path: Path) -> None:
    folder = tmp_path / "holders"
    mark = flocks.mine(folder)
    assert mark is not None and flocks.mine(folder) == mark
    assert not flocks.is_dead(mark)
    assert len(list(folder.iterdir())) == 1


def test_no_mark_where_there_is_no_place_for_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert flocks.mine(tmp_path / "file") is None
    assert not flocks.is_dead(None)
