"""Watching: what belongs to which rule, what isn't taken and is told, and when datasets close."""

import os
import socket
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import col

from catalog import (
    causes,
    datasets,
    deletion,
    detached,
    grace,
    intakelooks,
    intakerules,
    refusals,
    requests,
    storages,
    verification,
)
from catalog.db import Catalog
from catalog.models import Replica, Request, StorageKind, StorageRole
from catalog.names import shown
from catalog.refs import RefusalKind, Settlement, Untaken
from catalog.requests import submit_requests
from catalog.states import DatasetState, RequestState
from catalog.storages import StorageInfo
from flows.intake import asking, rounds, sightings
from flows.intake import watch as watch_module
from flows.intake.roles import Errand
from flows.intake.sightings import Sighting, Take
from tests.privileges import modes_hold
from tests.unit.watched import END, Buffer

CLOSED, OPEN = DatasetState.CLOSED, DatasetState.OPEN
ABSURD_S = 300_000_000_000
"""Of the year 11476, in seconds since 1970."""


@pytest.fixture
def buffer(catalog: Catalog, storage: StorageInfo) -> Buffer:
    return Buffer(catalog, storage)


def count_requests(buffer: Buffer) -> int:
    with buffer.catalog.read() as session:
        return len(requests.list_requests(session, limit=1000))


# Whose files are which.


def test_each_of_two_rules_gets_all_of_its_files(buffer: Buffer) -> None:
    """What a storage holds already isn't what a dataset holds already."""
    buffer.follow("all", dataset="all-{run}")
    buffer.arrive("run-1/a.raw", "run-1/b.raw")
    buffer.look()
    buffer.follow("cal", dataset="cal-{run}")
    buffer.arrive("run-1/c.raw")
    buffer.look(2)
    every = ["run-1/a.raw", "run-1/b.raw", "run-1/c.raw"]
    assert buffer.names("all-run-1") == every
    assert buffer.names("cal-run-1") == every
    count = count_requests(buffer)
    buffer.look(2)
    buffer.begin_anew()
    buffer.look(2)
    assert count_requests(buffer) == count, "what is there is not asked for again"


def test_a_file_that_somebody_put_into_another_dataset_is_taken_for_its_own(
    buffer: Buffer,
) -> None:
    buffer.arrive("run-1/a.raw")
    file = {"storageId": "raw", "path": "run-1/a.raw", "size": 11}
    submit_requests(
        buffer.catalog,
        [
            {"kind": "dataset.input", "key": "1", "name": "sample"},
            {"kind": "file.input", "key": "2", "datasetId": "sample", "files": [file]},
        ],
    )
    buffer.work()
    buffer.follow()
    buffer.look()
    assert buffer.names("sample") == buffer.names("run-1") == ["run-1/a.raw"]


def test_a_file_that_somebody_put_into_a_dataset_of_the_rule_is_taken_for_its_own(
    buffer: Buffer,
) -> None:
    buffer.follow()
    buffer.arrive("run-2/b.raw")
    buffer.look()
    buffer.arrive("run-1/a.raw")
    file = {"storageId": "raw", "path": "run-1/a.raw", "size": 11}
    submit_requests(
        buffer.catalog,
        [{"kind": "file.input", "key": "mine", "datasetId": "run-2", "files": [file]}],
    )
    buffer.work()
    buffer.look(2)
    assert buffer.names("run-1") == ["run-1/a.raw"]
    assert buffer.names("run-2") == ["run-1/a.raw", "run-2/b.raw"]


def test_markers_are_no_files_of_any_rule_of_their_storage(buffer: Buffer) -> None:
    buffer.follow("runs", pattern=r"(?P<run>run-\d+)/.*", end_pattern=END)
    buffer.follow("all", pattern=r"(?P<run>run-\d+)/.*", dataset="all-{run}")
    buffer.arrive("run-1/a.raw", "run-1/END")
    buffer.look(4)
    assert buffer.state("run-1") is CLOSED
    assert buffer.names("run-1") == buffer.names("all-run-1") == ["run-1/a.raw"]


@pytest.mark.parametrize(
    "hidden", ["run-1/.~tmp~/a.raw", ".staging/run-1/a.raw", "run-1/.a.raw", ".run-1/.b/c.raw"]
)
def test_nothing_is_taken_that_has_a_hidden_part(buffer: Buffer, hidden: str) -> None:
    buffer.follow(pattern=r"(.*/)?(?P<run>run-\d+)/.*\.raw", end_pattern=END)
    buffer.arrive(hidden, "run-1/whole.raw", "run-1/END", "sub/.spdf-storage/run-1/x.raw")
    buffer.look(4)
    assert buffer.names("run-1") == ["run-1/whole.raw"]
    assert buffer.state("run-1") is CLOSED
    assert buffer.refused() == [], "it is not whole yet, which needs no word"


def test_what_is_hidden_is_taken_once_it_has_its_name(buffer: Buffer) -> None:
    buffer.follow()
    buffer.arrive("run-1/.~tmp~/a.raw", "run-1/b.raw")
    buffer.look()
    buffer.path("run-1/.~tmp~/a.raw").rename(buffer.path("run-1/a.raw"))
    buffer.look()
    assert buffer.names("run-1") == ["run-1/a.raw", "run-1/b.raw"]


# What isn't taken.


