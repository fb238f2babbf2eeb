"""What stays when a dataset of the intake is deleted, since others have it, makes it never anew."""

import os
from pathlib import Path

import pytest

from catalog import causes, clock, datasets, deletion, detached, files, stamps
from catalog.datasets import Member
from catalog.db import Catalog
from catalog.refs import Originals, RefusalKind, Untaken
from catalog.requests import submit_requests
from catalog.states import DatasetState
from catalog.storages import StorageInfo
from tests.unit.watched import END, Buffer

CLOSED = DatasetState.CLOSED


@pytest.fixture
def buffer(catalog: Catalog, storage: StorageInfo) -> Buffer:
    return Buffer(catalog, storage)


def delete(buffer: Buffer, name: str, by: Originals | None = None) -> None:
    with buffer.catalog.write() as session:
        info = datasets.by_name(session, name)
        deletion.mark(session, info.id, "a test", by=by)
    deletion.remove(buffer.catalog, info.id)


def put_into(buffer: Buffer, dataset: str, path: str) -> None:
    """A person's dataset of one file."""
    file = {"storageId": "raw", "path": path, "size": len(path)}
    submit_requests(
        buffer.catalog,
        [
            {"kind": "dataset.input", "key": f"make {dataset}", "name": dataset},
            {"kind": "file.input", "key": dataset, "datasetId": dataset, "files": [file]},
        ],
    )
    buffer.work()


def test_what_another_rules_dataset_holds_makes_a_deleted_one_never_again(buffer: Buffer) -> None:
    buffer.follow("all", dataset="all-{run}", end_pattern=END)
    buffer.follow("cal", dataset="cal-{run}", end_pattern=END)
    buffer.arrive("run-1/a.raw", "run-1/b.raw", "run-1/END")
    buffer.look(4)
    assert buffer.state("cal-run-1") is buffer.state("all-run-1") is CLOSED
    delete(buffer, "cal-run-1")
    for _ in range(2):
        buffer.look(4)
        assert buffer.state("cal-run-1") is DatasetState.DELETED
        buffer.begin_anew()
    assert buffer.refused("cal") == [] and buffer.state("all-run-1") is CLOSED
    with buffer.catalog.read() as session:
        told = "\n".join(cause.fact for cause in causes.why_name(session, "cal-run-1"))
    assert "2 files of it stayed for other datasets" in told
    os.utime(buffer.path("run-1/b.raw"))
    buffer.look(4)
    assert buffer.names("cal-run-1") == ["run-1/b.raw"], "that one was written anew"
    told = {(i.path, i.kind) for i in buffer.refused("cal")}
    assert told == {("run-1/a.raw", RefusalKind.DETACHED)}
    delete(buffer, "cal-run-1")
    with buffer.catalog.write() as session:
        assert detached.rescan(session, prefix="run-1/a") == 1
    buffer.look(4)
    assert (buffer.state("cal-run-1"), buffer.names("cal-run-1")) == (CLOSED, ["run-1/a.raw"])


def test_what_a_persons_dataset_holds_makes_one_whose_lifetime_is_over_never_again(
    buffer: Buffer,
) -> None:
    buffer.follow(end_pattern=END, lifetime_s=60.0, unmatched=Untaken.EXPIRE)
    buffer.arrive("run-1/a.raw", "run-1/b.raw", "run-1/END")
    buffer.look(4)
    with buffer.catalog.write() as session:
        known = files.find(session, "raw:run-1/a.raw").id
        mine = datasets.create(session, "mine")
        datasets.attach(session, mine, [Member(known, "a")])
        datasets.close(session, mine)
    clock.shift_clock(70.0)
    with buffer.catalog.write() as session:
        assert deletion.expire(session) == ["run-1"]
        run = datasets.by_name(session, "run-1").id
    deletion.remove(buffer.catalog, run)
    assert not buffer.path("run-1/b.raw").exists() and buffer.path("run-1/a.raw").exists()
    buffer.look(4)
    with buffer.catalog.read() as session:
        assert datasets.get(session, run).name == "run-1", "no other one has taken its name"
    delete(buffer, "mine", Originals.BY_WORD)
    assert not buffer.path("run-1/a.raw").exists()
    buffer.arrive("run-1/a.raw")
    buffer.look(4)
    assert buffer.names("run-1") == ["run-1/a.raw"], "it came once more"


def test_what_was_detached_and_is_a_persons_now_makes_no_dataset_either(buffer: Buffer) -> None:
    buffer.follow(end_pattern=END)
    buffer.arrive("run-1/a.raw", "run-1/END")
    buffer.look(4)
    delete(buffer, "run-1")
    buffer.look(2)
    put_into(buffer, "mine", "run-1/a.raw")
    buffer.look(4)
    assert buffer.state("run-1") is DatasetState.DELETED and buffer.names("mine") != []
    delete(buffer, "mine")
    buffer.look(4)
    assert buffer.state("run-1") is DatasetState.DELETED


def test_a_person_may_make_a_deleted_dataset_again_of_what_others_hold(buffer: Buffer) -> None:
    buffer.follow("all", dataset="all-{run}", end_pattern=END)
    buffer.follow("cal", dataset="cal-{run}", end_pattern=END)
    buffer.arrive("run-1/a.raw", "run-1/b.raw", "run-1/END")
    buffer.look(4)
    delete(buffer, "cal-run-1")
    put_into(buffer, "cal-run-1", "run-1/a.raw")
    buffer.look(4)
    assert buffer.names("cal-run-1") == ["run-1/a.raw"]
    told = {(i.path, i.kind) for i in buffer.refused("cal")}
    assert told == {("run-1/b.raw", RefusalKind.DETACHED)}


def test_what_a_storage_that_is_away_had_is_left_as_it_was(buffer: Buffer) -> None:
    buffer.follow("all", dataset="all-{run}", end_pattern=END)
    buffer.follow("cal", dataset="cal-{run}", end_pattern=END)
    buffer.arrive("run-1/a.raw", "run-1/END")
    buffer.look(4)
    place = Path(buffer.storage.url)
    place.rename(place.with_name("away"))
    delete(buffer, "cal-run-1")
    place.with_name("away").rename(place)
    buffer.look(4)
    assert buffer.state("cal-run-1") is DatasetState.DELETED


def test_times_of_a_file_are_compared_in_the_coarser_of_their_resolutions() -> None:
    assert stamps.same_time(5_000_000, 5_123_000)
    assert stamps.same_time(5_123_000, 5_000_000)
    assert not stamps.same_time(5_123_000, 5_124_000)
    assert not stamps.same_time(5_000_000, 6_000_000)
