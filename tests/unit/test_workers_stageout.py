"""Stage-out: what of a payload's outputs is stored, where, and what becomes of the rest."""

import errno
import os
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from catalog.drivers.local import LocalDriver
from catalog.errors import ErrorCode, StorageError
from catalog.stamps import of_stat
from tests.privileges import modes_hold
from workers.cwl import ToolFailure, ToolStopped
from workers.node import Node
from workers.orphans import PayloadLedger
from workers.slots import Capacity, Slots
from workers.spec import (
    JobSpec,
    NewFile,
    OutputPort,
    OutputTarget,
    Resources,
    StepInput,
    StepSpec,
    TaskSpec,
)
from workers.stageout import StageOut, discard, make_durable, place_of

OUT, LOGS = 7, 8
JOB = JobSpec(job_id=4321, attempt_id=9, task_id=1, key="run/a.raw", ordinal=3, number=2, files={})


class Desk:
    """A stage-out of one attempt, with its storages and its output directory."""

    def __init__(self, folder: Path) -> None:
        self.out, self.stored, self.logs = (
            folder / "job" / "out",
            folder / "stored",
            folder / "logs",
        )
        for one in (self.out, self.stored, self.logs):
            one.mkdir(parents=True)
        ports = (
            OutputPort("hits", "File"),
            OutputPort("more", "File"),
            OutputPort("count", "value"),
            OutputPort("none", "File"),
        )
        step = StepSpec({}, (StepInput("x"),), ports)
        targets = {
            "hits": OutputTarget(70, "run.hits", OUT),
            "more": OutputTarget(71, "run.more", OUT),
            "log": OutputTarget(72, "run.log", LOGS),
        }
        task = TaskSpec(1, "s", 1, step, Resources(), 0, "digest", {}, {}, targets)
        self.ledger = PayloadLedger(folder / "work", 1)
        self.slots = Slots(folder / "slots", Capacity(1, 64))
        storages = {OUT: LocalDriver("out", self.stored), LOGS: LocalDriver("logs", self.logs)}
        self.node = Node("here", self.ledger, self.slots, storages)
        self.uploaded: list[NewFile] = []
        self.stop = threading.Event()
        self.stage = StageOut(self.node, task, JOB, str(self.out), self.uploaded, self.stop)

    def file(self, name: str, text: str = "", **fields: Any) -> dict[str, Any]:
        """A File object of a new file of the output directory."""
        path = self.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text or name)
        return {"class": "File", "path": str(path), "basename": path.name, **fields}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.ledger.close()
    made.slots.close()


def refused(desk: Desk, values: dict[str, Any], words: str) -> None:
    with pytest.raises(ToolFailure, match=words) as caught:
        desk.stage.outputs(values)
    assert caught.value.code is ErrorCode.OUTPUT_INVALID


def test_an_output_is_moved_to_its_place_and_described(desk: Desk) -> None:
    assert desk.stage.putting_bytes == 0
    assert desk.stage.outputs({"hits": desk.file("h.dat", "hits\n")}) == {}
    (file,) = desk.uploaded
    assert file == NewFile(
        port="hits",
        index=0,
        name="run/a.raw/h.dat",
        size_bytes=5,
        checksum=f"adler32:{zlib.adler32(b'hits' + bytes([10])):08x}",
        storage_id=OUT,
        path="run.hits/000004/4321.a2.h.dat",
        dataset_id=70,
        secondary_of=None,
        mtime_us=of_stat((desk.stored / file.path).stat()).mtime_us,
    )
    assert (desk.stored / file.path).read_text() == "hits\n"
    assert list(desk.out.iterdir()) == [], "moved, not copied"
    assert desk.stage.putting_bytes == 5


def test_values_are_given_back_and_absent_outputs_left_out(desk: Desk) -> None:
    assert desk.stage.outputs({"count": 0, "hits": None, "other": 1}) == {"count": 0}
    assert desk.stage.outputs({"count": [1, None]}) == {"count": [1, None]}
    assert desk.uploaded == []


def test_a_value_does_not_keep_later_ports_from_being_stored(desk: Desk) -> None:
    ports = desk.stage._task.step.outputs
    assert [port.name for port in ports].index("count") > 0
    values = {"count": 3, "more": desk.file("m"), "hits": None}
    assert desk.stage.outputs(values) == {"count": 3}
    assert [file.port for file in desk.uploaded] == ["more"]


