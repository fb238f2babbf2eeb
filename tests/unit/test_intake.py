"""The intake: files that arrive become datasets, closed by marker, count or quiet; the spool."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Session

from catalog import clock, datasets, durations, intakerules, manifests, requests, usage
from catalog.db import Catalog
from catalog.drivers import driver_for
from catalog.errors import BadInput, Conflict, NotFound
from catalog.failpoints import VARIABLE
from catalog.intakerules import Rule
from catalog.problems import problems
from catalog.refs import Untaken
from catalog.rejected import REJECTED
from catalog.requests import queue
from catalog.settings import Settings
from catalog.states import DatasetState, RequestState
from catalog.storages import StorageInfo
from flows.intake import closing
from flows.intake.roles import Errand
from flows.intake.sightings import Sighting, Take, look
from flows.intake.spool import Spool
from flows.intake.watch import Watch
from flows.intake.watches import Watches
from tests.processing import close_due, do_all

PATTERN = r"(?P<run>run-\d+)/.*\.raw"


def rule(**more: Any) -> Rule:
    values: dict[str, Any] = {"name": "daq", "storage": "raw", "pattern": PATTERN}
    return Rule(**{**values, "dataset": "{run}", "stable_s": 0.0, **more})


@pytest.fixture
def follow(catalog: Catalog, storage: StorageInfo) -> Callable[..., Watch]:
    def made(**more: Any) -> Watch:
        with catalog.write() as session:
            found = intakerules.add(session, rule(**more))
        return Watch(found, catalog)

    return made


@pytest.fixture
def work(catalog: Catalog) -> Callable[[], None]:
    """Have all requests done."""

    def work() -> None:
        do_all(catalog)
        close_due(catalog)

    return work


def arrive(storage: StorageInfo, *names: str, content: bytes | None = None) -> None:
    for name in names:
        path = Path(storage.url, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() if content is None else content)


def names(catalog: Catalog, dataset: str) -> list[str]:
    with catalog.read() as session:
        info = datasets.by_name(session, dataset)
        return sorted(m.name for m in manifests.all_members(session, info.id))


def state_of(catalog: Catalog, dataset: str) -> DatasetState:
    with catalog.read() as session:
        return datasets.by_name(session, dataset).state


def asked(catalog: Catalog) -> list[str]:
    with catalog.read() as session:
        return [info.kind for info in reversed(requests.list_requests(session))]


def test_files_become_the_datasets_that_their_names_say(
    catalog: Catalog, storage: StorageInfo, follow: Callable[..., Watch], work: Callable[[], None]
) -> None:
    watch = follow(lifetime_s=60.0, unmatched=Untaken.EXPIRE)
    arrive(storage, "run-1/a.raw", "run-1/b.raw", "run-2/a.raw", "run-1/notes.txt", "run-1/.c.raw")
    watch.turn()
    work()
    assert names(catalog, "run-1") == ["run-1/a.raw", "run-1/b.raw"]
    assert names(catalog, "run-2") == ["run-2/a.raw"]
    with catalog.read() as session:
        assert datasets.by_name(session, "run-1").lifetime_s == 60.0
    watch.turn()
    assert len(asked(catalog)) == 3, "what is registered is not asked for again"
    Path(storage.url, "run-1/.c.raw").rename(Path(storage.url, "run-1/c.raw"))
    watch.turn()
    work()
    assert len(names(catalog, "run-1")) == 3


def test_a_file_that_still_changes_is_left_alone(
    catalog: Catalog, storage: StorageInfo, follow: Callable[..., Watch], work: Callable[[], None]
) -> None:
    watch = follow(stable_s=0.3)
    arrive(storage, "run-1/a.raw", content=b"1")
    watch.turn()
    time.sleep(0.2)
    arrive(storage, "run-1/a.raw", content=b"12")
    watch.turn()
    time.sleep(0.2)
    watch.turn()
    assert asked(catalog) == [], "it changed 0.2 s ago"
    time.sleep(0.2)
    watch.turn()
    work()
    with catalog.read() as session:
        info = datasets.by_name(session, "run-1")
        assert manifests.members(session, info.id)[0].size_bytes == 2


def test_a_watch_that_begins_anew_asks_for_the_same(
    catalog: Catalog, storage: StorageInfo, follow: Callable[..., Watch], work: Callable[[], None]
) -> None:
    arrive(storage, "run-1/a.raw", "run-1/b.raw")
    watch = follow()
    watch.turn()
    watch.turn()
    Watch(watch.rule, catalog).turn()
    assert asked(catalog) == ["file.input", "file.input"]
    work()
    Watch(watch.rule, catalog).turn()
    assert len(asked(catalog)) == 2


def test_a_marker_closes_its_dataset_behind_its_last_file(
    catalog: Catalog, storage: StorageInfo, follow: Callable[..., Watch], work: Callable[[], None]
) -> None:
    watch = follow(end_pattern=r"(?P<run>run-\d+)/END", stable_s=0.2)
    arrive(storage, "run-1/a.raw", "run-2/a.raw", "run-1/END")
    watch.turn()
    time.sleep(0.25)
    arrive(storage, "run-1/late.raw")
    watch.turn()
    work()
    watch.turn()
    work()
    assert state_of(catalog, "run-1") is DatasetState.OPEN, "a file of it is still on its way"
    time.sleep(0.25)
    watch.turn()
    work()
    watch.turn()
    work()
    assert state_of(catalog, "run-1") is DatasetState.CLOSED
    assert names(catalog, "run-1") == ["run-1/a.raw", "run-1/late.raw"]
    assert state_of(catalog, "run-2") is DatasetState.OPEN
    watch.turn()
    assert "dataset.close" not in asked(catalog)


def test_a_file_that_a_listing_missed_before_its_marker_is_in_the_dataset(
    catalog: Catalog, storage: StorageInfo, follow: Callable[..., Watch], work: Callable[[], None]
) -> None:
    """A directory may be read past a name that is made just then, and the marker seen behind it."""
    missed = "run-1/b.raw"

    def passing_by(errand: Errand, take: Take) -> None:
        def rest(page: Sequence[Sighting]) -> None:
            take([sighting for sighting in page if sighting.path != missed])

        look(driver_for(storage), errand, rest)

    watch = Watch(follow(end_pattern=r"(?P<run>run-\d+)/END").rule, catalog, passing_by)
    arrive(storage, "run-1/a.raw")
    watch.turn()
    work()
    arrive(storage, "run-1/b.raw", "run-1/END")
    watch.turn()
    work()
    missed = ""
    for _ in range(3):
        watch.turn()
        work()
    assert state_of(catalog, "run-1") is DatasetState.CLOSED
    assert names(catalog, "run-1") == ["run-1/a.raw", "run-1/b.raw"]


def test_names_that_cannot_be_used_hold_up_no_others(
    catalog: Catalog, storage: StorageInfo, follow: Callable[..., Watch], work: Callable[[], None],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    watch = follow(pattern=r"(?P<run>[^/]+)/.*\.raw")
    arrive(storage, "run-1/a.raw", "run 2/b.raw", "run-1/c\x01.raw")
    Path(os.fsdecode(os.fsencode(storage.url) + b"/run-1/\xff.raw")).write_bytes(b"x")
    for _ in range(2):
        watch.turn()
        work()
    assert names(catalog, "run-1") == ["run-1/a.raw"]
    told = [r for r in caplog.records if r.getMessage() == "left alone"]
    assert len(told) == 3, "each once"
    assert "dataset name 'run 2' can't be used" in told[0].why + told[1].why + told[2].why  # type: ignore[attr-defined]


def test_a_count_closes_a_dataset(
    catalog: Catalog, storage: StorageInfo, follow: Callable[..., Watch], work: Callable[[], None]
) -> None:
    watch = follow(close_count=3)
    arrive(storage, "run-1/a.raw", "run-1/b.raw", "run-2/a.raw")
    for _ in range(3):
        watch.turn()
        work()
    assert state_of(catalog, "run-1") is DatasetState.OPEN
    arrive(storage, "run-1/c.raw")
    for _ in range(3):
        watch.turn()
        work()
    assert state_of(catalog, "run-1") is DatasetState.CLOSED
    assert state_of(catalog, "run-2") is DatasetState.OPEN


def test_quiet_closes_a_dataset(
    catalog: Catalog, storage: StorageInfo, follow: Callable[..., Watch], work: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    moment = [0.0]
    monkeypatch.setattr(closing, "elapsed_s", lambda: moment[0])
    watch = follow(quiet_s=60.0)
    arrive(storage, "run-1/a.raw")
    for _ in range(2):
        watch.turn()
        work()
    moment[0] += 59
    watch.turn()
    work()
    assert state_of(catalog, "run-1") is DatasetState.OPEN
    moment[0] += 2
    watch.turn()
    work()
    watch.turn()
    work()
    assert state_of(catalog, "run-1") is DatasetState.CLOSED


def test_a_file_that_is_refused_keeps_its_dataset_open(
    catalog: Catalog, storage: StorageInfo, follow: Callable[..., Watch], work: Callable[[], None]
) -> None:
    """Nobody shall think that a run is whole while a file of it could not be registered."""
    watch = follow(close_count=1)
    arrive(storage, "run-1/a.raw", "run-1/b.raw")
    watch.turn()
    Path(storage.url, "run-1/b.raw").write_bytes(b"longer than it was asked for")
    work()
    with catalog.read() as session:
        (refused,) = requests.list_requests(session, state=RequestState.ERROR)
    assert "bytes, not the" in str(refused.reply)
    watch.turn()
    assert state_of(catalog, "run-1") is DatasetState.OPEN
    work()
    watch.turn()
    work()
    assert names(catalog, "run-1") == ["run-1/a.raw", "run-1/b.raw"], "as it is now, it is new"


def test_a_file_behind_the_close_is_answered_with_an_error(
    catalog: Catalog, storage: StorageInfo, follow: Callable[..., Watch], work: Callable[[], None]
) -> None:
    watch = follow(close_count=1)
    arrive(storage, "run-1/a.raw")
    for _ in range(3):
        watch.turn()
        work()
    arrive(storage, "run-1/late.raw")
    for _ in range(3):
        watch.turn()
        work()
    with catalog.read() as session:
        (late,) = requests.list_requests(session, state=RequestState.ERROR)
    assert "is CLOSED" in str(late.reply)
    assert names(catalog, "run-1") == ["run-1/a.raw"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"pattern": "("}, "is no regular expression"),
        ({"dataset": "{lumi}"}, "the group 'lumi', which --pattern doesn't have"),
        ({"end_pattern": "END"}, "the group 'run', which --end doesn't have"),
        ({"dataset": "{run"}, "write `run-{run}`"),
        ({"dataset": "a/{run}"}, "makes names such as 'a/x'"),
        ({"dataset": "{run:>5}"}, "is no group's name"),
        ({"prefix": "../x"}, "prefix '../x'"),
        ({"name": "a b"}, "intake rule name 'a b'"),
    ],
)
def test_a_rule_that_cannot_be_used_is_refused(
    catalog: Catalog, storage: StorageInfo, wrong: dict[str, Any], told: str
) -> None:
    with catalog.write() as session:
        with pytest.raises(BadInput) as error:
            intakerules.add(session, rule(**wrong))
        assert told in str(error.value)
        assert intakerules.active(session) == []


def test_a_rule_is_added_once_and_its_name_is_free_after_its_end(
    catalog: Catalog, storage: StorageInfo
) -> None:
    with catalog.write() as session:
        first = intakerules.add(session, rule())
        assert intakerules.add(session, rule()) == first
        with pytest.raises(Conflict, match="exists already and says something else"):
            intakerules.add(session, rule(quiet_s=5.0))
        with pytest.raises(NotFound):
            intakerules.add(session, rule(name="other", storage="nowhere"))
        intakerules.remove(session, "daq")
        assert intakerules.active(session) == []
        assert intakerules.add(session, rule(quiet_s=5.0)).id != first.id


def test_rules_come_and_go_while_the_intake_runs(
    catalog: Catalog, storage: StorageInfo, work: Callable[[], None], tmp_path: Path
) -> None:
    watches = Watches(catalog, 60.0)
    arrive(storage, "run-1/a.raw")
    assert watches.turn() > 0
    with catalog.write() as session:
        intakerules.add(session, rule())
    for _ in range(600):
        watches.turn()
        if asked(catalog) and not watches._acting:
            break
    work()
    assert names(catalog, "run-1") == ["run-1/a.raw"]
    aside = tmp_path / "aside"
    Path(storage.url).rename(aside)
    watches._due.clear()
    watches.turn()
    aside.rename(storage.url)
    with catalog.write() as session:
        intakerules.remove(session, "daq")
    arrive(storage, "run-1/b.raw")
    watches._due.clear()
    watches.turn()
    work()
    assert names(catalog, "run-1") == ["run-1/a.raw"]
    watches.close()


# The spool.


@pytest.fixture
def spool(catalog: Catalog, tmp_path: Path) -> Spool:
    folder = tmp_path / "spool"
    folder.mkdir()
    return Spool(folder, catalog)


def close_of(dataset: str) -> str:
    return json.dumps({"kind": "dataset.close", "key": f"close {dataset}", "datasetId": dataset})


def left(spool: Spool) -> list[str]:
    return sorted(p.name for p in spool.directory.rglob("*") if p.is_file())


def test_what_is_spooled_is_accepted_in_the_order_of_names(catalog: Catalog, spool: Spool) -> None:
    (spool.directory / "2.json").write_text(close_of("c"))
    (spool.directory / "1.jsonl").write_text(f"{close_of('a')}\n\n{close_of('b')}\n")
    (spool.directory / ".3.json").write_text("half of")
    (spool.directory / "notes.txt").write_text("of mine")
    assert spool.look() == 2
    with catalog.read() as session:
        found = [info.lane for info in reversed(requests.list_requests(session))]
    assert found == ["a", "b", "c"]
    assert left(spool) == [".3.json", "notes.txt"]
    assert spool.look() == 0
    assert Spool(spool.directory / "nowhere", catalog).look() == 0


def test_what_is_no_request_is_set_aside_with_a_sentence_and_the_rest_goes_on(
    catalog: Catalog, spool: Spool
) -> None:
    (spool.directory / "a.json").write_text(close_of("a"))
    (spool.directory / "b.json").write_text('{"kind": "dataset.close", "key": ')
    (spool.directory / "c.jsonl").write_text(f"{close_of('c')}\n[]\n")
    (spool.directory / "d.json").write_bytes(b"\xc3(")
    (spool.directory / "e.json").write_text(
        json.dumps({"kind": "dataset.close", "key": "close a", "datasetId": "other"})
    )
    (spool.directory / "f.json").write_text(close_of("f"))
    spool.look()
    with catalog.read() as session:
        found = {info.lane for info in requests.list_requests(session)}
    assert found == {"a", "f"}, "of a file all requests are accepted, or none"
    rejected = spool.directory / REJECTED
    why = {p.name[0]: p.read_text() for p in rejected.glob("*.why")}
    assert set(why) == {"b", "c", "d", "e"}
    assert "is no JSON" in why["b"] and "line 2 is no JSON object" in why["c"]
    assert "no UTF-8" in why["d"] and "sent before with another content" in why["e"]
    assert (rejected / "b.json").exists() and left(spool) == sorted(
        p.name for p in rejected.iterdir()
    )


@pytest.mark.parametrize(
    "name", [b"x" * 250, "ü".encode() * 125, "€".encode() * 83, b"a" + "€".encode() * 83,
             b"\xfc" * 250, b"\xfc" * 240]
)  # fmt: skip
def test_a_refused_file_of_any_name_is_set_aside_and_counted(
    catalog: Catalog, spool: Spool, monkeypatch: pytest.MonkeyPatch, name: bytes
) -> None:
    monkeypatch.setattr("catalog.problems.get_settings", lambda: Settings(spool=spool.directory))
    with catalog.read() as session:
        assert not told_of_the_spool(session)
    for i in range(2):
        (spool.directory / os.fsdecode(name + b".json")).write_text(f"{i}{{")
        (spool.directory / "zz.json").write_text(close_of(f"z{i}"))
        spool.look()
    rejected = spool.directory / REJECTED
    assert len([p for p in rejected.iterdir() if p.suffix == ".json"]) == 2
    assert all("is no JSON" in p.read_text() for p in rejected.glob("*.why"))
    assert len(list(rejected.glob("*.why"))) == 2
    assert [p.name for p in spool.directory.iterdir()] == [REJECTED]
    with catalog.read() as session:
        assert {info.lane for info in requests.list_requests(session)} == {"z0", "z1"}
        (told,) = told_of_the_spool(session)
    assert "refused 2 files of requests" in told and "is no JSON" in told and str(rejected) in told
    told.encode()
    for path in rejected.iterdir():
        path.unlink()
    with catalog.read() as session:
        assert not told_of_the_spool(session)


def told_of_the_spool(session: Session) -> list[str]:
    return [p.message for p in problems(session) if p.source == "requests of the spool"]


def test_a_spooled_file_that_was_accepted_and_not_removed_is_the_same(
    catalog: Catalog, spool: Spool
) -> None:
    (spool.directory / "a.json").write_text(close_of("a"))
    spool.look()
    (spool.directory / "a.json").write_text(close_of("a"))
    spool.look()
    with catalog.read() as session:
        assert len(requests.list_requests(session)) == 1
        assert queue.count(session, RequestState.QUEUED) == 1


LOOK = """
import sys
from pathlib import Path
from catalog.db import Catalog
from catalog.drivers import driver_for
from flows.intake.roles import Errand
from flows.intake.sightings import Sighting, Take, look
from flows.intake.spool import Spool
Spool(Path(sys.argv[2]), Catalog(sys.argv[1])).look()
"""


def test_killed_after_it_accepted_a_file_the_spool_accepts_it_once(
    catalog: Catalog, catalog_url: str, spool: Spool
) -> None:
    (spool.directory / "a.json").write_text(close_of("a"))
    line = [sys.executable, "-c", LOOK, catalog_url, str(spool.directory)]
    root = Path(__file__).resolve().parents[2]
    env = {**os.environ, VARIABLE: "spool.accepted"}
    killed = subprocess.run(line, env=env, cwd=root, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL and left(spool) == ["a.json"]
    subprocess.run(line, cwd=root, timeout=60, check=True)
    assert left(spool) == []
    with catalog.read() as session:
        assert [info.lane for info in requests.list_requests(session)] == ["a"]


def test_while_the_catalog_is_away_the_spool_keeps_all(
    catalog: Catalog, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not catalog.is_sqlite:
        pytest.skip("an SQLite file is easily taken away")
    (spool.directory / "a.json").write_text(close_of("a"))
    database = Path(str(catalog.url.database))
    catalog.close()
    aside = database.with_name("aside")
    aside.mkdir()
    for part in list(database.parent.glob("catalog.db*")):
        part.rename(aside / part.name)
    with pytest.raises(Exception, match="no such table"):
        spool.look()
    catalog.close()
    for part in list(database.parent.glob("catalog.db*")):
        part.unlink()
    for part in list(aside.iterdir()):
        part.rename(database.parent / part.name)
    assert left(spool) == ["a.json"]
    assert spool.look() == 1


# What is on the storages.


def test_marks_of_a_storage_are_passed_up_and_down(
    catalog: Catalog, storage: StorageInfo, new_rows: Callable[..., Any]
) -> None:
    from catalog import events, files

    def press(session: Session) -> dict[str, str]:
        usage.fold(session)
        return usage.press(session)

    with catalog.write() as session:
        usage.set_quota(session, storage.id, 100, 90, 50)
        files.register(session, storage.id, new_rows("x" * 80))
        assert press(session) == {}
        files.register(session, storage.id, new_rows("y" * 15))
        assert press(session) == {"raw": usage.PRESSED}
        assert press(session) == {} and usage.pressed(session) == {storage.id}
        usage.note(session, storage.id, -1, -40)
        assert press(session) == {}, "it is above the low mark yet"
        usage.note(session, storage.id, -1, -10)
        assert press(session) == {"raw": usage.RELIEVED}
        assert usage.pressed(session) == set()
        assert [e.after for e in events.history(session, "storage", storage.id)] == [
            usage.PRESSED, usage.RELIEVED,
        ]  # fmt: skip
        assert usage.recount(session, storage.id) == (2, 50)
        (item,) = usage.of_storages(session)
        assert (item.files, item.size_bytes) == (2, 95)


def test_growth_is_the_slope_of_the_samples(catalog: Catalog, storage: StorageInfo) -> None:
    from catalog.filling import fills

    with catalog.write() as session:
        usage.set_quota(session, storage.id, 10_000, 90, 80)
        for minute in range(5):
            clock.shift_clock(60.0 * minute)
            usage.sample(session)
            usage.note(session, storage.id, 1, 600)
    (fill,) = fills(catalog)
    assert fill.growth_bytes_per_s == pytest.approx(10.0, rel=0.01)
    assert fill.full_in_s == pytest.approx(700.0, rel=0.01)
    assert fill.warning == f"input buffer raw full in {durations.words(fill.full_in_s)}"
    assert fill.warning.startswith("input buffer raw full in 11 min ")
