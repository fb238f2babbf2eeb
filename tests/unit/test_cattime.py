"""Catalog time: a clock that is set moves nothing, and comes back by itself."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from time import CLOCK_BOOTTIME, clock_gettime

import pytest
import sqlalchemy as sa
from sqlmodel import SQLModel, col

from catalog import (
    cattime,
    clock,
    clockcare,
    datasets,
    deletion,
    events,
    grace,
    problems,
    singletons,
)
from catalog.cattime import GAP_S, WAIT_S, Observer, Sample
from catalog.clock import UtcTime
from catalog.db import Catalog
from catalog.errors import Conflict
from catalog.models import Singleton
from catalog.states import DatasetState

DAY_S = 86400.0
AHEAD_S = 45 * DAY_S
AddFiles = Callable[[int, Sequence[str]], list[int]]


def beat(catalog: Catalog) -> None:
    """As the holder of the intake's role does every few seconds."""
    with catalog.write() as session:
        session.connection()
        cattime.keep(session)


def time_of(catalog: Catalog) -> datetime:
    with catalog.read() as session:
        told: datetime = session.execute(sa.select(clock.now())).scalar_one()
    return told


def skew_s(catalog: Catalog) -> float:
    with catalog.read() as session:
        session.connection()
        return clock.begun().skew_s


def look(catalog: Catalog) -> clockcare.ClockInfo:
    with catalog.read() as session:
        return clockcare.look(session)


def told(catalog: Catalog) -> str:
    with catalog.read() as session:
        return "\n".join(
            found.message for found in problems.problems(session) if found.source == "the clock"
        )


def words(catalog: Catalog) -> list[str]:
    with catalog.read() as session:
        return [item.after for item in events.history(session, cattime.ENTITY, cattime.ROW)]


def reboot(monkeypatch: pytest.MonkeyPatch, name: str = "another") -> None:
    """From here on this is another boot, whose BOOTTIME begins anew."""
    monkeypatch.setattr(cattime, "machine", lambda: name)
    begun_s = clock_gettime(CLOCK_BOOTTIME)
    monkeypatch.setattr(clock, "_boottime", lambda number: clock_gettime(number) - begun_s)


def again(catalog: Catalog) -> Catalog:
    """The catalog as another process opens it."""
    return Catalog(catalog.url.render_as_string(hide_password=False))


@pytest.fixture
def beaten(catalog: Catalog) -> Catalog:
    beat(catalog)
    return catalog


def stamps(catalog: Catalog) -> list[datetime]:
    """All times that stand in rows."""
    found: list[datetime] = []
    with catalog.read() as session:
        for table in SQLModel.metadata.tables.values():
            for column in table.c:
                if isinstance(column.type, UtcTime):
                    found += session.scalars(sa.select(column).where(column.is_not(None)))
    return found


def near(one: datetime, other: datetime, within_s: float = 30.0) -> bool:
    return abs((one - other).total_seconds()) < within_s


@pytest.fixture
def kept(catalog: Catalog, add_files: AddFiles) -> int:
    """A CLOSED dataset that has thirty days."""
    with catalog.write() as session:
        made = datasets.create(session, "keep", lifetime_s=30 * DAY_S)
    add_files(made, ["a", "b"])
    with catalog.write() as session:
        datasets.close(session, made)
    return made


def test_time_passes_in_the_catalog_as_it_does(catalog: Catalog) -> None:
    for _ in range(2):
        before = time_of(catalog)
        clock.shift_clock(AHEAD_S)
        assert near(time_of(catalog), before + timedelta(seconds=AHEAD_S))
        clock.shift_clock(0.0)
        beat(catalog)


@pytest.mark.parametrize("beats", [False, True])
def test_a_clock_that_is_set_ahead_writes_no_false_time(beaten: Catalog, beats: bool) -> None:
    before = time_of(beaten)
    clock.set_clock(AHEAD_S)
    if beats:
        beat(beaten)
    assert near(time_of(beaten), before)
    with beaten.write() as session:
        made = datasets.create(session, "made-now")
        assert singletons.acquire(session, "role", "me", 15.0) is not None
    clock.set_clock(0.0)
    beat(beaten)
    with beaten.read() as session:
        assert near(datasets.get(session, made).created_at, before)
    assert all(near(stamp, before, 60.0) for stamp in stamps(beaten))
    assert skew_s(beaten) == 0.0