def test_files_of_a_list_keep_their_order_through_all_ports(desk: Desk) -> None:
    desk.stage.outputs({"more": [desk.file("c"), desk.file("b")], "hits": desk.file("a")})
    assert [(one.port, one.index, one.name) for one in desk.uploaded] == [
        ("hits", 0, "run/a.raw/a"), ("more", 1, "run/a.raw/c"), ("more", 2, "run/a.raw/b"),
    ]  # fmt: skip
    assert [one.dataset_id for one in desk.uploaded] == [70, 71, 71]


def test_secondary_files_name_their_primary_one(desk: Desk) -> None:
    deep = desk.file("h.idx.md5")
    index = desk.file("h.idx", secondaryFiles=[deep])
    desk.stage.outputs({"hits": desk.file("h", secondaryFiles=[index]), "more": desk.file("m")})
    assert [(one.name, one.secondary_of, one.dataset_id) for one in desk.uploaded] == [
        ("run/a.raw/h", None, 70),
        ("run/a.raw/h.idx", "run/a.raw/h", 70),
        ("run/a.raw/h.idx.md5", "run/a.raw/h", 70),
        ("run/a.raw/m", None, 71),
    ]


def test_an_index_of_several_files_is_stored_once_and_names_each(desk: Desk) -> None:
    index = desk.file("i")
    a, b, c, d = (desk.file(name, secondaryFiles=[index]) for name in "abcd")
    desk.stage.outputs({"hits": [a, b], "more": [c, d]})
    assert [(one.name, one.secondary_of, one.also_of, one.dataset_id) for one in desk.uploaded] == [
        ("run/a.raw/a", None, (), 70),
        ("run/a.raw/i", "run/a.raw/a", ("run/a.raw/b",), 70),
        ("run/a.raw/b", None, (), 70),
        ("run/a.raw/c", None, (), 71),
        ("run/a.raw/i", "run/a.raw/c", ("run/a.raw/d",), 71),
        ("run/a.raw/d", None, (), 71),
    ]


def test_a_directory_among_secondary_files_is_refused(desk: Desk) -> None:
    folder = {"class": "Directory", "path": str(desk.out / "d"), "basename": "d", "listing": []}
    refused(desk, {"hits": desk.file("h", secondaryFiles=[folder])}, "directory 'd'")


def test_two_files_of_one_name_are_refused_and_both_named(desk: Desk) -> None:
    one, other = desk.file("x/h"), desk.file("y/h")
    refused(desk, {"hits": [one, other]}, "two files named 'h' .*x/h' and .*y/h'")
    assert desk.uploaded == [] and not list(desk.stored.iterdir()), "refused before any is moved"
    assert Path(one["path"]).exists() and Path(other["path"]).exists()


def test_one_file_in_two_roles_of_a_port_is_refused_with_what_they_are(desk: Desk) -> None:
    index = desk.file("i")
    a = desk.file("a", secondaryFiles=[index])
    refused(desk, {"hits": [a, index]}, "'i' .* by itself and as a secondary file of 'a'")
    desk.stage._names.clear()
    refused(desk, {"hits": [index, a]}, "'i' .* by itself and as a secondary file of 'a'")
    desk.stage._names.clear()
    refused(desk, {"hits": [index, index]}, "the file 'i' twice .* holds a file once")
    assert desk.uploaded == [] and Path(index["path"]).exists()


def test_a_secondary_file_that_its_file_names_twice_is_stored_once(desk: Desk) -> None:
    index = desk.file("i")
    desk.stage.outputs({"hits": desk.file("h", secondaryFiles=[index, index])})
    assert [(one.name, one.index) for one in desk.uploaded] == [
        ("run/a.raw/h", 0), ("run/a.raw/i", 1),
    ]  # fmt: skip
    assert not list(desk.out.iterdir())


def stored(desk: Desk) -> list[Path]:
    """Where the uploaded files lie."""
    roots = {OUT: desk.stored, LOGS: desk.logs}
    return [roots[one.storage_id] / one.path for one in desk.uploaded]


def elsewhere(desk: Desk) -> None:
    """Have the port `more` on another storage than `hits`."""
    targets: Any = desk.stage._task.targets
    targets["more"] = OutputTarget(71, "run.more", LOGS)


