"""Uploads: copied, verified there, gone on with after a kill; and what can't be."""

import os
import signal
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import col

from catalog import (
    causes,
    datasets,
    deletion,
    events,
    files,
    grace,
    manifests,
    removal,
    storages,
    transfers,
    tries,
    uploads,
    usage,
)
from catalog.datasets import Member
from catalog.db import Catalog
from catalog.drivers import Stored
from catalog.drivers.local import LocalDriver
from catalog.errors import Conflict, NotFound, StateConflict, StorageError
from catalog.failpoints import VARIABLE
from catalog.files import NewFileRow
from catalog.inspection.scan import Options, inspect
from catalog.models import Replica
from catalog.states import DatasetState, InspectionState, ReplicaState, UploadState
from catalog.storages import StorageInfo
from catalog.uploads import UploadInfo
from tests.unit.conftest import closed

COUNT = 150
"""More than two batches."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tries, "OUTAGE", replace(tries.OUTAGE, first_s=0.01, most_s=0.01))


@pytest.fixture
def dataset(catalog: Catalog, storage: StorageInfo) -> int:
    """A closed dataset of files in two folders."""
    return closed(catalog, storage, [f"d{i % 2}/f{i:03}" for i in range(COUNT)])


def ask(catalog: Catalog, dataset: int, tape: StorageInfo) -> int:
    with catalog.write() as session:
        return uploads.ask(session, dataset, tape.id)


def transfer(catalog: Catalog, upload: int, tmp_path: Path) -> UploadInfo:
    return transfers.transfer(catalog, upload, tmp_path / "scratch")


def waits_for(catalog: Catalog, upload: int) -> str | None:
    with catalog.read() as session:
        return uploads.get(session, upload).waits_for


def why(catalog: Catalog) -> list[str]:
    with catalog.read() as session:
        return [cause.fact for cause in causes.why_name(session, "run-1")]


def whole(catalog: Catalog, dataset: int, tape: StorageInfo) -> bool:
    """Whether every file is AVAILABLE on the storage, with its bytes."""
    with catalog.read() as session:
        members = list(manifests.all_members(session, dataset))
    for member in members:
        places = [place for place in member.replicas if place.storage_id == tape.id]
        if len(places) != 1 or Path(tape.url, places[0].path).read_text() != member.name:
            return False
    return len(members) == COUNT


def test_a_dataset_is_copied_verified_and_counted(
    catalog: Catalog, dataset: int, tape: StorageInfo, tmp_path: Path
) -> None:
    upload = ask(catalog, dataset, tape)
    assert ask(catalog, dataset, tape) == upload, "one at a time"
    seen: list[int] = []
    info = transfers.transfer(
        catalog, upload, tmp_path, progress=lambda info: seen.append(info.files_done)
    )
    assert (info.state, info.files_done, info.bytes_done) == (
        UploadState.DONE, COUNT, info.size_bytes,
    )  # fmt: skip
    assert seen == sorted(seen) and len(set(seen)) > 2, "it tells how far it is"
    assert whole(catalog, dataset, tape)
    with catalog.read() as session:
        there = {item.storage: item.files for item in usage.of_storages(session)}
        assert uploads.is_done(session, dataset) and not uploads.is_going(session, dataset)
    assert there == {"raw": COUNT, "tape": COUNT}


def test_only_a_closed_dataset_is_uploaded_and_none_on_its_way_is_deleted(
    catalog: Catalog, dataset: int, tape: StorageInfo, tmp_path: Path
) -> None:
    with catalog.write() as session:
        other = datasets.create(session, "open")
        with pytest.raises(StateConflict, match="only a CLOSED dataset can be"):
            uploads.ask(session, other, tape.id)
    upload = ask(catalog, dataset, tape)
    with pytest.raises(Conflict, match="is being uploaded"), catalog.write() as session:
        deletion.mark(session, dataset, "a test")
    transfer(catalog, upload, tmp_path)
    with catalog.write() as session:
        assert deletion.mark(session, dataset, "a test")
    deletion.remove(catalog, dataset)
    assert not list(Path(tape.url).rglob("f*")), "all of its copies go"


def test_again_after_its_end_it_copies_only_what_is_not_there(
    catalog: Catalog, dataset: int, tape: StorageInfo, tmp_path: Path
) -> None:
    first = ask(catalog, dataset, tape)
    transfer(catalog, first, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in Path(tape.url).rglob("f*")}
    second = ask(catalog, dataset, tape)
    assert second != first
    assert transfer(catalog, second, tmp_path).state is UploadState.DONE
    assert {path: path.stat().st_mtime_ns for path in Path(tape.url).rglob("f*")} == before


def test_a_source_that_is_corrupt_is_named_and_the_upload_goes_on_once_it_is_mended(
    catalog: Catalog, storage: StorageInfo, dataset: int, tape: StorageInfo, tmp_path: Path
) -> None:
    bad = Path(storage.url, "d1/f099")
    good = bad.read_text()
    bad.write_text(good.upper())
    upload = ask(catalog, dataset, tape)
    info = transfer(catalog, upload, tmp_path)
    assert info.state is UploadState.FAILED
    assert info.reason is not None and "'d1/f099' can't be copied" in info.reason
    assert "has the checksum" in info.reason
    assert not Path(tape.url, "run-1/d1/f099").exists(), "wrong bytes don't stay"
    bad.write_text(good)
    with catalog.write() as session:
        again = uploads.order(session, dataset, tape.id)
    assert (again.id, again.state) == (upload, UploadState.QUEUED)
    assert transfer(catalog, upload, tmp_path).state is UploadState.DONE
    assert whole(catalog, dataset, tape)


def test_a_source_that_is_gone_fails_it_and_a_storage_that_is_away_does_not(
    catalog: Catalog, storage: StorageInfo, dataset: int, tape: StorageInfo, tmp_path: Path
) -> None:
    aside = tmp_path / "aside"
    Path(tape.url).rename(aside)
    upload = ask(catalog, dataset, tape)
    with pytest.raises(StorageError, match="mount or make it"):
        transfer(catalog, upload, tmp_path)
    assert "mount or make it" in (waits_for(catalog, upload) or "")
    assert any("RUNNING" in told and "mount or make it" in told for told in why(catalog))
    aside.rename(tape.url)
    Path(storage.url, "d0/f000").unlink()
    info = transfer(catalog, upload, tmp_path)
    assert info.state is UploadState.FAILED and "not there" in (info.reason or "")
    assert info.waits_for is None


@pytest.mark.parametrize("how", ["gets further", "is done", "is cancelled"])
def test_what_an_upload_waited_for_is_told_no_longer_than_it_waits(
    catalog: Catalog, dataset: int, tape: StorageInfo, tmp_path: Path, how: str
) -> None:
    aside = tmp_path / "aside"
    Path(tape.url).rename(aside)
    upload = ask(catalog, dataset, tape)
    with pytest.raises(StorageError):
        transfer(catalog, upload, tmp_path)
    assert waits_for(catalog, upload) is not None
    aside.rename(tape.url)
    if how == "is cancelled":
        with catalog.write() as session:
            uploads.order(session, dataset, tape.id, cancel=True)
    else:
        seen: list[str | None] = []
        transfers.transfer(
            catalog,
            upload,
            tmp_path,
            progress=lambda info: seen.append(info.waits_for),
            until=lambda: how == "gets further" and len(seen) > 1,
        )
        assert seen[0] is not None and set(seen[1:]) == {None}
    assert waits_for(catalog, upload) is None


def test_a_path_that_is_too_long_for_the_catalog_fails_it(
    catalog: Catalog, storage: StorageInfo, tape: StorageInfo, tmp_path: Path
) -> None:
    name = "/".join(["d" * 200] * 4 + ["f" * 90])
    row = NewFileRow("raw", name, name, 1, "adler32:00000001")
    with catalog.write() as session:
        made = datasets.create(session, "run-1" + "x" * 20)
        ids = files.register(session, storage.id, [row])
        datasets.attach(session, made, [Member(ids[0], name)])
        datasets.close(session, made)
    info = transfer(catalog, ask(catalog, made, tape), tmp_path)
    assert info.state is UploadState.FAILED and "longer than 900" in (info.reason or "")


@pytest.mark.parametrize("grace_s", [0.0, 86400.0])
def test_a_failed_upload_does_not_go_on_once_its_dataset_is_deleted(
    catalog: Catalog, storage: StorageInfo, dataset: int, tape: StorageInfo, tmp_path: Path,
    grace_s: float,
) -> None:  # fmt: skip
    source = Path(storage.url, "d0/f000")
    text = source.read_text()
    source.unlink()
    upload = ask(catalog, dataset, tape)
    assert transfer(catalog, upload, tmp_path).state is UploadState.FAILED
    source.write_text(text)
    with catalog.write() as session:
        deletion.mark(session, dataset, "a test", grace_s=grace_s)
    with pytest.raises(StateConflict, match="DELETING"), catalog.write() as session:
        uploads.order(session, dataset, tape.id)
    if grace_s:
        with catalog.write() as session:
            grace.undelete(session, dataset)
            assert uploads.order(session, dataset, tape.id).state is UploadState.QUEUED
        assert transfer(catalog, upload, tmp_path).state is UploadState.DONE
        return
    deletion.remove(catalog, dataset)
    with pytest.raises(StateConflict, match="DELETED"), catalog.write() as session:
        uploads.order(session, dataset, tape.id)


def test_an_upload_can_be_cancelled(
    catalog: Catalog, dataset: int, tape: StorageInfo, tmp_path: Path
) -> None:
    with pytest.raises(NotFound), catalog.write() as session:
        uploads.order(session, dataset, tape.id, cancel=True)
    upload = ask(catalog, dataset, tape)
    with catalog.write() as session:
        info = uploads.order(session, dataset, tape.id, cancel=True)
    assert (info.id, info.state) == (upload, UploadState.CANCELLED)
    assert transfer(catalog, upload, tmp_path).files_done == 0


def test_a_path_that_was_used_before_is_not_used_again(
    catalog: Catalog, dataset: int, tape: StorageInfo, tmp_path: Path
) -> None:
    transfer(catalog, ask(catalog, dataset, tape), tmp_path)
    with catalog.write() as session:
        file_id = files.get(session, "raw", "d0/f000").id
        found = removal.lock(session, col(Replica.file_id) == file_id)
        rows = removal.doom(session, found, "a test")
    with catalog.read() as session:
        assert [row.path for row in rows] == ["d0/f000", "run-1/d0/f000"]
        assert files.replicas(session, [file_id]) == {file_id: ()}
    info = transfer(catalog, ask(catalog, dataset, tape), tmp_path)
    assert info.state is UploadState.FAILED and "no copy of it" in (info.reason or "")


RUN = """
import sys
from pathlib import Path
from catalog import transfers
from catalog.db import Catalog
print(transfers.transfer(Catalog(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])).state)
"""


def found(catalog: Catalog, *names: str, grace_s: float = 0.0) -> int:
    """How much an inspector finds that reads all of these storages."""
    count = 0
    for name in names:
        with catalog.read() as session:
            place = storages.by_name(session, name).id
        info = inspect(catalog, place, Options(100.0, grace_s))
        assert info.state is InspectionState.DONE
        count += info.found
    return count


def run(catalog_url: str, upload: int, tmp_path: Path, failpoint: str | None) -> int:
    line = [sys.executable, "-c", RUN, catalog_url, str(upload), str(tmp_path)]
    env = {**os.environ, VARIABLE: failpoint} if failpoint else dict(os.environ)
    root = Path(__file__).resolve().parents[2]
    return subprocess.run(line, env=env, cwd=root, timeout=60, check=False).returncode


@pytest.mark.parametrize(
    "failpoint",
    ["upload.reserved", "upload.copied:2", "upload.noted:2", "upload.ends"],
)
def test_killed_at_any_step_it_goes_on(
    catalog: Catalog, catalog_url: str, dataset: int, tape: StorageInfo, tmp_path: Path,
    failpoint: str,
) -> None:  # fmt: skip
    upload = ask(catalog, dataset, tape)
    assert run(catalog_url, upload, tmp_path, failpoint) == -signal.SIGKILL
    assert found(catalog, "raw", "tape", grace_s=3600.0) == 0
    assert run(catalog_url, upload, tmp_path, None) == 0
    assert found(catalog, "raw", "tape") == 0
    with catalog.read() as session:
        info = uploads.get(session, upload)
        there = {item.storage: item.files for item in usage.of_storages(session)}
    assert (info.state, info.files_done, info.bytes_done) == (
        UploadState.DONE, COUNT, info.size_bytes,
    )  # fmt: skip
    assert whole(catalog, dataset, tape)
    assert there == {"raw": COUNT, "tape": COUNT}


def test_bytes_that_are_not_of_the_upload_stay_where_they_are(
    catalog: Catalog, dataset: int, tape: StorageInfo, tmp_path: Path
) -> None:
    """Somebody's file lies where the upload would put one, and no row knows it."""
    place = Path(tape.url, "run-1/d0/f000")
    place.parent.mkdir(parents=True)
    place.write_text("of somebody else")
    info = transfer(catalog, ask(catalog, dataset, tape), tmp_path)
    assert info.state is UploadState.DONE
    assert place.read_text() == "of somebody else"
    assert whole(catalog, dataset, tape)