def test_what_is_left_out_is_told_and_keeps_its_dataset_open(buffer: Buffer) -> None:
    buffer.follow(pattern=r"(?P<run>run-\d+)/.*", close_count=1)
    buffer.arrive("run-1/good.raw", b"run-1/lat\xe4.raw", "run-1/new\nline.raw", "other/x")
    buffer.path("run-1/link.raw").symlink_to(buffer.path("other/x"))
    buffer.path("run-1/linked").symlink_to(buffer.path("other"))
    os.mkfifo(buffer.path("run-1/pipe"))
    buffer.look(3)
    assert buffer.names("run-1") == ["run-1/good.raw"]
    assert buffer.state("run-1") is OPEN
    assert [(item.path, item.kind, item.dataset) for item in buffer.refused()] == [
        (r"run-1/lat\xe4.raw", RefusalKind.NAME, "run-1"),
        ("run-1/link.raw", RefusalKind.LINK, "run-1"),
        ("run-1/linked", RefusalKind.LINK, "run-1"),
        (r"run-1/new\nline.raw", RefusalKind.NAME, "run-1"),
        ("run-1/pipe", RefusalKind.LINK, "run-1"),
    ]
    told = buffer.why("run-1")
    assert "run-1/link.raw on raw isn't taken by intake rule daq (LINK, since " in told
    assert "it is a symbolic link" in told and "it is a pipe" in told
    assert r"run-1/lat\xe4.raw can't be used: it holds control or invalid" in told
    assert "rename it" in told
    assert "`spdf dataset close run-1` closes it as it is" in told


def test_a_dataset_closes_by_itself_once_what_was_left_out_is_gone(buffer: Buffer) -> None:
    buffer.follow(close_count=1)
    buffer.arrive("run-1/good.raw", b"run-1/lat\xe4.raw")
    buffer.path("run-1/link.raw").symlink_to(buffer.path("run-1/good.raw"))
    buffer.look(3)
    assert buffer.state("run-1") is OPEN
    buffer.begin_anew()
    buffer.path("run-1/link.raw").unlink()
    buffer.path(b"run-1/lat\xe4.raw").rename(buffer.path("run-1/lat.raw"))
    buffer.look(3)
    assert buffer.state("run-1") is CLOSED
    assert buffer.names("run-1") == ["run-1/good.raw", "run-1/lat.raw"]
    assert buffer.refused() == []
    gone = {"run-1/link.raw": Settlement.GONE, r"run-1/lat\xe4.raw": Settlement.GONE}
    assert buffer.settled() == gone


def test_a_closed_dataset_tells_what_was_left_out_of_it(buffer: Buffer) -> None:
    buffer.follow()
    buffer.arrive("run-1/good.raw", b"run-1/lat\xe4.raw")
    buffer.look(2)
    with buffer.catalog.write() as session:
        datasets.close(session, datasets.by_name(session, "run-1").id)
    buffer.look()
    assert r"run-1/lat\xe4.raw on raw isn't taken" in buffer.why("run-1")