def test_one_file_under_two_ports_is_stored_for_each_without_a_copy(desk: Desk) -> None:
    one = desk.file("h", "1")
    inode = Path(one["path"]).stat().st_ino
    desk.stage.outputs({"hits": one, "more": [desk.file("z", "0"), dict(one)]})
    first, _, second = stored(desk)
    assert first != second and first.read_text() == second.read_text() == "1"
    assert first.stat().st_ino == second.stat().st_ino == inode
    assert first.stat().st_mode & 0o777 == 0o444 and first.stat().st_nlink == 2
    known = [(one.port, one.dataset_id, one.index, one.size_bytes) for one in desk.uploaded]
    assert known == [("hits", 70, 0, 1), ("more", 71, 1, 1), ("more", 71, 2, 1)]
    assert desk.uploaded[0].checksum == desk.uploaded[2].checksum
    assert not list(desk.out.iterdir())
    assert make_durable(desk.node, desk.uploaded) == {}


def test_either_of_two_ports_files_goes_alone(desk: Desk) -> None:
    one = desk.file("h", "1")
    desk.stage.outputs({"hits": one, "more": one})
    first, second = stored(desk)
    discard(desk.node, desk.uploaded[:1])
    assert not first.exists() and second.read_text() == "1"
    discard(desk.node, desk.uploaded[1:])
    assert not [path for path in desk.stored.rglob("*") if path.is_file()]


def test_one_file_of_two_storages_is_copied_to_each(desk: Desk) -> None:
    elsewhere(desk)
    one = desk.file("h", "1")
    desk.stage.outputs({"hits": one, "more": one})
    first, second = stored(desk)
    assert first.is_relative_to(desk.stored) and second.is_relative_to(desk.logs)
    assert first.read_text() == second.read_text() == "1"
    assert first.stat().st_ino != second.stat().st_ino, "a storage's bytes are its own"
    assert not list(desk.out.iterdir())