@pytest.mark.parametrize("ahead_s", [AHEAD_S, -3 * 3600.0])
def test_another_process_sees_the_same_time_before_any_beat(
    beaten: Catalog, ahead_s: float
) -> None:
    before = time_of(beaten)
    clock.set_clock(ahead_s)
    other = again(beaten)
    assert near(time_of(other), before)
    other.close()


def test_a_set_clock_ends_no_lifetime_and_no_grace(
    beaten: Catalog, kept: int, add_files: AddFiles
) -> None:
    with beaten.write() as session:
        other = datasets.create(session, "other")
        deletion.mark(session, other, "a person's word", grace_s=DAY_S)
    clock.set_clock(AHEAD_S)
    for _ in range(2):
        with beaten.write() as session:
            assert (deletion.expire(session), grace.end_due(session)) == ([], [])
            assert not grace.end(session, other)
        beat(beaten)
    clock.set_clock(0.0)
    beat(beaten)
    with beaten.write() as session:
        assert (deletion.expire(session), grace.end_due(session)) == ([], [])
    clock.shift_clock(31 * DAY_S)
    with beaten.write() as session:
        assert (deletion.expire(session), grace.end_due(session)) == (["keep"], ["other"])


def test_what_follows_states_goes_on_while_the_clock_is_wrong(beaten: Catalog, kept: int) -> None:
    clock.set_clock(AHEAD_S)
    beat(beaten)
    with beaten.write() as session:
        assert deletion.mark(session, kept, "a person's word", by_person=True)
    assert not deletion.remove(beaten, kept).faults
    with beaten.read() as session:
        assert datasets.get(session, kept).state is DatasetState.DELETED


def test_a_set_clock_is_told_and_that_it_came_back(beaten: Catalog, kept: int) -> None:
    assert told(beaten) == ""
    clock.set_clock(AHEAD_S)
    assert "45 d ahead" in told(beaten), "before any beat, too"
    beat(beaten)
    sentence = told(beaten)
    assert "45 d ahead" in sentence and "`spdf clock accept`" in sentence
    assert "1 dataset (2 bytes) whose lifetime would be over stay: keep" in sentence
    info = look(beaten)
    assert info.held.names == ("keep",) and near(info.database, info.at + timedelta(days=45))
    clock.set_clock(0.0)
    beat(beaten)
    assert "was 45 d ahead" in told(beaten) and "is right again" in told(beaten)
    assert words(beaten) == ["SET", "RETURNED"]
    clock.shift_clock(2 * DAY_S)
    assert told(beaten) == ""


def test_fifty_jumps_to_and_fro_leave_the_time_as_it_was(beaten: Catalog) -> None:
    before = time_of(beaten)
    for number in range(50):
        clock.set_clock((-1) ** number * (number % 7) * 5000.0)
        if number % 3:
            beat(beaten)
        assert near(time_of(beaten), before, 100.0), number
    clock.set_clock(0.0)
    beat(beaten)
    assert skew_s(beaten) == 0.0 and near(time_of(beaten), before)


def test_what_a_clock_is_set_by_in_a_minute_is_taken_for_the_time(beaten: Catalog) -> None:
    before = time_of(beaten)
    clock.set_clock(40.0)
    beat(beaten)
    assert skew_s(beaten) == 0.0
    assert 35 < (time_of(beaten) - before).total_seconds() < 60