def test_a_date_that_is_none_is_told_and_all_else_goes_on(
    buffer: Buffer, catalog: Catalog, tmp_path: Path
) -> None:
    memory = Path("/dev/shm") / f"spdf-{tmp_path.name}-{os.getpid()}"
    with catalog.write() as session:
        buffer.storage = storages.add(
            session, "memory", StorageKind.LOCAL, StorageRole.INPUT, str(memory)
        )
    try:
        buffer.follow(close_count=2)
        buffer.arrive("run-1/a.raw", "run-1/b.raw", "run-2/bad.raw", "run-2/c.raw", "run-2/d.raw")
        os.utime(buffer.path("run-2/bad.raw"), (ABSURD_S, ABSURD_S))
        os.utime(buffer.path("run-1/b.raw"), (10_500_000_000, 10_500_000_000))
        assert buffer.path("run-2/bad.raw").stat().st_mtime == ABSURD_S
        buffer.look(3)
        assert buffer.state("run-1") is CLOSED, "a date in 2302 is a date"
        assert buffer.state("run-2") is OPEN
        (bad,) = buffer.refused()
        assert (bad.path, bad.kind) == ("run-2/bad.raw", RefusalKind.DATE)
        os.utime(buffer.path("run-2/bad.raw"))
        buffer.look(3)
        assert buffer.state("run-2") is CLOSED and len(buffer.names("run-2")) == 3
        assert buffer.settled() == {"run-2/bad.raw": Settlement.REGISTERED}
    finally:
        for path in sorted(memory.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        memory.rmdir()


def test_a_folder_that_can_not_be_read_is_named_and_the_rest_goes_on(buffer: Buffer) -> None:
    buffer.follow(end_pattern=END)
    buffer.arrive("lost+found/x", "other/x", "run-1/a.raw", "run-1/END", "run-2/a.raw")
    buffer.arrive("run-2/END", "run-2/inner/b.raw")
    for folder in ("lost+found", "other", "run-2/inner"):
        buffer.path(folder).chmod(0)
    with modes_hold():
        for watch in (buffer.watches["daq"],) * 4:
            watch.turn()
            buffer.work()
    for folder in ("lost+found", "other", "run-2/inner"):
        buffer.path(folder).chmod(0o755)
    assert buffer.state("run-1") is CLOSED
    assert buffer.state("run-2") is OPEN, "files of it may lie there"
    found = {item.path: (item.kind, item.dataset) for item in buffer.refused()}
    assert found == {
        "lost+found": (RefusalKind.UNREADABLE, None),
        "other": (RefusalKind.UNREADABLE, None),
        "run-2/inner": (RefusalKind.UNREADABLE, "run-2"),
    }
    buffer.look(3)
    assert buffer.state("run-2") is CLOSED
    assert buffer.names("run-2") == ["run-2/a.raw", "run-2/inner/b.raw"]


@pytest.mark.parametrize("ends", [{"end_pattern": END}, {"close_count": 1}])
def test_what_one_rule_refuses_keeps_another_from_closing_their_dataset(
    buffer: Buffer, ends: dict[str, Any]
) -> None:
    buffer.follow("hits", pattern=r"(?P<run>run-\d+)/.*\.hits")
    buffer.follow("raw", **ends)
    buffer.path("run-1").mkdir()
    buffer.path("run-1/a.hits").symlink_to("nowhere")
    buffer.look()
    buffer.arrive("run-1/a.raw", "run-2/a.raw", "run-1/END", "run-2/END")
    buffer.look(4)
    assert (buffer.state("run-1"), buffer.state("run-2")) == (OPEN, CLOSED)
    assert "a.hits" in buffer.why("run-1")
    buffer.path("run-1/a.hits").unlink()
    buffer.arrive("run-1/a.hits")
    buffer.look(4)
    assert buffer.state("run-1") is CLOSED
    assert buffer.names("run-1") == ["run-1/a.hits", "run-1/a.raw"]


def test_a_run_whose_files_another_rule_refuses_is_not_an_empty_one(buffer: Buffer) -> None:
    buffer.follow("hits", pattern=r"(?P<run>run-\d+)/.*\.hits")
    buffer.follow("raw", end_pattern=END, close_empty=True)
    buffer.arrive("run-1/END")
    buffer.path("run-1/a.hits").symlink_to("nowhere")
    buffer.look(4)
    with buffer.catalog.read() as session:
        assert datasets.list_datasets(session) == []
    buffer.path("run-1/a.hits").unlink()
    buffer.look(4)
    assert buffer.state("run-1") is CLOSED


ANYWHERE = r"(?:\w+/)?(?P<run>run-\d+)_\d+\.raw"
ANY_END = r"(?P<run>run-\d+)\.end"


@pytest.mark.parametrize("whose", ["its own", "another rule's"])
def test_a_folder_that_can_not_be_read_holds_all_whose_files_may_lie_there(
    buffer: Buffer, whose: str
) -> None:
    if whose == "another rule's":
        buffer.follow("daq", pattern=r"(?P<run>run-\d+)_\d+\.raw", end_pattern=ANY_END)
        buffer.follow("more", pattern=ANYWHERE)
    else:
        buffer.follow(pattern=ANYWHERE, end_pattern=ANY_END, close_empty=True)
    buffer.follow("other", pattern=r"(?P<n>cal-\d+)/.*\.raw", dataset="{n}", close_count=1)
    buffer.arrive("run-1_1.raw", "n2/run-1_2.raw", "run-1.end", "run-2.end", "n2/run-2_1.raw")
    buffer.arrive("cal-1/a.raw")
    buffer.path("n2").chmod(0)
    with modes_hold():
        buffer.look(4)
        buffer.begin_anew()
        buffer.look(4)
    buffer.path("n2").chmod(0o755)
    assert buffer.state("run-1") is OPEN
    with buffer.catalog.read() as session:
        assert {i.name for i in datasets.list_datasets(session)} == {"run-1", "cal-1"}
    assert buffer.state("cal-1") is CLOSED, "no file of it can lie there"
    assert "n2 on " in buffer.why("run-1") and "UNREADABLE" in buffer.why("run-1")
    assert "n2" not in buffer.why("cal-1")
    buffer.look(6)
    assert buffer.state("run-1") is CLOSED
    assert buffer.names("run-1") == ["n2/run-1_2.raw", "run-1_1.raw"]


def test_the_folder_that_may_hold_files_is_told_beyond_many_that_can_not(
    buffer: Buffer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sightings, "_FOLDERS", 0)
    buffer.follow(pattern=ANYWHERE, close_count=1)
    buffer.arrive("run-1_1.raw", "a/b/run-1_2.raw", "n2/run-1_3.raw")
    for folder in ("a/b", "n2"):
        buffer.path(folder).chmod(0)
    with modes_hold():
        buffer.look(4)
    for folder in ("a/b", "n2"):
        buffer.path(folder).chmod(0o755)
    assert [item.path for item in buffer.refused()] == ["n2"]
    assert buffer.state("run-1") is OPEN


def test_a_link_to_a_folder_is_told_for_the_dataset_that_it_names(buffer: Buffer) -> None:
    buffer.follow(end_pattern=END)
    buffer.follow("flat", pattern=r"(.*/)?(?P<run>run-\d+)/f.*\.raw", dataset="flat-{run}")
    buffer.arrive("run-1/f.raw", "run-1/END", "run-2/f.raw", "run-2/END", "else/f.raw")
    buffer.path("latest").symlink_to("run-1")
    buffer.path("run-2/more").symlink_to(buffer.path("else"))
    buffer.path("mirror").symlink_to(buffer.path("."))
    buffer.look(4)
    assert (buffer.state("run-1"), buffer.state("run-2")) == (CLOSED, OPEN)
    found = [(item.path, item.dataset) for item in buffer.refused()]
    assert found == [("run-2/more", "run-2")], "`latest` holds nothing that this rule would take"
    assert [(i.path, i.dataset) for i in buffer.refused("flat")] == [
        ("latest", None), ("mirror", None), ("run-2/more", None),
    ]  # fmt: skip


def test_what_is_told_is_bounded_and_all_is_counted(
    buffer: Buffer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "MOST", 3)
    watch = buffer.follow()
    buffer.arrive("run-1/a.raw")
    for number in range(5):
        buffer.path(f"run-1/{number}.raw").symlink_to("a.raw")
    buffer.look(2)
    assert len(buffer.refused()) == 3
    with buffer.catalog.read() as session:
        look = intakelooks.all_looks(session)[watch.rule.id]
    assert (look.files, look.refused) == (1, 5)


def test_what_is_over_is_kept_as_far_as_it_is_new(
    buffer: Buffer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "MOST_SETTLED", 2)
    buffer.follow()
    for number in range(5):
        buffer.arrive("run-1/a.raw")
        buffer.path(f"run-1/{number}.raw").symlink_to("a.raw")
        buffer.look()
        buffer.path(f"run-1/{number}.raw").unlink()
        buffer.look()
    assert list(buffer.settled()) == ["run-1/3.raw", "run-1/4.raw"]


def test_what_a_removed_rule_did_not_take_is_told_no_longer(buffer: Buffer) -> None:
    buffer.follow()
    buffer.arrive("run-1/a.raw")
    buffer.path("run-1/link.raw").symlink_to("a.raw")
    buffer.look()
    assert "link.raw" in buffer.why("run-1")
    with buffer.catalog.write() as session:
        intakerules.remove(session, "daq")
    assert "link.raw" not in buffer.why("run-1")
    assert buffer.settled() == {"run-1/link.raw": Settlement.UNFOLLOWED}


def test_a_request_that_was_refused_is_told_until_the_file_is_registered(buffer: Buffer) -> None:
    watch = buffer.follow(close_count=1)
    buffer.arrive("run-1/a.raw", "run-1/b.raw")
    watch.turn()
    buffer.arrive("run-1/b.raw", content=b"longer than it was asked for")
    buffer.work()
    buffer.arrive("run-1/b.raw")
    os.utime(buffer.path("run-1/b.raw"), ns=(0, watch._asked["run-1/b.raw"].state[1] * 1000))
    buffer.look(2)
    (refused,) = buffer.refused()
    assert refused.kind is RefusalKind.REFUSED and "was answered with ERROR" in refused.reason
    assert buffer.state("run-1") is OPEN
    with buffer.catalog.write() as session:
        for info in requests.list_requests(session):
            if info.state == "ERROR":
                requests.queue.retry(session, info.id)
    buffer.look(3)
    assert buffer.refused() == [] and buffer.state("run-1") is CLOSED
    assert buffer.settled() == {"run-1/b.raw": Settlement.REGISTERED}


@pytest.mark.parametrize("wrong", [RuntimeError("a defect"), ValueError("odd")])
def test_a_file_that_can_not_be_asked_for_is_told_and_the_others_are_taken(
    buffer: Buffer, monkeypatch: pytest.MonkeyPatch, wrong: Exception
) -> None:
    parse = asking.parse

    def odd(document: Any, where: str = "the request") -> Any:
        if "odd" in str(document):
            raise wrong
        return parse(document, where)

    monkeypatch.setattr(asking, "parse", odd)
    buffer.follow(close_count=1)
    buffer.arrive(*(f"run-1/{number}.raw" for number in range(5)), "run-1/odd.raw", "run-2/a.raw")
    buffer.look(3)
    assert len(buffer.names("run-1")) == 5
    assert buffer.state("run-1") is OPEN and buffer.state("run-2") is CLOSED
    (refused,) = buffer.refused()
    assert refused.path == "run-1/odd.raw" and str(wrong) in refused.reason


# Written to after it was registered.


def test_a_file_that_grew_after_it_was_registered_keeps_its_dataset_open(buffer: Buffer) -> None:
    buffer.follow(end_pattern=END)
    buffer.arrive("run-1/slow.raw", content=b"part1\n")
    buffer.look(2)
    buffer.arrive("run-1/slow.raw", content=b"part1\npart2\n")
    buffer.arrive("run-1/END")
    buffer.look(4)
    assert buffer.state("run-1") is OPEN
    (changed,) = buffer.refused()
    assert (changed.path, changed.kind) == ("run-1/slow.raw", RefusalKind.CHANGED)
    assert "is registered with 6 bytes" in buffer.why("run-1")
    buffer.begin_anew()
    buffer.look(3)
    assert buffer.state("run-1") is OPEN and len(buffer.refused()) == 1, "after a restart, too"


def test_a_file_that_was_written_over_in_its_length_keeps_its_dataset_open(buffer: Buffer) -> None:
    buffer.follow(end_pattern=END)
    buffer.arrive("run-1/a.raw", content=b"12345")
    buffer.look(2)
    buffer.arrive("run-1/a.raw", content=b"54321")
    os.utime(buffer.path("run-1/a.raw"), (1, 1))
    buffer.arrive("run-1/END")
    buffer.look(4)
    assert buffer.state("run-1") is OPEN
    buffer.begin_anew()
    buffer.look(4)
    assert buffer.state("run-1") is OPEN
    assert [item.kind for item in buffer.refused()] == [RefusalKind.CHANGED]


@pytest.mark.parametrize("begun", [b"", b"54", b"5432100"])
def test_a_file_that_is_written_over_in_pieces_keeps_its_dataset_open(
    buffer: Buffer, begun: bytes
) -> None:
    """Looks meet it half-way, where it is of no size for long enough to be asked for."""
    watch = buffer.follow(end_pattern=END)
    buffer.arrive("run-1/a.raw", content=b"12345")
    buffer.look(2)
    watch._stable_s = 3600.0
    buffer.arrive("run-1/a.raw", content=begun)
    buffer.look(2)
    watch._stable_s = 0.0
    buffer.arrive("run-1/a.raw", content=b"54321")
    os.utime(buffer.path("run-1/a.raw"), (1, 1))
    buffer.arrive("run-1/END")
    buffer.look(4)
    assert buffer.state("run-1") is OPEN
    assert [item.kind for item in buffer.refused()] == [RefusalKind.CHANGED]


def test_a_file_written_over_while_nobody_watched_keeps_its_dataset_open(buffer: Buffer) -> None:
    """In its length, by an older file: only its stamp tells."""
    buffer.follow(end_pattern=END)
    buffer.arrive("run-1/a.raw", "run-1/b.raw")
    buffer.look(2)
    buffer.arrive("run-1/part", content=b"RUN-1/A.RAW")
    os.utime(buffer.path("run-1/part"), (1_000_000_000.5, 1_000_000_000.5))
    buffer.path("run-1/part").rename(buffer.path("run-1/a.raw"))
    buffer.arrive("run-1/END")
    buffer.begin_anew()
    buffer.look(4)
    assert buffer.state("run-1") is OPEN
    (changed,) = buffer.refused()
    assert (changed.path, changed.kind) == ("run-1/a.raw", RefusalKind.CHANGED)


def test_a_file_touched_while_nobody_watched_is_read_once_more(buffer: Buffer) -> None:
    buffer.follow(end_pattern=END)
    buffer.arrive("run-1/a.raw")
    buffer.look(2)
    os.utime(buffer.path("run-1/a.raw"), (1, 1))
    buffer.arrive("run-1/END")
    buffer.begin_anew()
    buffer.look(6)
    assert buffer.state("run-1") is CLOSED and buffer.refused() == []
    with buffer.catalog.read() as session:
        assert session.scalars(sa.select(col(Replica.mtime_us))).all() == [1_000_000]


def test_a_file_of_a_time_that_was_read_before_is_told(buffer: Buffer) -> None:
    """It was asked for then, and an answer to that says nothing of these bytes."""
    buffer.follow(end_pattern=END)
    buffer.arrive("run-1/a.raw", content=b"12345")
    os.utime(buffer.path("run-1/a.raw"), (1, 1))
    buffer.look(2)
    os.utime(buffer.path("run-1/a.raw"), (2, 2))
    buffer.look(3)
    buffer.arrive("run-1/a.raw", content=b"54321")
    os.utime(buffer.path("run-1/a.raw"), (1, 1))
    buffer.arrive("run-1/END")
    buffer.begin_anew()
    buffer.look(4)
    assert buffer.state("run-1") is OPEN
    assert [item.kind for item in buffer.refused()] == [RefusalKind.CHANGED]


def test_a_file_that_was_only_touched_is_still_the_same(buffer: Buffer) -> None:
    buffer.follow(end_pattern=END)
    buffer.arrive("run-1/a.raw")
    buffer.look(2)
    os.utime(buffer.path("run-1/a.raw"), (1, 1))
    buffer.arrive("run-1/END")
    buffer.look(6)
    assert buffer.state("run-1") is CLOSED and buffer.refused() == []


def test_what_was_refused_as_changed_may_be_asked_for_again(
    buffer: Buffer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "_NOTE_S", 0.0)
    buffer.follow(end_pattern=END)
    buffer.arrive("run-1/a.raw", content=b"12345")
    buffer.look(2)
    buffer.arrive("run-1/a.raw", content=b"54321")
    os.utime(buffer.path("run-1/a.raw"), (1, 1))
    buffer.arrive("run-1/END")
    buffer.look(4)
    assert buffer.state("run-1") is OPEN
    buffer.arrive("run-1/a.raw", content=b"12345")
    os.utime(buffer.path("run-1/a.raw"), (1, 1))
    with buffer.catalog.write() as session:
        requests.queue.retry(session, buffer.errors()[0].id)
    buffer.look(4)
    assert buffer.state("run-1") is CLOSED and buffer.refused() == []


def test_a_file_that_changed_after_the_close_is_told(buffer: Buffer) -> None:
    buffer.follow(close_count=1)
    buffer.arrive("run-1/a.raw", content=b"123")
    buffer.look(3)
    assert buffer.state("run-1") is CLOSED
    buffer.arrive("run-1/a.raw", content=b"12345")
    buffer.look()
    (changed,) = buffer.refused()
    assert changed.kind is RefusalKind.CHANGED
    assert "5 bytes now, and 3 where it was registered" in buffer.why("run-1")


@pytest.mark.parametrize("mtime_s", [1.5, 10_413_792_000.5])
def test_a_change_of_the_same_size_after_the_close_is_told_until_it_was_read(
    buffer: Buffer, mtime_s: float
) -> None:
    """Before 2000 or in 2300: another time is another time."""
    buffer.follow(close_count=2)
    buffer.arrive("run-1/a.raw", content=b"123")
    buffer.arrive("run-1/b.raw", content=b"123")
    buffer.look(3)
    assert buffer.state("run-1") is CLOSED
    for name, content in {"run-1/a.raw": b"123", "run-1/b.raw": b"321"}.items():
        buffer.arrive(name, content=content)
        os.utime(buffer.path(name), (mtime_s, mtime_s))
    buffer.begin_anew()
    buffer.look()
    assert [item.kind for item in buffer.refused()] == [RefusalKind.CHANGED] * 2
    assert "has its size still" in buffer.why("run-1")
    with buffer.catalog.read() as session:
        made = datasets.by_name(session, "run-1").id
    verification.verify_dataset(buffer.catalog, made)
    buffer.look()
    assert [item.path for item in buffer.refused()] == ["run-1/b.raw"]


# When a dataset is closed.


def test_a_file_that_comes_after_the_close_is_told(buffer: Buffer) -> None:
    buffer.follow(end_pattern=END)
    buffer.arrive("run-1/a.raw", "run-1/END")
    buffer.look(4)
    buffer.arrive("run-1/late.raw")
    buffer.look(3)
    (late,) = buffer.refused()
    assert (late.path, late.kind, late.dataset) == ("run-1/late.raw", RefusalKind.LATE, "run-1")
    assert "it came when run-1 was CLOSED" in buffer.why("run-1")
    assert len(buffer.errors()) == 1, "who asks its request finds the answer there"


def test_with_marker_and_count_a_marker_may_come_first(buffer: Buffer) -> None:
    buffer.follow(end_pattern=END, close_count=3)
    buffer.arrive("run-1/END")
    buffer.look(3)
    buffer.arrive("run-1/a.raw", "run-1/b.raw", "run-2/a.raw", "run-2/b.raw", "run-2/c.raw")
    buffer.look(4)
    assert buffer.state("run-1") is OPEN, "it has its marker, and two of three"
    assert buffer.state("run-2") is OPEN, "it has three, and no marker"
    buffer.arrive("run-1/c.raw", "run-2/END")
    buffer.look(4)
    assert buffer.state("run-1") is CLOSED and buffer.state("run-2") is CLOSED


def test_with_either_one_is_enough(buffer: Buffer) -> None:
    buffer.follow(end_pattern=END, close_count=2, either=True)
    buffer.arrive("run-1/a.raw", "run-1/END", "run-2/a.raw", "run-2/b.raw", "run-3/a.raw")
    buffer.look(4)
    states = [buffer.state(f"run-{number}") for number in (1, 2, 3)]
    assert states == [CLOSED, CLOSED, OPEN]


def test_a_run_of_nothing_but_a_marker_is_told(buffer: Buffer) -> None:
    buffer.follow(end_pattern=END)
    buffer.arrive("run-1/END", "run-2/END", "run-2/a.raw")
    buffer.look(3)
    (empty,) = buffer.refused()
    assert (empty.path, empty.kind, empty.dataset) == ("run-1/END", RefusalKind.EMPTY_RUN, "run-1")
    with buffer.catalog.read() as session:
        assert [info.name for info in datasets.list_datasets(session)] == ["run-2"]
    buffer.arrive("run-1/a.raw")
    buffer.look(4)
    assert buffer.state("run-1") is CLOSED and buffer.refused() == []


def test_a_folder_where_a_marker_is_awaited_is_told_until_it_is_a_file(buffer: Buffer) -> None:
    buffer.follow(end_pattern=END)
    buffer.arrive("run-1/a.raw", "run-2/deep/a.raw", "run-2/END")
    buffer.path("run-1/END").mkdir()
    buffer.look(4)
    (told,) = buffer.refused()
    assert (told.path, told.kind, told.dataset) == ("run-1/END", RefusalKind.LINK, "run-1")
    assert buffer.state("run-1") is OPEN and buffer.state("run-2") is CLOSED
    buffer.path("run-1/END").rmdir()
    buffer.arrive("run-1/END")
    buffer.look(4)
    assert buffer.state("run-1") is CLOSED and buffer.refused() == []


def test_a_rule_may_make_empty_datasets_of_empty_runs(buffer: Buffer) -> None:
    buffer.follow(end_pattern=END, close_empty=True, lifetime_s=60.0, unmatched=Untaken.EXPIRE)
    buffer.arrive("run-1/END")
    buffer.look(4)
    with buffer.catalog.read() as session:
        info = datasets.by_name(session, "run-1")
    assert (info.state, info.file_count, info.lifetime_s) == (CLOSED, 0, 60.0)
    assert buffer.refused() == []


# Deleted, and there again.


def test_what_stayed_of_a_deleted_dataset_is_taken_again_once_it_changes_or_is_asked_for(
    buffer: Buffer,
) -> None:
    buffer.follow(end_pattern=END)
    buffer.arrive("run-1/a.raw", "run-1/b.raw", "run-1/END")
    buffer.look(4)
    buffer.delete("run-1")
    assert buffer.path("run-1/a.raw").exists()
    buffer.look(3)
    assert buffer.state("run-1") is DatasetState.DELETED, "it is as it was left"
    assert buffer.refused() == []
    buffer.arrive("run-1/a.raw", content=b"of another run")
    buffer.look(4)
    assert (buffer.state("run-1"), buffer.names("run-1")) == (CLOSED, ["run-1/a.raw"])
    buffer.delete("run-1")
    with buffer.catalog.write() as session:
        assert detached.rescan(session) == 2
    buffer.look(4)
    assert (buffer.state("run-1"), buffer.names("run-1")) == (
        CLOSED, ["run-1/a.raw", "run-1/b.raw"],
    )  # fmt: skip


@pytest.mark.parametrize("restarts", ["never", "meanwhile", "later"])
def test_what_came_while_a_deletion_could_be_undone_is_taken_once_it_is(
    buffer: Buffer, restarts: str
) -> None:
    buffer.follow(end_pattern=END)
    buffer.arrive("run-1/a.raw")
    buffer.look(2)
    with buffer.catalog.write() as session:
        run = datasets.by_name(session, "run-1").id
        deletion.mark(session, run, "a test", grace_s=3600.0)
    buffer.arrive("run-1/b.raw", "run-1/c.raw")
    buffer.look(3)
    assert {item.kind for item in buffer.refused()} == {RefusalKind.LATE}
    cancelled = {"run-1/c.raw": "CANCELLED"}
    with buffer.catalog.write() as session:
        for info in requests.list_requests(session, state=RequestState.ERROR):
            if (code := cancelled.get(info.payload["files"][0]["path"])) is not None:
                answered = sa.update(Request).where(col(Request.id) == info.id)
                session.execute(answered.values(reply={"error": "no", "code": code}))
    if restarts == "meanwhile":
        buffer.begin_anew()
        buffer.look(2)
    with buffer.catalog.write() as session:
        grace.undelete(session, run)
    if restarts == "later":
        buffer.begin_anew()
    buffer.look(5)
    assert buffer.names("run-1") == ["run-1/a.raw", "run-1/b.raw"], "a person refused the third"
    ((left, told),) = [(item.path, item.reason) for item in buffer.refused()]
    assert left == "run-1/c.raw" and told.endswith("no")
    buffer.path("run-1/c.raw").unlink()
    buffer.arrive("run-1/END")
    buffer.look(4)
    assert buffer.state("run-1") is CLOSED and buffer.refused() == []


def test_what_waited_when_a_deletion_began_is_taken_once_it_is_undone(buffer: Buffer) -> None:
    watch = buffer.follow(end_pattern=END)
    buffer.arrive("run-1/a.raw")
    buffer.look(2)
    buffer.arrive("run-1/b.raw")
    watch.turn()
    with buffer.catalog.write() as session:
        run = datasets.by_name(session, "run-1").id
        deletion.mark(session, run, "a test", grace_s=3600.0)
    buffer.look(2)
    assert len(buffer.errors()) == 1
    with buffer.catalog.write() as session:
        grace.undelete(session, run)
    buffer.look(3)
    assert buffer.names("run-1") == ["run-1/a.raw", "run-1/b.raw"] and buffer.refused() == []


@pytest.mark.parametrize("more", ["run-1/b.raw", None])
def test_detached_files_are_told_where_another_dataset_lacks_them(
    buffer: Buffer, monkeypatch: pytest.MonkeyPatch, more: str | None
) -> None:
    """That they stay out was a person's decision: they hold nothing."""
    monkeypatch.setattr(rounds, "MOST", 0)
    buffer.follow("first", dataset="a-{run}")
    buffer.arrive("run-1/a.raw", "run-1/it is.raw")
    buffer.look(2)
    buffer.delete("a-run-1")
    second = buffer.follow("second", dataset="b-{run}", end_pattern=END)
    buffer.arrive("run-1/END")
    if more is not None:
        buffer.arrive(more)
    buffer.look(4)
    told = [(i.path, i.kind, i.dataset) for i in buffer.refused("second")]
    kind = RefusalKind.DETACHED
    assert told == [("run-1/a.raw", kind, "b-run-1"), ("run-1/it is.raw", kind, "b-run-1")]
    with buffer.catalog.read() as session:
        why = "\n".join(cause.fact for cause in causes.why_name(session, "b-run-1"))
        assert refusals.detached(session)[second.rule.id] == 2
        assert refusals.count(session) == 0, "nothing is wrong"
    assert "`spdf intake rescan --storage raw --prefix 'run-1/it is.raw'`" in why
    if more is not None:
        assert buffer.state("b-run-1") is CLOSED and buffer.names("b-run-1") == [more]
        return
    with buffer.catalog.write() as session:
        assert detached.rescan(session, prefix="run-1/a") == 1
        detached.rescan(session)
    buffer.look(4)
    assert buffer.state("b-run-1") is CLOSED and buffer.refused("second") == []
    assert buffer.settled()["run-1/a.raw"] is Settlement.REGISTERED


def test_a_marker_of_a_deleted_run_makes_no_empty_one(buffer: Buffer) -> None:
    buffer.follow(end_pattern=END, close_empty=True)
    buffer.arrive("run-1/END", "run-2/a.raw", "run-2/END")
    buffer.look(4)
    for name in ("run-1", "run-2"):
        buffer.delete(name)
    buffer.path("run-2/a.raw").unlink()
    buffer.look(4)
    assert {buffer.state("run-1"), buffer.state("run-2")} == {DatasetState.DELETED}
    assert buffer.refused() == []


# Keys of requests.


def test_files_whose_long_names_end_alike_are_asked_for_each(buffer: Buffer) -> None:
    buffer.follow(pattern=r"(?P<run>run-\d+)-.*\.raw")
    tail = "/".join("y" * 120 for _ in range(5))
    for number in (1, 2):
        buffer.arrive(f"run-1-{number}/{tail}.raw", content=b"same")
        os.utime(buffer.path(f"run-1-{number}/{tail}.raw"), (1000, 1000))
    buffer.look(2)
    assert len(buffer.names("run-1")) == 2


def test_what_is_asked_for_goes_to_the_dataset_that_was_meant(buffer: Buffer) -> None:
    """A dataset of the same name that is made later is another one."""
    watch = buffer.follow()
    buffer.arrive("run-1/a.raw")
    watch.turn()
    with buffer.catalog.read() as session:
        (info,) = requests.list_requests(session)
        assert info.payload["datasetId"] == datasets.by_name(session, "run-1").id
    assert info.lane == "run-1"


def test_what_was_asked_for_by_the_keys_of_before_is_registered_once(buffer: Buffer) -> None:
    """The intake was brought up to date while requests waited."""
    watch = buffer.follow(close_count=1)
    buffer.arrive("run-1/a.raw")
    with buffer.catalog.write() as session:
        datasets.create(session, "run-1", rule_id=watch.rule.id)
    size = {"storageId": "raw", "path": "run-1/a.raw", "size": 11}
    old = {"key": "intake:daq:run-1/a.raw@11-1000.000000", "datasetId": "run-1", "files": [size]}
    submit_requests(buffer.catalog, [{"kind": "file.input", **old}])
    watch.turn()
    submit_requests(
        buffer.catalog,
        [{"kind": "dataset.close", "key": "intake:daq:close:1", "datasetId": "run-1"}],
    )
    buffer.look(3)
    assert (buffer.state("run-1"), buffer.names("run-1")) == (CLOSED, ["run-1/a.raw"])
    assert buffer.errors() == [] and buffer.refused() == []


# All of it at once.


def hostile(buffer: Buffer, random: Random, number: int) -> str | None:
    """Put something odd into a run; gives its path as it is shown, None for what is hidden."""
    kind = random.choice(
        ["link", "folder link", "pipe", "socket", "sparse", "long", "bytes", "control", "hidden",
         "hidden folder", "old", "empty", "quoted", "folder", "unreadable"]
    )  # fmt: skip
    name: str | bytes = {
        "long": f"run-1/{number:03}{'x' * 248}.raw",
        "bytes": b"run-1/%03d-\xff\xc3\x28.raw" % number,
        "control": f"run-1/{number:03}\n\t\x7f.raw",
        "hidden": f"run-1/.{number:03}.raw",
        "hidden folder": f"run-1/.{number:03}/a.raw",
        "quoted": f"run-1/{number:03} '\"$(x)%`;\\ü.raw",
        "folder": f"run-1/{number:03}.raw/below.raw",
    }.get(kind, f"run-1/{number:03}.raw")
    path = buffer.path(name)
    if kind == "link":
        path.symlink_to(random.choice(["nowhere", "good-0.raw", path.name]))
    elif kind == "folder link":
        path.symlink_to("..")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(os.fsdecode(name))
    else:
        buffer.arrive(name, content=random.randbytes(random.randrange(3)))
        if kind == "sparse":
            os.truncate(path, 2**20)
        if kind == "old":
            os.utime(path, (-(2**33), random.choice([-(2**33), 0, 2**34])))
        if kind == "unreadable":
            path.chmod(0)
    return None if "hidden" in kind else shown(os.fsdecode(name))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_among_odd_things_each_good_file_is_taken_and_each_odd_one_is_taken_or_told(
    buffer: Buffer, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = Random(seed)
    # A socket's path may have 107 bytes.
    monkeypatch.chdir(buffer.storage.url)
    buffer.follow(end_pattern=END)
    good = [f"run-1/good-{number}.raw" for number in range(10)]
    buffer.arrive(*good)
    odd = {hostile(buffer, random, number) for number in range(120)} - {None}
    growing, gone = "run-1/growing.raw", "run-1/gone.raw"
    buffer.arrive(growing, gone, "run-2/a.raw", "run-1/END", "run-2/END")
    with modes_hold():
        buffer.watches["daq"].turn()
        buffer.arrive(growing, content=b"more than there was at first")
        buffer.path(gone).unlink()
        buffer.work()
        buffer.look(4)
    taken, told = set(buffer.names("run-1")), {item.path for item in buffer.refused()}
    assert set(good) <= taken
    assert {*good, growing, *odd} == taken | told
    assert not taken & told
    assert buffer.state("run-1") is OPEN and buffer.state("run-2") is CLOSED


# How often it looks.


def test_a_watch_rests_by_what_its_looks_take_and_not_by_what_others_do(
    buffer: Buffer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine or a catalog that is busy for a moment doesn't make it rest for long."""
    buffer.follow()
    buffer.arrive("run-1/a.raw")
    with buffer.catalog.read() as session:
        (rule,) = intakerules.active(session)
    moment, took_s = 0.0, 1.0

    def look(_errand: Errand, take: Take) -> None:
        nonlocal moment
        take([Sighting("run-1/a.raw", "run-1", 11, 1)])
        moment += took_s

    ask = asking.ask

    def slow(*given: Any) -> Any:
        nonlocal moment
        moment += 30.0
        return ask(*given)

    monkeypatch.setattr(watch_module, "time", SimpleNamespace(monotonic=lambda: moment))
    monkeypatch.setattr(asking, "ask", slow)
    watch = watch_module.Watch(rule, buffer.catalog, look)
    assert watch.turn() == 4.0
    assert moment == 31.0
    took_s = 10.0
    assert watch.turn() == 4.0, "once is chance"
    looks = watch_module._LOOKS
    assert [watch.turn() for _ in range(looks - 1)][-1] == 40.0
