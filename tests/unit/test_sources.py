"""Who closes a dataset: those who fill it end one by one, and it is closed when all have."""

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import col

from catalog import (
    clock,
    closing,
    datasets,
    events,
    files,
    intakerules,
    refusals,
    requests,
    sources,
    standing,
    storages,
)
from catalog.datasets import Member, SourcesOpen
from catalog.db import Catalog
from catalog.errors import BadInput, StateConflict
from catalog.files import NewFileRow
from catalog.models import Dataset, Replica, Source, StorageKind, StorageRole
from catalog.refs import RefusalKind, Settlement, SourceEnd
from catalog.requests import parse, submit
from catalog.states import DatasetState, ReplicaState, RequestState
from catalog.storages import StorageInfo
from flows.intake import closing as ends
from tests.acceptance.machine import until
from tests.privileges import modes_hold
from tests.processing import do_all
from tests.unit.clocks import clock_of_another_boot
from tests.unit.watched import END, Buffer

CLOSED, OPEN = DatasetState.CLOSED, DatasetState.OPEN


@pytest.fixture
def buffer(catalog: Catalog, storage: StorageInfo) -> Buffer:
    return Buffer(catalog, storage)


@pytest.fixture
def other(catalog: Catalog, buffer: Buffer, tmp_path: Path) -> Buffer:
    """A second storage, of the same site."""
    with catalog.write() as session:
        place = str(tmp_path / "raw2")
        made = storages.add(session, "raw2", StorageKind.LOCAL, StorageRole.INPUT, place)
    return Buffer(catalog, standing.mark(catalog, made.id).storage)


def look(times: int, *buffers: Buffer) -> None:
    for _ in range(times):
        for each in buffers:
            each.look()


def found(catalog: Catalog, dataset: str) -> list[sources.SourceInfo]:
    with catalog.read() as session:
        return sources.of_dataset(session, datasets.by_name(session, dataset).id)


def told(catalog: Catalog, dataset: str) -> list[str]:
    with catalog.read() as session:
        about = datasets.by_name(session, dataset).id
        return [str(e.message) for e in events.history(session, "dataset", about) if e.message]


def ask(catalog: Catalog, **document: Any) -> requests.RequestInfo:
    """Send a request, have it done, and give it back."""
    with catalog.write() as session:
        (request_id,) = submit(session, [parse({"key": f"k-{document}", **document})])
    do_all(catalog)
    with catalog.read() as session:
        return requests.get(session, request_id)


# Rules.


def test_of_two_that_fill_a_dataset_both_must_have_ended(buffer: Buffer, other: Buffer) -> None:
    buffer.follow("one", end_pattern=END)
    other.follow("two", end_pattern=END)
    buffer.arrive("run-1/s1.raw")
    other.arrive("run-1/s2.raw")
    look(2, buffer, other)
    buffer.arrive("run-1/END")
    look(3, buffer, other)
    assert buffer.state("run-1") is OPEN
    why = buffer.why("run-1")
    assert "intake rule one has ended by its marker" in why
    assert "intake rule two fills it from raw2, so far with 1 file" in why
    assert rf"the marker {END} of run-1 on raw2" in why and "`spdf dataset close run-1`" in why
    other.arrive("run-1/s4.raw")
    look(2, buffer, other)
    other.arrive("run-1/END")
    look(3, buffer, other)
    assert buffer.state("run-1") is CLOSED
    assert buffer.names("run-1") == ["run-1/s1.raw", "run-1/s2.raw", "run-1/s4.raw"]
    assert [(info.ended_by, info.files) for info in found(buffer.catalog, "run-1")] == [
        (SourceEnd.MARKER, 1), (SourceEnd.MARKER, 2),
    ]  # fmt: skip
    assert "intake rule two has ended by its marker" in buffer.why("run-1")


def test_the_marker_of_a_rule_may_end_all(buffer: Buffer, other: Buffer) -> None:
    buffer.follow("one", end_pattern=END, end_for_all=True)
    other.follow("two", end_pattern=END)
    other.arrive("run-1/s1.raw")
    buffer.arrive("run-1/s2.raw", "run-1/END")
    look(3, buffer, other)
    assert buffer.state("run-1") is CLOSED
    assert {info.rule: info.ended_by for info in found(buffer.catalog, "run-1")} == {
        "one": SourceEnd.MARKER, "two": SourceEnd.OTHER,
    }  # fmt: skip


