"""Stamps: a copy is believed while it has its own, and read where it has another."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from catalog import stamps
from catalog.checksums import MD5
from catalog.drivers.local import LocalDriver
from catalog.errors import ErrorClass
from catalog.errors import ErrorCode as E
from catalog.refs import Outcome, ReplicaRef
from catalog.stamps import Stamp, same_time
from tests.unit.test_faults import Bench, failed, made_in


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1_500_001, 1_500_001, True),
        (1_500_001, 1_500_002, False),
        (1_000_000, 1_999_999, True),
        (1_000_000, 2_000_001, False),
        (1_234_000, 1_234_567, True),
        (1_234_000, 1_235_567, False),
        (-1_000_000, -1, True),
        (-1_000_000, 1, False),
        (10_413_792_000_500_001, 10_413_792_000_500_002, False),
    ],
)
def test_times_are_compared_in_the_coarser_of_their_resolutions(
    one: int, other: int, same: bool
) -> None:
    assert same_time(one, other) is same
    assert same_time(other, one) is same
    assert Stamp(3, one).agrees(Stamp(3, other)) is same
    assert not Stamp(3, one).agrees(Stamp(4, one))


@pytest.mark.parametrize("mtime_s", [-1.5, 10_413_792_000.25, 2**40 + 0.5, 2**62])
def test_any_date_is_a_number_that_rows_keep_and_listings_agree_on(
    tmp_path: Path, mtime_s: float
) -> None:
    (tmp_path / "f").write_bytes(b"hello")
    try:
        os.utime(tmp_path / "f", (mtime_s, mtime_s))
    except OverflowError:
        pytest.skip("this file system has no such date")
    driver = LocalDriver("here", tmp_path)
    stamp = driver.read("f", MD5).stamp
    assert stamp == driver.stat("f").stamp == next(iter(driver.list())).stamp
    assert stamp is not None and -(2**63) < stamp.mtime_us < 2**63


@pytest.mark.parametrize("late", [b"HELLO", b"hello, again"])
def test_what_changes_while_it_is_read_has_no_stamp(tmp_path: Path, late: bytes) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"hello")
    with path.open("rb", buffering=0) as file:

        def read() -> str:
            path.write_bytes(late)
            os.utime(path, (5, 5))
            return "adler32:00000001"

        assert stamps.reading(file.fileno(), read).stamp is None


def test_a_copy_has_the_stamp_of_its_own_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"hello")
    os.utime(tmp_path / "f", (5, 5))
    root = tmp_path / "storage"
    root.mkdir()
    driver = LocalDriver("here", root)
    for name, move in {"copied": False, "moved": True}.items():
        stored = driver.put(tmp_path / "f", name, checksum=MD5, move=move)
        assert stored.stamp == driver.stat(name).stamp
    assert driver.put(root / "copied", "plain").stamp is None, "nothing was read"


# Stage-in.


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Bench]:
    """An attempt whose input has the stamp that it was registered with."""
    for make in made_in(tmp_path, Bench):
        made = make()
        found = stamps.of_stat((made.folder / "in" / "f.dat").stat())
        place = ReplicaRef(1, "f.dat", found.mtime_us)
        made.file = replace(made.file, replicas=(place,))
        yield made


def write_again(path: Path) -> None:
    path.write_bytes(b"HELLO")


def move_older_over(path: Path) -> None:
    part = path.with_name("part")
    part.write_bytes(b"HELLO")
    os.utime(part, (1_000_000_000.5, 1_000_000_000.5))
    part.rename(path)


@pytest.mark.parametrize("change", [write_again, move_older_over])
@pytest.mark.parametrize("fetched", [False, True])
def test_an_input_that_was_replaced_in_its_size_is_corrupt(
    one: Bench, change: Callable[[Path], None], fetched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(one.folder / "in" / "f.dat")
    if fetched:
        monkeypatch.setattr(one.node.storages[1], "local_path", lambda path: None)
    told = one.run()
    failed(told, E.INPUT_CORRUPT, ErrorClass.PERMANENT)
    assert told.bad_inputs == one.file.replicas and told.stamped == ()


def test_an_input_that_was_touched_is_read_once_and_has_a_new_stamp(one: Bench) -> None:
    path = one.folder / "in" / "f.dat"
    os.utime(path, (1.5, 1.5))
    told = one.run()
    assert told.outcome is Outcome.FINISHED, told.message
    assert [(copy, copy.mtime_us) for copy in told.stamped] == [(one.file.replicas[0], 1_500_000)]
    one.file = replace(one.file, replicas=told.stamped)
    assert one.run().stamped == ()


@pytest.mark.parametrize("stamped", [True, False])
def test_an_input_as_it_was_or_without_a_stamp_is_not_read(
    one: Bench, stamped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not stamped:
        one.file = replace(one.file, replicas=(ReplicaRef(1, "f.dat"),))

    def read(*_args: object) -> None:
        raise AssertionError("it was read")

    monkeypatch.setattr("workers.stagein.read_file", read)
    told = one.run()
    assert (told.outcome, told.stamped) == (Outcome.FINISHED, ()), told.message


def test_an_output_has_the_stamp_that_it_was_stored_with(one: Bench) -> None:
    (made,) = one.run().files
    found = LocalDriver("out", one.folder / "out").stat(made.path)
    assert made.mtime_us == found.stamp.mtime_us