def test_of_the_longest_names_another_is_found_where_bytes_are_already(
    catalog: Catalog, storage: StorageInfo, tape: StorageInfo, tmp_path: Path
) -> None:
    name = "x" * 255
    Path(storage.url, name).write_text("ours")
    row = NewFileRow("raw", name, name, 4, f"adler32:{zlib.adler32(b'ours'):08x}")
    with catalog.write() as session:
        made = datasets.create(session, "run-2")
        ids = files.register(session, storage.id, [row])
        datasets.attach(session, made, [Member(ids[0], name)])
        datasets.close(session, made)
    place = Path(tape.url, "run-2", name)
    place.parent.mkdir(parents=True)
    place.write_text("of somebody else")
    assert transfer(catalog, ask(catalog, made, tape), tmp_path).state is UploadState.DONE
    assert place.read_text() == "of somebody else"
    (other,) = [path for path in place.parent.iterdir() if path != place]
    assert other.read_text() == "ours"


def strangers(tape: StorageInfo, text: str = "of another!") -> Path:
    """Somebody's file, which came to the place that an upload has reserved for d0/f000."""
    place = Path(tape.url, "run-1/d0/f000")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    return place


@pytest.mark.parametrize("text", ["of another, of another size", "D0/F000"])
def test_a_file_that_came_to_a_reserved_place_stays_there(
    catalog: Catalog, catalog_url: str, dataset: int, tape: StorageInfo, tmp_path: Path,
    text: str,
) -> None:  # fmt: skip
    upload = ask(catalog, dataset, tape)
    assert run(catalog_url, upload, tmp_path, "upload.reserved") == -signal.SIGKILL
    place = strangers(tape, text)
    assert transfer(catalog, upload, tmp_path).state is UploadState.DONE
    assert place.read_text() == text
    assert whole(catalog, dataset, tape)
    with catalog.read() as session:
        file_id = files.get(session, "raw", "d0/f000").id
        known = {r.path: r for r in files.all_replicas(session, file_id)}
        (there,) = [item for item in usage.of_storages(session) if item.storage == "tape"]
        told = [
            event.message for event in events.history(session, "replica", known["run-1/d0/f000"].id)
        ]
    assert known["run-1/d0/f000"].state is ReplicaState.DELETED
    assert any("they stay" in (message or "") for message in told)
    assert there.files == COUNT, "counted once"
    assert found(catalog, "tape") == 1, "it is dark, and told"


