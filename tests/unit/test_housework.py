"""When flow runs are started again for what they did not get done."""

import itertools

import pytest

from flows.intake import housework
from flows.intake.housework import BEGIN_S, LONGEST_S, Again, Errand


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which a test moves."""
    now = [1000.0]
    monkeypatch.setattr(housework.time, "monotonic", lambda: now[0])
    return now


def upload(done: int, number: int = 1) -> Errand:
    return Errand("upload", f"upload:{number}", (done,), number)


def test_a_run_that_gets_nowhere_is_started_ever_later(clock: list[float]) -> None:
    again, starts = Again(), []
    for _ in range(4000):
        if again.due([upload(0)]):
            again.started(upload(0))
            starts.append(clock[0])
        clock[0] += 1.0
    gaps = [b - a for a, b in itertools.pairwise(starts)]
    assert gaps[0] == BEGIN_S
    assert gaps == sorted(gaps) and gaps[-1] == LONGEST_S
    assert len(starts) < 15, "in more than an hour"


def test_a_run_that_got_further_is_followed_by_the_next_soon(clock: list[float]) -> None:
    again = Again()
    for done in range(5):
        assert again.due([upload(done)]) == [upload(done)]
        again.started(upload(done))
        clock[0] += BEGIN_S
    clock[0] -= 1.0
    assert again.due([upload(5)]) == [], "the last one may yet be about to begin"


def test_other_errands_do_not_wait_for_it_and_what_is_done_is_forgotten(
    clock: list[float],
) -> None:
    again = Again()
    again.started(upload(0, 1))
    assert again.due([upload(0, 1), upload(0, 2)]) == [upload(0, 2)]
    again.due([])
    assert again.due([upload(0, 1)]) == [upload(0, 1)], "asked for anew"