def test_a_lease_ends_after_its_own_length_while_the_clock_is_behind(
    beaten: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The power went while a lease ran, and the machine came back three hours behind."""
    with beaten.write() as session:
        assert singletons.acquire(session, "intake", "dead", 15.0) is not None
    reboot(monkeypatch)
    clock.set_clock(-3 * 3600.0)
    here = again(beaten)
    with here.write() as session:
        cattime.follow(session)
        assert singletons.acquire(session, "intake", "new", 15.0) is None
    clock.shift_clock(16.0)
    with here.write() as session:
        cattime.follow(session)
        assert singletons.acquire(session, "intake", "new", 15.0) is not None
    beat(here)
    assert "3 h behind" in told(here)
    clock.set_clock(0.0)
    beat(here)
    assert skew_s(here) == 0.0
    here.close()


def test_in_another_boot_a_clock_that_is_behind_is_never_followed(
    beaten: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = time_of(beaten)
    reboot(monkeypatch)
    clock.set_clock(-3 * 3600.0)
    here = again(beaten)
    assert near(time_of(here), before)
    beat(here)
    clock.shift_clock(100.0)
    assert near(time_of(here), before + timedelta(seconds=100))
    here.close()


def test_after_a_start_long_after_the_last_look_removals_wait_for_an_hour(
    beaten: Catalog, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reboot(monkeypatch)
    clock.set_clock(AHEAD_S)
    here = again(beaten)
    for wait_s in (0.0, 10.0, WAIT_S - 10.0):
        clock.shift_clock(wait_s)
        with here.write() as session:
            assert deletion.expire(session) == []
        beat(here)
    assert "may be wrong" in told(here) and "stay: keep" in told(here)
    assert words(here) == ["GAP"]
    clock.shift_clock(WAIT_S + 1.0)
    beat(here)
    with here.write() as session:
        assert deletion.expire(session) == ["keep"]
    here.close()


def test_a_person_ends_the_wait_after_a_start(
    beaten: Catalog, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reboot(monkeypatch)
    clock.set_clock(AHEAD_S)
    here = again(beaten)
    beat(here)
    with here.write() as session:
        assert clockcare.accept(session).held.names == ("keep",)
    with here.write() as session:
        assert deletion.expire(session) == ["keep"]
    with here.write() as session, pytest.raises(Conflict):
        clockcare.accept(session)
    here.close()


def test_a_start_within_a_day_waits_for_nothing(
    beaten: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    reboot(monkeypatch)
    clock.set_clock(GAP_S - 600.0)
    here = again(beaten)
    with here.read() as session:
        assert not cattime.may_remove(session), "nobody has looked at the clock yet"
    beat(here)
    with here.read() as session:
        assert cattime.may_remove(session)
    assert told(here) == ""
    here.close()


def test_an_accepted_clock_that_is_ahead_leaves_leases_to_who_has_them(
    beaten: Catalog, kept: int
) -> None:
    with beaten.write() as session:
        epoch = singletons.acquire(session, "role", "me", 15.0)
        assert epoch is not None
    clock.set_clock(AHEAD_S)
    beat(beaten)
    before = time_of(beaten)
    with beaten.write() as session:
        clockcare.accept(session)
    assert skew_s(beaten) == 0.0
    assert near(time_of(beaten), before + timedelta(seconds=AHEAD_S))
    with beaten.read() as session:
        assert singletons.is_held(session, "role")
    with beaten.write() as session:
        assert deletion.expire(session) == ["keep"]
    assert words(beaten)[-1] == "ACCEPTED"


def test_an_accepted_clock_that_went_back_leaves_no_time_ahead_of_it(
    catalog: Catalog, kept: int
) -> None:
    clock.set_clock(AHEAD_S)
    other = again(catalog)
    beat(other)
    with other.write() as session:
        made = datasets.create(session, "made-ahead", lifetime_s=DAY_S)
        datasets.close(session, made)
        assert singletons.acquire(session, "role", "me", 15.0) is not None
    clock.set_clock(0.0)
    beat(other)
    assert "45 d behind" in told(other)
    with other.write() as session:
        clockcare.accept(session)
    now = time_of(other)
    with other.read() as session:
        info = datasets.get(session, made)
        lease: datetime = session.scalars(sa.select(col(Singleton.lease_until))).one()
        old = datasets.get(session, kept)
    assert near(info.created_at, now) and near(lease, now + timedelta(seconds=15))
    assert info.expires_at is not None and near(info.expires_at, now + timedelta(days=1))
    assert near(old.created_at, now)
    assert skew_s(other) == 0.0 and told(other) == ""
    other.close()


# What a process of another machine knows.


def sample(**changes: float | str) -> Sample:
    base = {"skew_s": 0.0, "wall_s": 1e9, "boot_s": 500.0, "boot": "elsewhere", "beats": 7}
    return Sample(**{**base, "waits_s": 0.0, **changes})  # type: ignore[arg-type]


def test_a_process_elsewhere_sees_a_jump_by_what_it_saw_before() -> None:
    observer = Observer()
    assert observer.moment(1e9 + 1, sample()).at_s == 1e9 + 1
    seen = observer.moment(1e9 + 1 + AHEAD_S, sample())
    assert seen.is_sure and abs(seen.at_s - (1e9 + 1)) < 10
    after = observer.moment(1e9 + 2 + AHEAD_S, sample(wall_s=1e9 + AHEAD_S, skew_s=AHEAD_S))
    assert abs(after.at_s - (1e9 + 2)) < 10
    back = observer.moment(1e9 + 3, sample(wall_s=1e9 + AHEAD_S, skew_s=AHEAD_S))
    assert abs(back.at_s - (1e9 + 3)) < 10


def test_a_process_elsewhere_that_saw_nothing_before_removes_nothing_by_an_old_sample() -> None:
    observer = Observer()
    for _ in range(3):
        assert not observer.moment(1e9 + AHEAD_S, sample()).is_sure
    fresh = observer.moment(1e9 + AHEAD_S, sample(wall_s=1e9 + AHEAD_S - 4, skew_s=AHEAD_S))
    assert fresh.is_sure and fresh.at_s == 1e9


def test_the_intake_that_moves_to_another_host_goes_by_what_that_one_saw() -> None:
    observer = Observer()
    observer.moment(1e9 + 1, sample())
    clock.shift_clock(2 * DAY_S)
    later = observer.moment(1e9 + 1 + 2 * DAY_S, sample())
    assert later.is_sure and abs(later.skew_s) < 1


@pytest.mark.parametrize(
    ("skew", "wall", "expected"),
    [
        (0.0, 1e9 + 600, 0.0),
        (0.0, 1e9 - 10800, -10800.0),
        (AHEAD_S, 1e9 + 600, AHEAD_S),
        (AHEAD_S, 1e9 + 600 - AHEAD_S, 0.0),
        (AHEAD_S, 1e9 - 2 * AHEAD_S, -AHEAD_S),
        (-10800.0, 1e9 + 600, -10800.0),
        (-10800.0, 1e9 + 10800 + 600, 0.0),
        (-10800.0, 1e9 - 3600, -14400.0),
    ],
)
def test_after_a_start_catalog_time_never_goes_back(
    skew: float, wall: float, expected: float
) -> None:
    before = sample(skew_s=skew)
    found = cattime.after_a_start(wall, before)
    assert found == expected
    assert wall - found >= before.at_s - cattime.LIMIT_S


def test_a_catalog_of_before_has_the_time_of_its_database(beaten: Catalog) -> None:
    with beaten.write() as session:
        session.execute(sa.text("DROP TABLE catalog_clock"))
    clock.set_clock(AHEAD_S)
    assert skew_s(beaten) == 0.0
    with beaten.read() as session:
        assert cattime.may_remove(session)


def test_a_glance_has_the_time_of_its_look(beaten: Catalog) -> None:
    passed = beaten.prepared(sa.select(clock.now(-60.0) > sa.literal(time_of(beaten), UtcTime())))
    assert not beaten.glance(passed)[0]
    clock.set_clock(AHEAD_S)
    assert not beaten.glance(passed)[0]
    clock.set_clock(0.0)
    clock.shift_clock(61.0)
    assert beaten.glance(passed)[0]
