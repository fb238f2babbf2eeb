"""Markers of storages on a real S3 server: a bucket that isn't what it was, and its other names."""

import json
import zlib
from pathlib import Path

import pytest

from catalog import datasets, deletion, files, siting, standing, storages
from catalog.datasets import Member
from catalog.db import Catalog
from catalog.drivers import driver_for
from catalog.drivers.s3 import S3Driver
from catalog.errors import Conflict, ErrorCode, StorageError
from catalog.files import NewFileRow
from catalog.inspection.scan import Options, inspect
from catalog.names import MARKER
from catalog.refs import StorageInfo, StorageKind, StorageRole
from catalog.standing import Standing
from catalog.states import DatasetState, InspectionState
from tests.servers.rgw import S3Server

pytestmark = [pytest.mark.xdist_group("s3"), pytest.mark.usefixtures("s3_logins")]

FULL = Options(sample_percent=100.0, grace_s=0.0)


@pytest.fixture
def url(s3_server: S3Server, tmp_path: Path) -> str:
    return f"{s3_server.bucket(tmp_path)}/below"


@pytest.fixture
def bucket(catalog: Catalog, url: str) -> StorageInfo:
    """A storage below a prefix of a bucket, with its marker."""
    with catalog.write() as session:
        made = storages.add(session, "bucket", StorageKind.S3, StorageRole.OUTPUT, url)
    return standing.mark(catalog, made.id).storage


@pytest.fixture
def dataset(catalog: Catalog, bucket: StorageInfo, tmp_path: Path) -> int:
    rows = []
    for name in ("a", "run/b"):
        (tmp_path / "passing").write_text(name)
        driver_for(bucket).put(tmp_path / "passing", name)
        checksum = f"adler32:{zlib.adler32(name.encode()):08x}"
        rows.append(NewFileRow("bucket", name, name, len(name), checksum))
    with catalog.write() as session:
        made = datasets.create(session, "run-1")
        ids = files.register(session, bucket.id, rows, in_place=False)
        datasets.attach(session, made, [Member(i, r.name) for i, r in zip(ids, rows, strict=True)])
        datasets.close(session, made)
        deletion.mark(session, made, "a test")
    return made


def client_of(info: StorageInfo) -> S3Driver:
    driver = driver_for(info)
    assert isinstance(driver, S3Driver)
    return driver


def empty(info: StorageInfo) -> None:
    """Make the bucket anew, empty."""
    driver = client_of(info)
    name = driver._place.bucket
    for found in list(driver._client.list_objects(name, recursive=True)):
        driver._client.remove_object(name, str(found.object_name))
    driver._client.remove_bucket(name)
    driver._client.make_bucket(name)


def test_a_marker_is_written_once_and_claims_come_beside(
    catalog: Catalog, bucket: StorageInfo
) -> None:
    driver = driver_for(bucket)
    text = driver.read_marker()
    assert text is not None and json.loads(text)["storage"] == bucket.identity
    assert [info.path for info in driver.list()] == []
    with pytest.raises(StorageError) as caught:
        driver.write_marker(b"another")
    assert caught.value.code is ErrorCode.OUTPUT_EXISTS
    with pytest.raises(StorageError) as caught:
        driver.write_marker(b"another", before=b"what it never said")
    assert caught.value.code is ErrorCode.OUTPUT_EXISTS
    driver.write_marker(text + b"\n", before=text)
    assert driver.read_marker() == text + b"\n"
    assert driver.read_marker("run") is None


def test_nothing_is_concluded_about_a_bucket_that_was_made_anew(
    catalog: Catalog, bucket: StorageInfo, dataset: int, tmp_path: Path
) -> None:
    writer = driver_for(bucket)
    writer.check()
    empty(bucket)
    assert standing.look(bucket).standing is Standing.AWAY
    info = inspect(catalog, bucket.id, FULL)
    assert (info.state, info.missing) == (InspectionState.FAILED, 0)
    done = deletion.remove(catalog, dataset)
    assert done.copies == 0 and "is not what it was" in done.faults[0]
    with catalog.read() as session:
        assert datasets.get(session, dataset).state is DatasetState.DELETING
    for call in (
        lambda: writer.stat("a"),
        lambda: writer.checksum("a", "adler32"),
        lambda: writer.get("a", tmp_path / "got"),
        lambda: list(writer.list()),
        lambda: driver_for(bucket).put(tmp_path / "passing", "c"),
    ):
        with pytest.raises(StorageError) as caught:
            call()
        assert caught.value.code is ErrorCode.STORAGE_UNAVAILABLE
    assert set(writer.delete_many(["a"])) == {"a"}


def test_what_is_really_gone_from_a_bucket_is_told(
    catalog: Catalog, bucket: StorageInfo, dataset: int
) -> None:
    driver = client_of(bucket)
    driver._client.remove_object(driver._place.bucket, driver._key("a"))
    with pytest.raises(StorageError) as caught:
        driver.stat("a")
    assert caught.value.code is ErrorCode.INPUT_MISSING
    assert deletion.remove(catalog, dataset).copies == 2


def test_another_name_of_the_server_is_known_by_the_marker(
    catalog: Catalog, bucket: StorageInfo, url: str
) -> None:
    assert "127.0.0.1" in url
    other = url.replace("127.0.0.1", "localhost")
    root = other.removesuffix("/below")
    for place in (other, f"{other}/deep/er", root):
        new = StorageInfo(0, "other", StorageKind.S3, StorageRole.INPUT, place)
        with pytest.raises(Conflict):
            siting.refuse_taken(catalog, new)
        # As where the name of the server can't be looked up.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(storages, "refuse_overlap", lambda *_args, **_how: None)
            with pytest.raises(Conflict, match=f"by the marker {MARKER} that lies there"):
                siting.refuse_taken(catalog, new)
    free = StorageInfo(0, "other", StorageKind.S3, StorageRole.INPUT, f"{root}/free")
    siting.refuse_taken(catalog, free)
