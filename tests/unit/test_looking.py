"""Looking at storages through processes of their own: what hangs holds up nothing else."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa

from catalog import arrivals, clock, intakelooks, intakerules, storages
from catalog.db import Catalog
from catalog.drivers import driver_for
from catalog.errors import BadInput, StorageError
from catalog.models import IntakeRule, StorageKind, StorageRole
from catalog.problems import problems
from catalog.refs import RefusalKind, StorageInfo
from catalog.rule import Rule
from flows.intake.looking import Looker
from flows.intake.roles import Errand
from flows.intake.rounds import Round
from flows.intake.sightings import Sighting, look
from flows.intake.watch import Watch
from flows.intake.watches import Watches
from tests.unit.watched import END, PATTERN, Buffer

LONG_S = 60.0


def errand(storage: StorageInfo, pattern: str = PATTERN) -> Errand:
    return Errand(storage, "", pattern, "{run}", END, (END,))


@pytest.fixture
def looker() -> Iterator[Looker]:
    made = Looker("raw", LONG_S)
    yield made
    made.close()


def seen(looker: Looker, what: Errand) -> list[Sighting]:
    found: list[Sighting] = []
    looker.look(what, found.extend)
    return sorted(found, key=lambda sighting: sighting.path)


def pid_of(looker: Looker) -> int:
    assert looker._process is not None
    return looker._process.pid


def until(what: Callable[[], bool], watches: Watches) -> None:
    """Have turns taken until something is so."""
    for _ in range(600):
        watches.turn()
        if what():
            return
        time.sleep(0.05)
    raise AssertionError("it never was so")


def test_a_process_sees_what_one_sees_here(
    catalog: Catalog, storage: StorageInfo, looker: Looker
) -> None:
    buffer = Buffer(catalog, storage)
    buffer.arrive("run-1/a.raw", "run-1/END", b"run-1/\xff.raw", "other", "run-1/new\nline.raw")
    buffer.path("run-1/l.raw").symlink_to("a.raw")
    for number in range(2100):
        buffer.path(f"run-1/{number}.raw").touch()
    here: list[Sighting] = []
    look(driver_for(storage), errand(storage), here.extend)
    found = seen(looker, errand(storage))
    assert found == sorted(here, key=lambda sighting: sighting.path)
    assert len(found) == 2105
    assert {s.refused for s in found} == {None, RefusalKind.NAME, RefusalKind.LINK}
    first = pid_of(looker)
    assert seen(looker, errand(storage, r"(?P<run>oth)er")) != found
    assert pid_of(looker) == first, "a look costs no process"


def test_what_a_look_can_not_do_is_said_and_the_process_goes_on(
    storage: StorageInfo, looker: Looker, tmp_path: Path
) -> None:
    seen(looker, errand(storage))
    first = pid_of(looker)
    with pytest.raises(BadInput, match=r"\(\?=…\)"):
        seen(looker, errand(storage, "(?=a)(?P<run>a)"))
    Path(storage.url).rename(tmp_path / "aside")
    with pytest.raises(StorageError, match="is not there; mount or make it"):
        seen(looker, errand(storage))
    Path(storage.url).mkdir()
    with pytest.raises(StorageError, match="is not what it was"):
        seen(looker, errand(storage))
    Path(storage.url).rmdir()
    (tmp_path / "aside").rename(storage.url)
    assert seen(looker, errand(storage)) == []
    assert pid_of(looker) == first


def test_a_look_that_gives_no_sign_is_given_up_and_the_next_one_goes_well(
    catalog: Catalog, storage: StorageInfo
) -> None:
    Buffer(catalog, storage).arrive("run-1/a.raw")
    looker = Looker("raw", LONG_S)
    assert len(seen(looker, errand(storage))) == 1
    stopped = pid_of(looker)
    # As one that waits for a dead server.
    os.kill(stopped, signal.SIGSTOP)
    looker._limit_s = 0.2
    with pytest.raises(StorageError, match=r"gave no sign for 0\.2 s .*hangs: mend it"):
        seen(looker, errand(storage))
    with pytest.raises(ProcessLookupError):
        os.kill(stopped, 0)
    looker._limit_s = LONG_S
    assert len(seen(looker, errand(storage))) == 1
    looker.close()


def test_a_process_that_died_is_another_ones_turn(storage: StorageInfo, looker: Looker) -> None:
    seen(looker, errand(storage))
    os.kill(pid_of(looker), signal.SIGKILL)
    for _ in range(100):
        try:
            assert seen(looker, errand(storage)) == []
            return
        except StorageError as error:
            assert "has ended; another is started" in str(error)
    raise AssertionError("none was started")


def test_a_reader_that_fails_leaves_nothing_to_the_next_look(
    catalog: Catalog, storage: StorageInfo, looker: Looker
) -> None:
    buffer = Buffer(catalog, storage)
    buffer.arrive(*(f"run-1/{number}.raw" for number in range(10)))

    def fail(_page: object) -> None:
        raise RuntimeError("the catalog is away")

    with pytest.raises(RuntimeError):
        looker.look(errand(storage), fail)
    assert len(seen(looker, errand(storage))) == 10


def test_a_look_that_goes_on_ends_with_the_service(storage: StorageInfo) -> None:
    looker = Looker("raw", LONG_S)
    seen(looker, errand(storage))
    os.kill(pid_of(looker), signal.SIGSTOP)
    told: list[str] = []

    def hang() -> None:
        try:
            seen(looker, errand(storage))
        except StorageError as error:
            told.append(str(error))

    thread = threading.Thread(target=hang)
    thread.start()
    looker.close()
    thread.join(30)
    assert not thread.is_alive() and len(told) == 1


LOOK = """
import os, sys
from catalog.refs import StorageInfo, StorageKind, StorageRole
from flows.intake.looking import Looker
from flows.intake.roles import Errand
storage = StorageInfo(1, "raw", StorageKind.LOCAL, StorageRole.INPUT, sys.argv[1])
looker = Looker("raw", 60.0)
looker.look(Errand(storage, "", ".*", "x", None), lambda page: None)
print(looker._process.pid, flush=True)
sys.stdin.read()
"""


def test_no_process_outlives_the_service_that_was_killed(storage: StorageInfo) -> None:
    line = [sys.executable, "-c", LOOK, storage.url]
    service = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert service.stdout is not None
    looking = psutil.Process(int(service.stdout.readline()))
    service.kill()
    service.communicate()
    looking.wait(60)


# All rules together.


@pytest.fixture
def watches(catalog: Catalog) -> Iterator[Watches]:
    made = Watches(catalog, LONG_S)
    yield made
    made.close()


def add(catalog: Catalog, name: str, storage: str = "raw", **more: object) -> Rule:
    values = {"pattern": PATTERN, "dataset": f"{name}-{{run}}", "stable_s": 0.0, **more}
    with catalog.write() as session:
        return intakerules.add(session, Rule(name, storage, **values))  # type: ignore[arg-type]


def test_a_storage_that_hangs_holds_up_its_own_rules_only_and_is_told(
    catalog: Catalog, storage: StorageInfo, watches: Watches, tmp_path: Path
) -> None:
    with catalog.write() as session:
        other = storages.add(
            session, "other", StorageKind.LOCAL, StorageRole.INPUT, str(tmp_path / "other")
        )
    here, there = Buffer(catalog, storage), Buffer(catalog, other)
    hung, fine = add(catalog, "hung"), add(catalog, "fine", "other")
    until(lambda: {hung.storage_id, fine.storage_id} <= watches._lookers.keys(), watches)
    until(lambda: looked(catalog) >= {hung.id, fine.id}, watches)
    looker = watches._lookers[hung.storage_id]
    until(lambda: hung.storage_id not in watches._going, watches)
    stopped = pid_of(looker)
    os.kill(stopped, signal.SIGSTOP)
    here.arrive("run-1/a.raw")
    until(lambda: hung.storage_id in watches._going, watches)
    there.arrive("run-1/a.raw")
    until(lambda: has_dataset(catalog, "fine-run-1"), watches)
    assert hung.storage_id in watches._going and not has_dataset(catalog, "hung-run-1")
    looker._limit_s = 0.2
    until(lambda: "hung" in told(catalog), watches)
    assert "gave no sign" in told(catalog)["hung"] and "fine" not in told(catalog)
    looker._limit_s = LONG_S
    watches._due.clear()
    until(lambda: has_dataset(catalog, "hung-run-1"), watches)
    until(lambda: told(catalog) == {}, watches)


def test_a_rule_that_can_not_be_followed_is_told_and_the_others_are_followed(
    catalog: Catalog, storage: StorageInfo, watches: Watches
) -> None:
    buffer = Buffer(catalog, storage)
    add(catalog, "old")
    with catalog.write() as session:
        session.execute(sa.update(IntakeRule).values(pattern=r"(?P<run>run-\d+)/(?!x).*"))
    add(catalog, "new")
    buffer.arrive("run-1/a.raw")
    until(lambda: has_dataset(catalog, "new-run-1"), watches)
    assert "it can't be followed: --pattern" in told(catalog)["old"]
    assert not has_dataset(catalog, "old-run-1")


def test_what_is_done_about_one_rules_look_keeps_no_other_from_its_own(
    catalog: Catalog, storage: StorageInfo, watches: Watches, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, goes_on, act = threading.Event(), threading.Event(), Watch.act

    def slow(watch: Watch, found: Round) -> float:
        if watch.rule.name == "slow":
            begun.set()
            assert goes_on.wait(60)
        return act(watch, found)

    monkeypatch.setattr(Watch, "act", slow)
    add(catalog, "slow")
    until(begun.is_set, watches)
    add(catalog, "quick")
    Buffer(catalog, storage).arrive("run-1/a.raw")
    try:
        until(lambda: has_dataset(catalog, "quick-run-1"), watches)
        assert not has_dataset(catalog, "slow-run-1")
    finally:
        goes_on.set()
    until(lambda: has_dataset(catalog, "slow-run-1"), watches)


@pytest.mark.parametrize("part", ["look", "act"])
def test_a_defect_in_one_rules_look_is_told_and_the_others_are_followed(
    catalog: Catalog, storage: StorageInfo, watches: Watches, monkeypatch: pytest.MonkeyPatch,
    part: str,
) -> None:  # fmt: skip
    plain = getattr(Watch, part)

    def odd(watch: Watch, *found: Round) -> Any:
        if watch.rule.name == "odd":
            raise ZeroDivisionError("of a defect")
        return plain(watch, *found)

    monkeypatch.setattr(Watch, part, odd)
    add(catalog, "odd")
    add(catalog, "plain")
    Buffer(catalog, storage).arrive("run-1/a.raw")
    until(lambda: has_dataset(catalog, "plain-run-1") and "odd" in told(catalog), watches)
    assert "a defect of spdf (ZeroDivisionError: of a defect)" in told(catalog)["odd"]


def test_a_rule_without_a_look_for_long_is_told(catalog: Catalog, storage: StorageInfo) -> None:
    rule = add(catalog, "daq")
    with catalog.write() as session:
        intakelooks.good(session, rule.id, files=1, refused=0)
    assert told(catalog) == {}
    clock.shift_clock(2 * intakelooks.MOST_S)
    assert "it had no look for" in told(catalog)["daq"]


def test_status_tells_of_rules_and_of_what_they_do_not_take(
    catalog: Catalog, storage: StorageInfo
) -> None:
    rule, other = add(catalog, "daq"), add(catalog, "other")
    with catalog.read() as session:
        assert problems(session) == []
    with catalog.write() as session:
        intakelooks.failed(session, rule.id, "its mount hangs")
        intakelooks.good(session, other.id, files=5, refused=3)
        found = [problem.message for problem in problems(session)]
    assert found[0].startswith("intake rule daq: its looks fail since ")
    assert found[1].startswith("not taken from watched storages: 3 things;")
    with catalog.write() as session:
        for name in ("daq", "other"):
            intakerules.remove(session, name)
        assert problems(session) == []


def told(catalog: Catalog) -> dict[str, str]:
    with catalog.read() as session:
        return intakelooks.troubles(session)


def looked(catalog: Catalog) -> set[int]:
    with catalog.read() as session:
        return {i for i, info in intakelooks.all_looks(session).items() if info.looked_at}


def has_dataset(catalog: Catalog, name: str) -> bool:
    with catalog.read() as session:
        return name in arrivals.known_names(session, [name])