def test_a_dataset_that_was_announced_is_closed_by_the_rule_that_fills_it(buffer: Buffer) -> None:
    ask(buffer.catalog, kind="dataset.input", name="run-1")
    buffer.follow(end_pattern=END)
    buffer.arrive("run-1/a.raw", "run-1/b.raw", "run-1/END")
    buffer.look(3)
    assert buffer.state("run-1") is CLOSED and len(buffer.names("run-1")) == 2


def test_one_that_saw_nothing_is_waited_for_only_a_while(
    buffer: Buffer, other: Buffer, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = [0.0]
    monkeypatch.setattr(ends, "elapsed_s", lambda: moment[0])
    buffer.follow("one", end_pattern=END)
    other.follow("two", end_pattern=END)
    buffer.idle_s = 100.0
    buffer.arrive("run-1/a.raw", "run-1/END")
    look(3, buffer, other)
    assert buffer.state("run-1") is OPEN
    assert "once all others have ended it is waited for only a while" in buffer.why("run-1")
    for _ in range(4):
        moment[0] += 20
        buffer.close()
    assert buffer.state("run-1") is OPEN
    for _ in range(2):
        moment[0] += 20
        buffer.close()
    assert buffer.state("run-1") is CLOSED
    assert found(buffer.catalog, "run-1")[1].ended_by is SourceEnd.NOTHING


def test_one_whose_first_file_is_on_its_way_is_waited_for(
    buffer: Buffer, other: Buffer, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = [0.0]
    monkeypatch.setattr(ends, "elapsed_s", lambda: moment[0])
    buffer.follow("one", end_pattern=END)
    other.follow("two", end_pattern=END, stable_s=3600.0)
    buffer.idle_s = 100.0
    buffer.arrive("run-1/a.raw", "run-1/END")
    look(3, buffer, other)
    other.arrive("run-1/b.raw")
    for _ in range(10):
        moment[0] += 20
        other.look()
        buffer.close()
    assert buffer.state("run-1") is OPEN
    other.path("run-1/b.raw").unlink()
    for _ in range(8):
        moment[0] += 20
        other.look()
        buffer.close()
    assert buffer.state("run-1") is CLOSED


def test_a_marker_of_a_run_without_files_of_its_own_is_an_end_too(
    buffer: Buffer, other: Buffer
) -> None:
    buffer.follow("one", end_pattern=END)
    other.follow("two", end_pattern=END)
    buffer.arrive("run-1/a.raw", "run-1/END")
    other.arrive("run-1/END")
    look(3, buffer, other)
    assert buffer.state("run-1") is CLOSED


def test_a_file_after_its_sources_end_is_taken_and_counted_as_late(
    buffer: Buffer, other: Buffer
) -> None:
    buffer.follow("one", end_pattern=END)
    other.follow("two", end_pattern=END)
    buffer.arrive("run-1/a.raw", "run-1/END")
    other.arrive("run-1/b.raw")
    look(3, buffer, other)
    buffer.arrive("run-1/late.raw")
    look(2, buffer, other)
    assert "run-1/late.raw" in buffer.names("run-1")
    other.arrive("run-1/END")
    look(3, buffer, other)
    assert buffer.state("run-1") is CLOSED
    assert [info.late for info in found(buffer.catalog, "run-1")] == [1, 0]
    assert any(
        "1 file came after its source's end" in line for line in told(buffer.catalog, "run-1")
    )
    assert "1 of them after its end" in buffer.why("run-1")


@pytest.mark.parametrize("is_known", [True, False])
def test_quiet_is_what_a_rule_saw_and_no_clock(
    buffer: Buffer, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    """What a watch has seen is kept when it begins anew; time when nobody looks doesn't count."""
    moment = [0.0]
    monkeypatch.setattr(ends, "elapsed_s", lambda: moment[0])
    buffer.follow(quiet_s=100.0)
    buffer.arrive("run-1/a.raw")
    buffer.look(2)
    clock.shift_clock(45 * 86400)
    for _ in range(3):
        moment[0] += 20
        buffer.look()
    clock.shift_clock(0)
    assert buffer.state("run-1") is OPEN, "a clock that jumps closes nothing"
    moment[0] += 10_000
    buffer.begin_anew()
    buffer.look(2)
    assert buffer.state("run-1") is OPEN, "nobody looked"
    if not is_known:
        buffer.arrive("run-1/b.raw")
        buffer.look(2)
    moment[0] += 50
    buffer.look(2)
    assert buffer.state("run-1") is (CLOSED if is_known else OPEN), "a new file begins it anew"
    moment[0] += 60
    buffer.look(2)
    assert buffer.state("run-1") is CLOSED
    assert found(buffer.catalog, "run-1")[0].ended_by is SourceEnd.QUIET


def test_a_quiet_that_is_over_is_judged_again_at_the_close(
    buffer: Buffer, other: Buffer, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = [0.0]
    monkeypatch.setattr(ends, "elapsed_s", lambda: moment[0])
    buffer.follow("one", quiet_s=100.0)
    other.follow("two", end_pattern=END)
    buffer.arrive("run-1/a.raw")
    other.arrive("run-1/b.raw")
    look(2, buffer, other)
    moment[0] += 200
    look(2, buffer, other)
    assert not found(buffer.catalog, "run-1")[0].is_open
    buffer.arrive("run-1/c.raw")
    look(2, buffer, other)
    other.arrive("run-1/END")
    look(3, buffer, other)
    assert buffer.state("run-1") is OPEN, "what was quiet has gone on"
    moment[0] += 200
    look(2, buffer, other)
    assert buffer.state("run-1") is CLOSED and len(buffer.names("run-1")) == 3


def test_a_count_is_the_rules_own_where_others_fill_the_dataset(
    buffer: Buffer, other: Buffer
) -> None:
    buffer.follow("one", close_count=2)
    other.follow("two", close_count=1)
    buffer.arrive("run-1/a.raw")
    other.arrive("run-1/b.raw")
    look(3, buffer, other)
    assert buffer.state("run-1") is OPEN
    buffer.arrive("run-1/c.raw")
    look(3, buffer, other)
    assert buffer.state("run-1") is CLOSED


def test_a_rule_without_an_end_holds_nothing_open(buffer: Buffer, other: Buffer) -> None:
    buffer.follow("one", end_pattern=END)
    other.follow("two")
    other.arrive("run-1/a.raw")
    buffer.arrive("run-1/b.raw", "run-1/END")
    look(3, buffer, other)
    assert buffer.state("run-1") is CLOSED


# Rules that are corrected.


def remove(buffer: Buffer, name: str = "daq") -> None:
    with buffer.catalog.write() as session:
        intakerules.remove(session, name)
    del buffer.watches[name]


def adopt(buffer: Buffer, name: str = "daq") -> list[str]:
    """What `intake add` does for a rule of a name that was removed."""
    with buffer.catalog.write() as session:
        rule = intakerules.get(session, name)
        return sources.adopt(session, rule, sources.orphans(session, rule))


def test_a_rule_that_was_added_again_closes_what_the_one_before_began(buffer: Buffer) -> None:
    old = buffer.follow(end_pattern=END, stable_s=5.0).rule
    buffer.watches["daq"]._stable_s = 0.0
    buffer.arrive("run-1/a.raw")
    buffer.look(2)
    remove(buffer)
    assert f"`spdf intake add … --adopt {old.id}`" in buffer.why("run-1")
    assert "was removed, and nothing ends it" in buffer.why("run-1")
    buffer.follow(end_pattern=END)
    assert adopt(buffer) == ["run-1"]
    buffer.arrive("run-1/b.raw", "run-2/a.raw")
    buffer.look(2)
    buffer.arrive("run-1/END", "run-2/END")
    buffer.look(3)
    assert (buffer.state("run-1"), buffer.state("run-2")) == (CLOSED, CLOSED)
    assert len(buffer.names("run-1")) == 2
    assert any(
        f"goes on in place of rule {old.id}" in line for line in told(buffer.catalog, "run-1")
    )


def test_only_one_of_the_same_storage_and_datasets_goes_on_by_itself(
    buffer: Buffer, other: Buffer
) -> None:
    old = buffer.follow(end_pattern=END).rule
    buffer.arrive("run-1/a.raw")
    buffer.look(2)
    remove(buffer)
    other.follow(end_pattern=END)
    assert adopt(other) == []
    remove(other)
    buffer.follow(end_pattern=END, dataset="x-{run}")
    assert adopt(buffer) == []
    with buffer.catalog.write() as session:
        rule = intakerules.get(session, "daq")
        assert sources.adopt(session, rule, sources.of_removed(session, old.id)) == ["run-1"]


def test_an_update_keeps_what_a_rule_fills(buffer: Buffer) -> None:
    rule = buffer.follow(end_pattern=r"(?P<run>run-\d+)/STOP").rule
    buffer.arrive("run-1/a.raw", "run-1/END")
    buffer.look(3)
    assert buffer.state("run-1") is OPEN
    with buffer.catalog.write() as session:
        after = intakerules.update(session, replace(rule, end_pattern=END))
    assert (after.id, after.version) == (rule.id, rule.version + 1)
    buffer.watches["daq"].rule = after
    buffer.begin_anew()
    buffer.look(3)
    assert buffer.state("run-1") is CLOSED
    with buffer.catalog.write() as session, pytest.raises(BadInput, match="can't be changed"):
        intakerules.update(session, replace(after, dataset="x-{run}"))


# What was refused.


def refuse(buffer: Buffer, name: str = "run-1/link.raw") -> None:
    path = buffer.path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to("elsewhere")


def test_what_is_refused_holds_until_it_is_dismissed_and_only_as_it_is(buffer: Buffer) -> None:
    buffer.follow(end_pattern=END)
    buffer.arrive("run-1/a.raw", "run-1/END")
    refuse(buffer)
    buffer.look(3)
    assert buffer.state("run-1") is OPEN
    assert "`spdf dataset dismiss run-1 PATH`" in buffer.why("run-1")
    with buffer.catalog.write() as session:
        assert [i.path for i in refusals.dismiss(session, "run-1", ["run-1/link.raw"])] == [
            "run-1/link.raw"
        ]
        assert refusals.dismiss(session, "run-1", None) == []
    buffer.begin_anew()
    buffer.look(3)
    assert buffer.state("run-1") is CLOSED and buffer.refused() == []


def test_what_was_dismissed_and_changes_is_looked_at_again(buffer: Buffer) -> None:
    buffer.follow(end_pattern=END)
    buffer.arrive("run-1/a.raw")
    refuse(buffer)
    buffer.look(2)
    with buffer.catalog.write() as session:
        refusals.dismiss(session, "run-1", None)
    buffer.path("run-1/link.raw").unlink()
    buffer.path("run-1/link.raw").mkdir()
    buffer.path("run-1/link.raw/x.raw").write_text("x")
    buffer.path("run-1/link.raw").chmod(0)
    with modes_hold():
        buffer.arrive("run-1/END")
        buffer.look(3)
        held = [item.path for item in buffer.refused()]
    buffer.path("run-1/link.raw").chmod(0o755)
    assert buffer.state("run-1") is OPEN and held == ["run-1/link.raw"]


def test_what_was_left_out_stays_so_however_much_comes_and_goes(
    buffer: Buffer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("catalog.refusals.MOST_SETTLED", 2)
    buffer.follow(end_pattern=END)
    buffer.arrive("run-1/a.raw")
    refuse(buffer)
    buffer.look(2)
    with buffer.catalog.write() as session:
        refusals.dismiss(session, "run-1", None)
    for number in range(5):
        refuse(buffer, f"run-2/{number}.raw")
        buffer.look()
        buffer.path(f"run-2/{number}.raw").unlink()
        buffer.look()
    buffer.arrive("run-1/END")
    buffer.look(3)
    assert buffer.state("run-1") is CLOSED


def test_a_rule_may_close_over_what_is_refused_after_a_while(buffer: Buffer) -> None:
    buffer.follow(end_pattern=END, refused_after_s=60.0)
    buffer.arrive("run-1/a.raw", "run-1/END")
    refuse(buffer)
    buffer.look(3)
    assert buffer.state("run-1") is OPEN
    clock.shift_clock(61)
    with clock_of_another_boot(buffer.catalog):
        buffer.look(3)
        assert buffer.state("run-1") is OPEN, "it isn't sure what time it is"
    buffer.look(3)
    assert buffer.state("run-1") is CLOSED
    assert any("1 thing seen and not taken" in line for line in told(buffer.catalog, "run-1"))
    assert "run-1/link.raw on raw isn't taken" in buffer.why("run-1")


def test_a_registered_file_that_is_gone_is_told_and_holds(buffer: Buffer) -> None:
    buffer.follow(end_pattern=END)
    buffer.arrive("run-1/a.raw", "run-1/b.raw", "run-2/a.raw", "run-2/b.raw")
    buffer.look(2)
    buffer.path("run-1/b.raw").unlink()
    buffer.arrive("run-1/END", "run-2/END")
    buffer.look(4)
    assert (buffer.state("run-1"), buffer.state("run-2")) == (OPEN, CLOSED)
    assert "run-1/b.raw on raw isn't taken by intake rule daq (VANISHED" in buffer.why("run-1")
    buffer.begin_anew()
    buffer.look(4)
    assert [item.path for item in buffer.refused()] == ["run-1/b.raw"]
    assert buffer.state("run-1") is OPEN
    buffer.arrive("run-1/b.raw")
    buffer.look(4)
    assert buffer.state("run-1") is CLOSED and buffer.refused() == []


def test_what_is_gone_stays_told_when_a_person_closes_the_dataset(buffer: Buffer) -> None:
    buffer.follow(end_pattern=END)
    buffer.arrive("run-1/a.raw", "run-1/b.raw")
    buffer.look(2)
    buffer.path("run-1/b.raw").rename(buffer.path("run-1/.aside"))
    buffer.arrive("run-1/END")
    buffer.look(4)
    ask(buffer.catalog, kind="dataset.close", datasetId="run-1")
    buffer.look(2)
    buffer.begin_anew()
    buffer.look(2)
    assert buffer.state("run-1") is CLOSED
    assert "run-1/b.raw on raw isn't taken" in buffer.why("run-1")
    buffer.path("run-1/.aside").rename(buffer.path("run-1/b.raw"))
    buffer.look(2)
    assert buffer.settled()["run-1/b.raw"] is Settlement.REGISTERED


@pytest.mark.parametrize("end", [{"end_pattern": END}, {"close_count": 4}, {"quiet_s": 0.1}])
def test_files_that_were_moved_are_not_there_twice(buffer: Buffer, end: dict[str, Any]) -> None:
    buffer.follow(**end)
    buffer.arrive("run-1/a.raw", "run-1/b.raw")
    buffer.watches["daq"].turn()
    buffer.watches["daq"].turn()
    buffer.work()
    for name in "ab":
        (buffer.path("run-1") / "sub").mkdir(exist_ok=True)
        buffer.path(f"run-1/{name}.raw").rename(buffer.path(f"run-1/sub/{name}.raw"))
    buffer.arrive("run-1/END")
    for _ in range(6):
        buffer.look()
        time.sleep(0.05)
    assert buffer.state("run-1") is OPEN
    assert {i.path: i.kind for i in buffer.refused()} == {
        "run-1/a.raw": RefusalKind.VANISHED, "run-1/b.raw": RefusalKind.VANISHED,
    }  # fmt: skip
    with buffer.catalog.write() as session:
        refusals.dismiss(session, "run-1", None)
    for _ in range(6):
        buffer.look()
        time.sleep(0.05)
    assert buffer.state("run-1") is CLOSED, "a person said so"


def test_other_rules_files_of_the_storage_are_not_missed(buffer: Buffer) -> None:
    buffer.follow("raw", end_pattern=END)
    buffer.follow("dat", pattern=r"(?P<run>run-\d+)/.*\.dat", end_pattern=END)
    buffer.arrive("run-1/a.raw", "run-1/b.dat", "run-1/END")
    buffer.look(4)
    assert buffer.state("run-1") is CLOSED and len(buffer.names("run-1")) == 2


def test_a_file_that_has_a_copy_elsewhere_may_go_from_the_buffer(
    buffer: Buffer, other: Buffer
) -> None:
    buffer.follow(end_pattern=END)
    buffer.arrive("run-1/a.raw", "run-1/b.raw")
    buffer.look(2)
    with buffer.catalog.write() as session:
        file_id = session.execute(
            sa.select(col(Replica.file_id)).where(col(Replica.path) == "run-1/b.raw")
        ).scalar_one()
        row = {"file_id": file_id, "storage_id": other.storage.id, "path": "b"}
        session.execute(sa.insert(Replica).values(state=ReplicaState.AVAILABLE, **row))
    buffer.path("run-1/b.raw").unlink()
    buffer.arrive("run-1/END")
    buffer.look(4)
    assert buffer.state("run-1") is CLOSED


# Two buffers with files of the same names.


def test_a_rule_can_put_the_storage_before_the_names(buffer: Buffer, other: Buffer) -> None:
    buffer.follow("one", end_pattern=END)
    other.follow("two", end_pattern=END, with_storage=True)
    for each in (buffer, other):
        each.arrive("run-1/slice.raw", "run-1/END", content=each.storage.name.encode())
    look(3, buffer, other)
    assert buffer.state("run-1") is CLOSED
    assert buffer.names("run-1") == ["raw2/run-1/slice.raw", "run-1/slice.raw"]
    assert buffer.errors() == []


# Senders of requests.


def entry(buffer: Buffer, name: str) -> dict[str, Any]:
    size = buffer.path(name).stat().st_size
    return {"storageId": buffer.storage.name, "path": name, "size": size}


def register(buffer: Buffer, *names: str) -> None:
    buffer.arrive(*names)
    for name in names:
        ask(buffer.catalog, kind="file.input", datasetId="run-1", files=[entry(buffer, name)])


def test_a_close_that_comes_before_the_last_file_waits_for_it(buffer: Buffer) -> None:
    ask(buffer.catalog, kind="dataset.input", name="run-1")
    register(buffer, "a", "b")
    answer = ask(buffer.catalog, kind="dataset.close", datasetId="run-1", fileCount=3)
    assert answer.state is RequestState.DONE and answer.reply is not None
    assert (answer.reply["waitsFor"], answer.reply["have"]) == (3, 2)
    buffer.close()
    assert buffer.state("run-1") is OPEN
    assert "announced 3 files" in buffer.why("run-1")
    register(buffer, "c")
    buffer.close()
    assert buffer.state("run-1") is CLOSED and buffer.names("run-1") == ["a", "b", "c"]
    assert found(buffer.catalog, "run-1")[0].ended_by is SourceEnd.COUNT


def test_a_close_with_the_right_count_closes_at_once(buffer: Buffer) -> None:
    ask(buffer.catalog, kind="dataset.input", name="run-1")
    register(buffer, "a")
    answer = ask(buffer.catalog, kind="dataset.close", datasetId="run-1", fileCount=1)
    assert answer.reply is not None and answer.reply["files"] == 1
    assert buffer.state("run-1") is CLOSED


def test_more_files_than_announced_are_told_and_close_nothing(buffer: Buffer) -> None:
    ask(buffer.catalog, kind="dataset.input", name="run-1")
    register(buffer, "a", "b")
    ask(buffer.catalog, kind="dataset.close", datasetId="run-1", fileCount=1)
    for _ in range(3):
        buffer.close()
    assert buffer.state("run-1") is OPEN
    lines = [line for line in told(buffer.catalog, "run-1") if "announced" in line]
    assert lines == ["anybody announced 1 file, and there are 2"]
    assert "announced 1 file, and there are 2" in buffer.why("run-1")
    ask(buffer.catalog, kind="dataset.close", datasetId="run-1", fileCount=2)
    buffer.close()
    assert buffer.state("run-1") is CLOSED, "the later word counts"


def test_files_that_do_not_come_in_the_time_given_are_told(buffer: Buffer) -> None:
    ask(buffer.catalog, kind="dataset.input", name="run-1")
    ask(buffer.catalog, kind="dataset.close", datasetId="run-1", fileCount=1, within="60s")
    buffer.close()
    assert not any("announced" in line for line in told(buffer.catalog, "run-1"))
    clock.shift_clock(61)
    buffer.close()
    assert any("in the time that it gave" in line for line in told(buffer.catalog, "run-1"))
    assert buffer.state("run-1") is OPEN
    register(buffer, "a")
    buffer.close()
    assert buffer.state("run-1") is CLOSED, "they may come later"


def test_a_sender_that_holds_ends_only_itself(buffer: Buffer) -> None:
    ask(buffer.catalog, kind="dataset.input", name="run-1", hold=True, sender="run control")
    buffer.follow(end_pattern=END)
    buffer.arrive("run-1/a.raw", "run-1/END")
    buffer.look(3)
    assert buffer.state("run-1") is OPEN
    assert "sender run control holds it" in buffer.why("run-1")
    close = {"kind": "dataset.close", "datasetId": "run-1", "own": True}
    ask(buffer.catalog, **close, sender="somebody else")
    assert buffer.state("run-1") is OPEN
    answer = ask(buffer.catalog, **close, sender="run control")
    assert buffer.state("run-1") is CLOSED
    assert answer.reply is not None and answer.reply["files"] == 1


def test_a_plain_close_ends_all(buffer: Buffer) -> None:
    buffer.follow(end_pattern=END)
    buffer.arrive("run-1/a.raw")
    buffer.look(2)
    ask(buffer.catalog, kind="dataset.close", datasetId="run-1")
    assert buffer.state("run-1") is CLOSED
    assert found(buffer.catalog, "run-1")[0].ended_by is SourceEnd.WORD


def test_a_close_that_a_rule_of_an_earlier_program_asked_for_waits_for_all(
    buffer: Buffer, other: Buffer
) -> None:
    buffer.follow("one", end_pattern=END)
    other.follow("two", end_pattern=END)
    buffer.arrive("run-1/a.raw")
    other.arrive("run-1/b.raw")
    look(2, buffer, other)
    ask(buffer.catalog, kind="dataset.close", key="intake:0123", datasetId="run-1")
    assert buffer.state("run-1") is OPEN


def test_requests_that_wait_are_done_before_their_dataset_is_closed(buffer: Buffer) -> None:
    buffer.follow(end_pattern=END)
    buffer.arrive("run-1/a.raw", "run-1/END", "x.dat")
    buffer.look(1)
    with buffer.catalog.write() as session:
        document = {"kind": "file.input", "key": "k", "datasetId": "run-1"}
        submit(session, [parse({**document, "files": [entry(buffer, "x.dat")]})])
    for watch in (buffer.watches["daq"],) * 3:
        watch.turn()
        buffer.close()
    assert buffer.state("run-1") is OPEN
    buffer.look()
    assert buffer.state("run-1") is CLOSED and "x.dat" in buffer.names("run-1")


# Races: with the obvious statement each of these loses something.


@pytest.fixture
def filled(catalog: Catalog, buffer: Buffer) -> int:
    """An OPEN dataset whose one source has ended."""
    buffer.follow(end_pattern=END)
    buffer.arrive("run-1/a.raw", "run-1/END")
    for _ in range(3):
        buffer.watches["daq"].turn()
        do_all(catalog)
    with catalog.read() as session:
        return datasets.by_name(session, "run-1").id


def obvious_close(session: Any, dataset_id: int) -> int:
    """A close that looks for open sources in the statement that changes the state."""
    is_open = sa.select(Source.id).where(  # type: ignore[call-overload]
        col(Source.dataset_id) == dataset_id, col(Source.ended_by).is_(None)
    )
    done = session.execute(
        sa.update(Dataset)
        .where(col(Dataset.id) == dataset_id, ~is_open.exists())
        .values(state=CLOSED)
    )
    return int(done.rowcount)


@pytest.mark.parametrize("is_ours", [False, True])
def test_a_source_that_is_being_added_is_not_overlooked(
    catalog: Catalog, filled: int, backend: str, is_ours: bool
) -> None:
    """The obvious close takes the dataset away from under it; ours waits, and finds it."""
    if backend != "postgresql":
        pytest.skip("writers of SQLite wait for each other in any case")
    closed: list[object] = []

    def close() -> None:
        try:
            with catalog.write() as session:
                if is_ours:
                    datasets.close(session, filled, by_sources=True)
                    closed.append(True)
                else:
                    closed.append(obvious_close(session, filled) == 1)
        except SourcesOpen:
            closed.append(False)

    thread = threading.Thread(target=close)
    with catalog.write() as session:
        if is_ours:
            sources.hold(session, filled, "late")
        else:
            session.execute(sa.insert(Source).values(dataset_id=filled, sender="late"))
        thread.start()
        if is_ours:
            until(lambda: waiting(catalog), "the close waits for it", 20)
        else:
            thread.join(20)
    thread.join(20)
    with catalog.read() as session:
        state = datasets.get(session, filled).state
        left = [info for info in sources.of_dataset(session, filled) if info.is_open]
    assert closed == [not is_ours]
    assert (state, len(left)) == ((OPEN, 1) if is_ours else (CLOSED, 1))


def waiting(catalog: Catalog) -> bool:
    """Whether a connection waits for another one's lock."""
    with catalog.read() as session:
        query = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return bool(session.execute(query).scalar())


def test_a_source_comes_too_late_for_what_is_being_closed(
    catalog: Catalog, filled: int, backend: str
) -> None:
    if backend != "postgresql":
        pytest.skip("writers of SQLite wait for each other in any case")
    ends_with: list[object] = []

    def join() -> None:
        try:
            with catalog.write() as session:
                sources.hold(session, filled, "late")
            ends_with.append(None)
        except StateConflict as error:
            ends_with.append(error.state)

    thread = threading.Thread(target=join)
    with catalog.write() as session:
        datasets.close(session, filled, by_sources=True)
        thread.start()
        until(lambda: waiting(catalog), "it waits for the close", 20)
    thread.join(20)
    assert ends_with == [CLOSED]
    assert len(found(catalog, "run-1")) == 1


def test_two_rules_that_make_one_dataset_are_both_its_sources(
    catalog: Catalog, buffer: Buffer, other: Buffer
) -> None:
    """In threads: whoever comes second finds it there, and nobody is left out."""
    buffer.follow("one", end_pattern=END)
    other.follow("two", end_pattern=END)
    for number in range(1, 6):
        for each in (buffer, other):
            each.arrive(f"run-{number}/{each.storage.name}.raw")
    threads = [
        threading.Thread(target=each.watches[name].turn)
        for each, name in ((buffer, "one"), (other, "two"))
        for _ in range(2)
    ]
    for _ in range(2):
        for thread in threads[:2]:
            thread.start()
        for thread in threads[:2]:
            thread.join()
        threads = threads[2:]
    do_all(catalog)
    for number in range(1, 6):
        assert len(found(catalog, f"run-{number}")) == 2


def test_what_can_not_be_closed_is_told_and_the_rest_is_closed(
    catalog: Catalog, buffer: Buffer, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer.follow(end_pattern=END)
    for number in "12":
        buffer.arrive(f"run-{number}/a.raw", f"run-{number}/END")
    real = closing.close

    def close(session: Any, item: closing.Ended) -> bool:
        if item.name == "run-1":
            raise ValueError("no way")
        return real(session, item)

    monkeypatch.setattr(closing, "close", close)
    buffer.look(4)
    assert (buffer.state("run-1"), buffer.state("run-2")) == (OPEN, CLOSED)
    assert "it can't be closed" in buffer.why("run-1")
    monkeypatch.undo()
    buffer.look()
    assert buffer.state("run-1") is CLOSED and "it can't be closed" not in buffer.why("run-1")


def test_a_dataset_is_closed_once_however_many_try(catalog: Catalog, filled: int) -> None:
    with catalog.read() as session:
        (item,) = closing.ended(session)
    with catalog.write() as session:
        assert closing.close(session, item)
    with catalog.write() as session:
        assert closing.close(session, item), "it is"
        assert closing.ended(session) == []
    assert len([line for line in told(catalog, "run-1") if "all who fill it" in line]) == 1


def test_a_member_that_is_being_added_is_counted(
    catalog: Catalog, filled: int, backend: str
) -> None:
    if backend != "postgresql":
        pytest.skip("writers of SQLite wait for each other in any case")
    thread = threading.Thread(target=lambda: close_now(catalog, filled))
    with catalog.write() as session:
        (more,) = files.register(
            session, 1, [NewFileRow("raw", "more", "more", 4, "md5:" + "0" * 32)]
        )
        datasets.attach(session, filled, [Member(more, "more")])
        thread.start()
        until(lambda: waiting(catalog), "the close waits for it", 20)
    thread.join(20)
    with catalog.read() as session:
        info = datasets.get(session, filled)
    assert (info.state, info.file_count) == (CLOSED, 2)


def close_now(catalog: Catalog, dataset_id: int) -> None:
    with catalog.write() as session:
        datasets.close(session, dataset_id, by_sources=True)
