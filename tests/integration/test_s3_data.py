"""Data on a real S3 server: watched, uploaded to and from, deleted and inspected."""

import os
from pathlib import Path

import pytest

from catalog import datasets, deletion, intakerules, manifests, storages, transfers, uploads
from catalog.db import Catalog
from catalog.drivers import driver_for
from catalog.inspection.scan import Options, inspect
from catalog.inspection.settle import Settled, settle
from catalog.intakerules import Rule
from catalog.models import StorageKind, StorageRole
from catalog.refs import Originals
from catalog.states import DatasetState, InspectionState, UploadState
from catalog.storages import StorageInfo
from flows.intake.watch import Watch
from tests.processing import close_due, do_all
from tests.servers.rgw import S3Server

pytestmark = [pytest.mark.xdist_group("s3"), pytest.mark.usefixtures("s3_logins")]

MANY = 1100
"""More than a page of S3's listing."""
LOOK = Options(sample_percent=100.0, grace_s=0.0, limit_percent=100.0)


@pytest.fixture
def bucket(catalog: Catalog, s3_server: S3Server, tmp_path: Path) -> StorageInfo:
    """A storage below a prefix of a bucket."""
    with catalog.write() as session:
        url = f"{s3_server.bucket(tmp_path)}/below"
        return storages.add(session, "bucket", StorageKind.S3, StorageRole.INPUT, url)


@pytest.fixture
def disk(catalog: Catalog, tmp_path: Path) -> StorageInfo:
    with catalog.write() as session:
        place = str(tmp_path / "disk")
        return storages.add(session, "disk", StorageKind.LOCAL, StorageRole.OUTPUT, place)


def put(storage: StorageInfo, tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / "passing"
    path.write_bytes(content)
    driver_for(storage).put(path, name)


def watched(catalog: Catalog, tmp_path: Path, bucket: StorageInfo, count: int) -> dict[str, bytes]:
    """A run of objects, taken in by a rule and closed by its marker; content by name."""
    contents = {f"run-1/f{i:04}.raw": os.urandom(20 + i % 7) for i in range(count)}
    for name, content in contents.items():
        put(bucket, tmp_path, name, content)
    put(bucket, tmp_path, "run-1/END", b"")
    rule = Rule("s3", "bucket", r"(?P<run>run-\d)/.*\.raw", "{run}", "run-",
                r"(?P<run>run-\d)/END")  # fmt: skip
    with catalog.write() as session:
        watch = Watch(intakerules.add(session, rule), catalog)
    for _ in range(3):
        watch.turn()
        do_all(catalog)
        close_due(catalog)
    return contents


def test_a_watched_bucket_of_several_pages_becomes_a_dataset(
    catalog: Catalog, bucket: StorageInfo, tmp_path: Path
) -> None:
    contents = watched(catalog, tmp_path, bucket, MANY)
    with catalog.read() as session:
        info = datasets.by_name(session, "run-1")
        members = {m.name: m.size_bytes for m in manifests.all_members(session, info.id)}
    assert info.state is DatasetState.CLOSED
    assert members == {name: len(content) for name, content in contents.items()}
    assert inspect(catalog, bucket.id, LOOK).found == 0


def test_datasets_go_from_s3_to_a_disk_and_back_to_s3(
    catalog: Catalog, bucket: StorageInfo, disk: StorageInfo, tmp_path: Path, s3_server: S3Server
) -> None:
    contents = watched(catalog, tmp_path, bucket, 5)
    (tmp_path / "other").mkdir()
    with catalog.write() as session:
        url = s3_server.bucket(tmp_path / "other")
        tape = storages.add(session, "tape", StorageKind.S3, StorageRole.OUTPUT, url)
        run = datasets.by_name(session, "run-1").id
    for target in (disk, tape):
        with catalog.write() as session:
            upload = uploads.ask(session, run, target.id)
        info = transfers.transfer(catalog, upload, tmp_path / "scratch")
        assert info.state is UploadState.DONE, info.reason
        for name, content in contents.items():
            with driver_for(target).open(f"run-1/{name}") as stream:
                assert stream.read() == content
    assert list((tmp_path / "scratch").iterdir()) == []
    with catalog.write() as session:
        assert deletion.mark(session, run, "a test", by=Originals.BY_WORD)
    assert deletion.remove(catalog, run).faults == ()
    for storage in (bucket, disk, tape):
        left = {found.path for found in driver_for(storage).list()}
        assert left <= {"run-1/END"}


def test_an_object_that_came_to_a_reserved_place_stays_there(
    catalog: Catalog, bucket: StorageInfo, tmp_path: Path, s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Somebody's object comes between the reservation and the copy, and the dataset is deleted."""
    contents = watched(catalog, tmp_path, bucket, 3)
    with catalog.write() as session:
        url = s3_server.bucket(tmp_path)
        tape = storages.add(session, "tape", StorageKind.S3, StorageRole.OUTPUT, url)
        made = datasets.by_name(session, "run-1").id
        upload = uploads.ask(session, made, tape.id)
    name = min(contents)

    def reach(point: str) -> None:
        if point == "upload.reserved":
            put(tape, tmp_path, f"run-1/{name}", contents[name].swapcase()[::-1])

    monkeypatch.setattr(transfers, "reach", reach)
    info = transfers.transfer(catalog, upload, tmp_path / "scratch")
    assert info.state is UploadState.DONE
    driver = driver_for(tape)
    assert driver.open(f"run-1/{name}").read() == contents[name].swapcase()[::-1]
    with catalog.read() as session:
        members = list(manifests.all_members(session, made))
    for member in members:
        (place,) = [place for place in member.replicas if place.storage_id == tape.id]
        assert driver.open(place.path).read() == contents[member.name]
    with catalog.write() as session:
        deletion.mark(session, made, "a test")
    deletion.remove(catalog, made)
    assert [item.path for item in driver.list()] == [f"run-1/{name}"]


def test_faults_in_a_bucket_are_found_and_settled(
    catalog: Catalog, bucket: StorageInfo, tmp_path: Path
) -> None:
    watched(catalog, tmp_path, bucket, 6)
    driver = driver_for(bucket)
    driver.delete("run-1/f0000.raw")
    driver.delete("run-1/f0001.raw")
    put(bucket, tmp_path, "run-1/f0001.raw", b"other bytes altogether, and longer")
    put(bucket, tmp_path, "stray", b"dark")
    info = inspect(catalog, bucket.id, LOOK)
    assert info.state is InspectionState.DONE
    assert (info.missing, info.corrupt, info.dark) == (1, 1, 1)
    done = settle(catalog, bucket.id, remove_dark=True)
    assert done == Settled(marked=2, quarantined=1, removed=1)
    assert "stray" not in {found.path for found in driver.list()}
