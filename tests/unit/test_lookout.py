"""When the next turn is due, by a clock of the test's own; and the signs that it goes by."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from flows.lookout import LOOK_S, Clock, Lookout

BUSY_S, QUIET_S = 1.0, 10.0


@dataclass
class World:
    """A clock that only sleeping moves, and something that changes at given times."""

    changes: list[float] = field(default_factory=list)
    now: float = 0.0
    looks: int = 0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def look(self) -> int:
        self.looks += 1
        return sum(at <= self.now for at in self.changes)

    def lookout(self) -> Lookout:
        clock = Clock(lambda: self.now, self.sleep)
        return Lookout(self.look, busy_s=BUSY_S, quiet_s=QUIET_S, clock=clock)

    def turn(self, lookout: Lookout, took_s: float = 0.01, *, awaited: bool = False) -> float:
        """One turn and the rest after it; gives the length of the rest."""
        lookout.begin()
        self.now += took_s
        ended = self.now
        lookout.rest(lambda: None, awaited=awaited)
        return self.now - ended


@pytest.mark.parametrize("at", [0.005, 0.05, 0.3, 0.7])
def test_what_happens_is_noticed_without_waiting_for_a_full_pause(at: float) -> None:
    world = World([at])
    rest = world.turn(world.lookout())
    assert at <= world.now <= at + LOOK_S[1]
    assert rest < BUSY_S


def test_what_happens_during_a_turn_is_for_the_next(at: float = 0.005) -> None:
    world = World([at])
    assert world.turn(world.lookout(), took_s=0.01) == pytest.approx(LOOK_S[0])


@pytest.mark.parametrize(("took_s", "rest_s"), [(0.005, LOOK_S[0]), (0.05, 0.5), (0.4, BUSY_S)])
def test_under_load_the_rest_grows_with_the_turn(took_s: float, rest_s: float) -> None:
    world = World([i / 1000 for i in range(100_000)])
    lookout = world.lookout()
    for _ in range(5):
        assert world.turn(lookout, took_s) == pytest.approx(rest_s)


def test_turns_become_seldom_while_nothing_happens_and_looks_go_on() -> None:
    world = World()
    lookout = world.lookout()
    rests = [world.turn(lookout) for _ in range(8)]
    assert rests[0] <= BUSY_S
    assert rests == pytest.approx(sorted(rests))
    assert rests[-1] == pytest.approx(QUIET_S, abs=0.1)
    world.looks, begun = 0, world.now
    world.turn(lookout)
    assert (world.now - begun) / world.looks == pytest.approx(LOOK_S[1], rel=0.1)
    world.changes.append(world.now + 3.2)
    assert world.turn(lookout) < 3.2 + 2 * LOOK_S[1]
    assert world.turn(lookout) <= BUSY_S, "something happened: turns are no longer seldom"


def test_turns_stay_frequent_while_something_is_awaited() -> None:
    world = World()
    lookout = world.lookout()
    assert all(world.turn(lookout, awaited=True) <= BUSY_S for _ in range(8))


def test_meanwhile_is_asked_at_every_look() -> None:
    world, asked = World(), [0]
    lookout = world.lookout()
    count: Callable[[], None] = lambda: asked.__setitem__(0, asked[0] + 1)  # noqa: E731
    lookout.begin()
    lookout.rest(count)
    assert asked[0] == world.looks - 1
