"""Trying again: so often and so long at most, and who waits keeps nobody from his place."""

import threading
from dataclasses import replace

import pytest

from catalog import tries
from catalog.errors import ErrorCode, StorageError
from catalog.tries import Pace, Places

QUICK = Pace(tries=4, first_s=0.001, most_s=0.002, limit_s=10.0)


class Failing:
    """Fails so many times, then gives how often it was called."""

    def __init__(self, times: int, error: Exception) -> None:
        self.times, self.error, self.calls = times, error, 0

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.times:
            raise self.error
        return self.calls


def is_os(error: Exception) -> bool:
    return isinstance(error, OSError)


def test_it_is_called_until_it_gives_something() -> None:
    assert tries.again(Failing(3, OSError()), is_os, QUICK) == 4


@pytest.mark.parametrize(
    ("pace", "error", "calls"),
    [
        (QUICK, OSError(), 4),
        (QUICK, ValueError(), 1),
        (replace(QUICK, limit_s=0.0), OSError(), 1),
        (replace(QUICK, tries=1), OSError(), 1),
    ],
)
def test_it_gives_up(pace: Pace, error: Exception, calls: int) -> None:
    failing = Failing(100, error)
    with pytest.raises(type(error)):
        tries.again(failing, is_os, pace)
    assert failing.calls == calls


def test_waits_are_drawn_from_a_range_that_doubles_up_to_its_bound() -> None:
    pace = Pace(tries=9, first_s=1.0, most_s=8.0, limit_s=99.0)
    for tried, most in ((1, 1.0), (2, 2.0), (4, 8.0), (60, 8.0)):
        drawn = [pace.wait_s(tried) for _ in range(300)]
        assert 0 <= min(drawn) < most / 4 and 3 * most / 4 < max(drawn) <= most


def test_who_waits_gives_its_place_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """One place: the second call works while the first waits, and only so the first ends."""
    second = threading.Event()
    monkeypatch.setattr(tries.time, "sleep", lambda _s: second.wait(20) or pytest.fail("kept out"))
    with Places(1, "test") as pool:
        first = pool.submit(tries.pause, 1.0)
        pool.submit(second.set)
        assert first.result(30) is None


def test_so_many_work_at_a_time_and_no_more() -> None:
    at_work, most, lock = 0, 0, threading.Lock()

    def be_busy() -> None:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        tries.time.sleep(0.002)
        with lock:
            at_work -= 1

    def work(_: int) -> None:
        be_busy()
        tries.pause(0.001)
        be_busy()

    with Places(3, "test") as pool:
        assert len(list(pool.map(work, range(60)))) == 60
    assert most == 3


def test_a_storage_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tries, "OUTAGE", QUICK)
    away = StorageError(ErrorCode.STORAGE_UNAVAILABLE, "away.")

    def check(failing: Failing) -> bool:
        return tries.ride_out(failing)

    assert check(Failing(0, away)) is False
    assert check(Failing(3, away)) is True
    with pytest.raises(StorageError):
        check(Failing(100, away))
    denied = Failing(100, StorageError(ErrorCode.STORAGE_DENIED, "no."))
    with pytest.raises(StorageError):
        check(denied)
    assert denied.calls == 1