def test_a_folder_or_a_link_at_a_reserved_place_stays_there(
    catalog: Catalog, catalog_url: str, dataset: int, tape: StorageInfo, tmp_path: Path
) -> None:
    upload = ask(catalog, dataset, tape)
    assert run(catalog_url, upload, tmp_path, "upload.reserved") == -signal.SIGKILL
    place = strangers(tape)
    place.unlink()
    place.symlink_to("nowhere")
    folder = place.with_name("f002")
    folder.mkdir()
    assert transfer(catalog, upload, tmp_path).state is UploadState.DONE
    assert place.is_symlink() and folder.is_dir()
    assert whole(catalog, dataset, tape)


def test_a_place_to_which_others_always_come_is_told(
    catalog: Catalog, dataset: int, tape: StorageInfo, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Somebody makes a file at each place as soon as it is reserved; the rest isn't tried."""
    monkeypatch.setattr(transfers, "BATCH", 8)
    monkeypatch.setattr(transfers, "_MOST_LEFT", 5)
    put = LocalDriver.put

    def late(driver: LocalDriver, source: Path, path: str, **how: Any) -> Stored:
        if driver.name == "tape":
            place = Path(tape.url, path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text("of another")
        return put(driver, source, path, **how)

    monkeypatch.setattr(LocalDriver, "put", late)
    info = transfer(catalog, ask(catalog, dataset, tape), tmp_path)
    assert info.state is UploadState.FAILED and "find out who writes there" in (info.reason or "")
    there = [path for path in Path(tape.url).rglob("f*") if path.is_file()]
    assert {path.read_text() for path in there} == {"of another"}
    assert "8 files can't be copied, the rest was not tried" in (info.reason or "")


@pytest.mark.parametrize("again", [False, True])
def test_of_what_an_upload_left_only_its_own_bytes_go_with_the_dataset(
    catalog: Catalog, catalog_url: str, dataset: int, tape: StorageInfo, tmp_path: Path,
    again: bool,
) -> None:  # fmt: skip
    """Reserved, copied or not, and never noted; with `again` the deletion is killed, too."""
    upload = ask(catalog, dataset, tape)
    assert run(catalog_url, upload, tmp_path, "upload.copied") == -signal.SIGKILL
    other = Path(tape.url, "run-1/d0/f000")
    other.unlink()
    other.write_text("D0/F000")
    with catalog.write() as session:
        uploads.order(session, dataset, tape.id, cancel=True)
        deletion.mark(session, dataset, "a test")
        if again:
            found = removal.lock(session, col(Replica.storage_id) == tape.id)
            removal.doom(session, found, "a run that died")
    done = deletion.remove(catalog, dataset)
    assert [path for path in Path(tape.url).rglob("f*") if path.is_file()] == [other]
    assert other.read_text() == "D0/F000" and done.left == 1
    with catalog.read() as session:
        assert datasets.get(session, dataset).state is DatasetState.DELETED
        (row,) = [r for r in files.all_replicas(session, 1) if r.storage_id == tape.id]
        told = [event.message for event in events.history(session, "replica", row.id)]
    assert any("what lies there stays" in (message or "") for message in told)