def test_one_file_is_copied_where_files_have_one_name_only(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    one = desk.file("h", "1")
    desk.stage.outputs({"hits": one, "more": one})
    assert [path.read_text() for path in stored(desk)] == ["1", "1"]
    assert [path.stat().st_nlink for path in stored(desk)] == [1, 1]
    assert not list(desk.out.iterdir())


@pytest.mark.parametrize("how", ["by its place", "hard link", "link"])
def test_an_input_under_two_ports_is_copied_and_stays(desk: Desk, tmp_path: Path, how: str) -> None:
    real = tmp_path / "input" / "raw"
    real.parent.mkdir()
    real.write_text("keep")
    real.chmod(0o444)
    path = real if how == "by its place" else desk.out / "raw"
    if how == "hard link":
        path.hardlink_to(real)
    elif how == "link":
        path.symlink_to(real)
    value = {"class": "File", "path": str(path)}
    desk.stage.outputs({"hits": value, "more": value})
    assert real.read_text() == "keep"
    for one in stored(desk):
        assert one.read_text() == "keep" and not one.is_symlink()
        assert one.stat().st_ino != real.stat().st_ino


@pytest.mark.parametrize("first", ["link", "file"])
def test_a_file_and_a_link_to_it_are_stored_both(desk: Desk, first: str) -> None:
    desk.file("result", "1")
    (desk.out / "latest").symlink_to("result")
    names = ("latest", "result") if first == "link" else ("result", "latest")
    values = [{"class": "File", "path": str(desk.out / name)} for name in names]
    desk.stage.outputs({"hits": values[0], "more": values})
    assert [one.name for one in desk.uploaded] == [
        f"run/a.raw/{name}" for name in (names[0], *names)
    ]
    assert {path.read_text() for path in stored(desk)} == {"1"}
    assert not any(path.is_symlink() for path in stored(desk))


def test_an_index_beside_a_port_of_its_own_is_stored_with_its_file_and_alone(desk: Desk) -> None:
    index = desk.file("h.idx", "i")
    desk.stage.outputs({"hits": desk.file("h", secondaryFiles=[index]), "more": index})
    assert [(one.name, one.secondary_of, one.dataset_id) for one in desk.uploaded] == [
        ("run/a.raw/h", None, 70),
        ("run/a.raw/h.idx", "run/a.raw/h", 70),
        ("run/a.raw/h.idx", None, 71),
    ]
    assert [path.read_text() for path in stored(desk)] == ["h", "i", "i"]


def test_of_one_file_the_second_port_s_trouble_leaves_nothing(desk: Desk) -> None:
    taken = desk.stored / place_of("run.more", JOB, "h")
    taken.parent.mkdir(parents=True)
    taken.write_text("another's")
    one = desk.file("h")
    with pytest.raises(StorageError) as caught:
        desk.stage.outputs({"hits": one, "more": one})
    assert caught.value.code is ErrorCode.OUTPUT_EXISTS
    discard(desk.node, desk.uploaded)
    assert [path for path in desk.stored.rglob("*") if path.is_file()] == [taken]
    assert taken.read_text() == "another's"


def test_what_is_gone_since_is_a_missing_output_never_an_input(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = desk.file("h"), desk.file("m")
    Path(one["path"]).unlink()
    with pytest.raises(ToolFailure, match=r"output hits is gone: .*/h'") as caught:
        desk.stage.outputs({"hits": one})
    assert caught.value.code is ErrorCode.OUTPUT_MISSING
    put = desk.node.storages[OUT].put

    def late(source: Path, *given: Any, **more: Any) -> Any:
        source.unlink()
        return put(source, *given, **more)

    monkeypatch.setattr(desk.node.storages[OUT], "put", late)
    with pytest.raises(ToolFailure, match=r"output more is gone: .*/m'") as caught:
        desk.stage.outputs({"more": other})
    assert caught.value.code is ErrorCode.OUTPUT_MISSING
    assert desk.uploaded == []


def test_one_name_may_stand_in_two_datasets(desk: Desk) -> None:
    desk.stage.outputs({"hits": desk.file("x/h", "1"), "more": desk.file("y/h", "2")})
    assert [(desk.stored / one.path).read_text() for one in desk.uploaded] == ["1", "2"]


@pytest.mark.parametrize("name", ["a\nb", "caf\udce9", "x" * 256])
def test_a_name_that_no_file_may_have_is_refused(desk: Desk, name: str) -> None:
    value = {**desk.file("h"), "basename": name}
    refused(desk, {"hits": value}, "output file name|name of 256 bytes")
    assert desk.uploaded == []
    assert not list(desk.stored.rglob("*"))


def test_the_longest_name_that_a_file_may_have_is_stored(desk: Desk) -> None:
    desk.stage.outputs({"hits": {**desk.file("h", "1"), "basename": "x" * 255}})
    (stored,) = desk.uploaded
    assert stored.name == f"run/a.raw/{'x' * 255}"
    assert (desk.stored / stored.path).read_text() == "1"


def test_what_a_payload_left_unreadable_is_read_where_it_is_its_own(
    desk: Desk, tmp_path: Path
) -> None:
    own, other = desk.file("h", "1"), tmp_path / "other"
    other.write_text("2")
    for path in (Path(own["path"]), other):
        path.chmod(0o000)
    with modes_hold():
        desk.stage.outputs({"hits": own})
        refused(desk, {"more": {"class": "File", "path": str(other)}}, "output more can't be read")
    assert [(desk.stored / one.path).read_text() for one in desk.uploaded] == ["1"]
    assert other.stat().st_mode & 0o777 == 0


def test_the_basename_is_the_file_s_own_where_none_is_said(desk: Desk) -> None:
    value = desk.file("deep/h.dat")
    del value["basename"]
    desk.stage.outputs({"hits": value, "more": {**desk.file("raw"), "basename": "other"}})
    assert [one.name for one in desk.uploaded] == ["run/a.raw/h.dat", "run/a.raw/other"]
    assert desk.uploaded[1].path.endswith("4321.a2.other")


@pytest.mark.parametrize("how", ["link", "through a linked folder", "outside"])
def test_what_is_no_file_of_the_output_directory_is_copied(
    desk: Desk, tmp_path: Path, how: str
) -> None:
    real = tmp_path / "input" / "precious"
    real.parent.mkdir()
    real.write_text("keep")
    path = real
    if how == "link":
        path = desk.out / "precious"
        path.symlink_to(real)
    elif how == "through a linked folder":
        (desk.out / "folder").symlink_to(real.parent)
        path = desk.out / "folder" / "precious"
    desk.stage.outputs({"hits": {"class": "File", "path": str(path)}})
    assert real.read_text() == "keep"
    stored = desk.stored / desk.uploaded[0].path
    assert stored.read_text() == "keep" and not stored.is_symlink()
    assert stored.stat().st_ino != real.stat().st_ino


def test_a_directory_beside_the_output_directory_is_not_it(desk: Desk) -> None:
    beside = desk.out.with_name("out-beside") / "h"
    beside.parent.mkdir()
    beside.write_text("keep")
    desk.stage.outputs({"hits": {"class": "File", "path": str(beside)}})
    assert beside.exists()


def test_a_log_is_moved_to_a_name_of_its_attempt(desk: Desk, tmp_path: Path) -> None:
    log = tmp_path / "job" / "log"
    log.write_text("said")
    file = desk.stage.log(str(log))
    assert file is not None
    assert (file.port, file.index, file.name) == ("log", 0, "run/a.raw/2.log")
    assert (file.storage_id, file.dataset_id) == (LOGS, 72)
    assert (desk.logs / file.path).read_text() == "said"
    assert file.path == "run.log/000004/4321.a2.log"
    assert not log.exists()
    assert desk.uploaded == [], "a log is no output"


def test_an_empty_log_or_none_is_not_stored(desk: Desk, tmp_path: Path) -> None:
    log = tmp_path / "job" / "log"
    assert desk.stage.log(str(log)) is None
    log.touch()
    assert desk.stage.log(str(log)) is None
    assert not list(desk.logs.iterdir())


def test_a_place_that_is_taken_is_not_written_over(desk: Desk) -> None:
    place = desk.stored / place_of("run.hits", JOB, "h")
    place.parent.mkdir(parents=True)
    place.write_text("another's")
    with pytest.raises(StorageError) as caught:
        desk.stage.outputs({"hits": desk.file("h")})
    assert caught.value.code is ErrorCode.OUTPUT_EXISTS
    assert place.read_text() == "another's"


def test_what_no_row_will_name_is_removed_and_nothing_else(desk: Desk, tmp_path: Path) -> None:
    other = desk.stored / "run.hits" / "000004" / "4321.a1.h"
    other.parent.mkdir(parents=True)
    other.write_text("another attempt's")
    log = tmp_path / "job" / "log"
    log.write_text("said")
    desk.stage.outputs({"hits": desk.file("h"), "more": desk.file("m")})
    said = desk.stage.log(str(log))
    assert said is not None
    discard(desk.node, [*desk.uploaded, said])
    assert [path for path in desk.stored.rglob("*") if path.is_file()] == [other]
    assert not [path for path in desk.logs.rglob("*") if path.is_file()]


def test_a_wait_for_a_storage_hears_a_stop(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise StorageError(ErrorCode.STORAGE_UNAVAILABLE, "away")

    monkeypatch.setattr(desk.node.storages[OUT], "put", away)
    object.__setattr__(desk.node, "patience_s", 600.0)
    desk.stop.set()
    with pytest.raises(ToolStopped):
        desk.stage.outputs({"hits": desk.file("h")})


def test_a_long_name_gets_a_folder_of_the_attempt() -> None:
    longest = 255 - len("4321.a2.")
    assert place_of("d", JOB, "n" * longest) == f"d/000004/4321.a2.{'n' * longest}"
    over = "n" * (longest + 1)
    assert place_of("d", JOB, over) == f"d/000004/4321.a2/{over}"
    wide = "é" * (longest // 2 + 1)
    assert place_of("d", JOB, wide) == f"d/000004/4321.a2/{wide}", "bytes count"


def test_a_thousand_jobs_share_a_folder() -> None:
    jobs = [JobSpec(number, 1, 1, "k", 0, 1, {}) for number in (999, 1000, 1999, 2000)]
    folders = [place_of("d", job, "x").split("/")[1] for job in jobs]
    assert folders == ["000000", "000001", "000001", "000002"]


def test_what_is_not_on_the_disk_is_told_by_place(desk: Desk, tmp_path: Path) -> None:
    log = tmp_path / "job" / "log"
    log.write_text("said")
    desk.stage.outputs({"hits": desk.file("h"), "more": desk.file("m")})
    said = desk.stage.log(str(log))
    assert said is not None
    assert make_durable(desk.node, [*desk.uploaded, said]) == {}
    lost = desk.uploaded[0]
    (desk.stored / lost.path).unlink()
    faults = make_durable(desk.node, [*desk.uploaded, said])
    assert list(faults) == [(OUT, lost.path)]
    assert isinstance(faults[OUT, lost.path], StorageError)
