"""A real S3 server behind a proxy that spoils requests: each fault by itself, and all by a seed."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from benchmarks.faultyproxy import Fault, FaultyProxy, Plan, before, drawn
from catalog import datasets, deletion, intake, storages, transfers, tries, uploads
from catalog.checksums import file_checksum
from catalog.db import Catalog
from catalog.drivers import driver_for
from catalog.drivers.s3 import S3Driver
from catalog.drivers.s3client import login_of
from catalog.errors import ErrorCode, OtherBytes, StorageError
from catalog.inspection.scan import Options, inspect
from catalog.models import StorageKind, StorageRole
from catalog.settings import Settings
from catalog.states import InspectionState, UploadState
from catalog.verification import verify_dataset
from cli.copies import fetch_dataset
from tests.servers.rgw import S3Server

pytestmark = [pytest.mark.xdist_group("s3"), pytest.mark.usefixtures("s3_logins")]

MIB = 2**20
FILES = 30


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tries, "REQUEST", replace(tries.REQUEST, first_s=0.01, most_s=0.5))
    monkeypatch.setenv("SPDF_S3_PART_BYTES", str(5 * MIB))


@pytest.fixture
def settings(s3_server: S3Server, tmp_path: Path) -> Settings:
    return s3_server.settings(tmp_path)


@pytest.fixture
def bucket(s3_server: S3Server, tmp_path: Path) -> str:
    """Its name."""
    return urlsplit(s3_server.bucket(tmp_path)).path.strip("/")


@pytest.fixture
def spoilt(
    s3_server: S3Server, settings: Settings, bucket: str
) -> Callable[..., "Iterator[tuple[S3Driver, FaultyProxy]]"]:
    """A driver whose requests are spoilt by a plan."""

    @contextmanager
    def make(plan: Plan) -> Iterator[tuple[S3Driver, FaultyProxy]]:
        with before(s3_server.store.port, plan) as proxy:
            url = f"{proxy.url}/{bucket}"
            yield S3Driver("buffer", url, login_of(settings, "buffer"), settings), proxy

    return make


def once(fault: Fault, *methods: str) -> Plan:
    """Spoil the first request of those methods, for each path (a query is no part of it)."""
    seen: set[tuple[str, str]] = set()

    def plan(method: str, path: str, _number: int) -> Fault | None:
        key = method, path.partition("?")[0]
        if method not in methods or key in seen:
            return None
        seen.add(key)
        return fault

    return plan


def write(folder: Path, size: int) -> Path:
    path = folder / "source"
    path.write_bytes(os.urandom(size))
    return path


@pytest.mark.parametrize("size", [100, 6 * MIB])
@pytest.mark.parametrize("fault", Fault)
def test_each_verb_is_tried_again_after_each_fault(
    spoilt: Callable[..., "Iterator[tuple[S3Driver, FaultyProxy]]"],
    tmp_path: Path, fault: Fault, size: int,
) -> None:  # fmt: skip
    """Each first request for a path: put in one or in parts, looked at, read, listed, removed."""
    source = write(tmp_path, size)
    alone = ("PUT", "POST") if size > MIB else ("PUT", "POST", "HEAD", "GET", "DELETE")
    for number, methods in enumerate([*((method,) for method in alone), ("PUT", "POST", "GET")]):
        with spoilt(once(fault, *methods)) as (driver, proxy):
            path = f"{number}/x"
            stored = driver.put(source, path, checksum="sha256")
            assert stored.checksum == file_checksum(source, "sha256")
            assert driver.stat(path).size_bytes == size
            assert driver.checksum(path, "sha256") == stored.checksum
            assert driver.get(path, tmp_path / f"b{number}", checksum="sha256") == stored.checksum
            with driver.open(path) as stream:
                assert stream.read() == source.read_bytes()
            assert [found.path for found in driver.list(f"{number}/")] == [path]
            assert driver.read_marker() is None
            assert driver.delete_many([path]) == {}
            driver.put(source, path)
            assert driver.delete(path)
            assert proxy.spoilt[fault] > 0
            assert list(driver.list()) == []


@pytest.mark.parametrize("size", [100, 6 * MIB])
def test_an_object_of_another_is_not_taken_for_the_one_whose_answer_was_lost(
    spoilt: Callable[..., "Iterator[tuple[S3Driver, FaultyProxy]]"], tmp_path: Path, size: int
) -> None:
    source = write(tmp_path, size)
    other = tmp_path / "other"
    other.write_bytes(os.urandom(size))
    with spoilt(lambda *_: None) as (driver, _proxy):
        driver.put(other, "x")
    with spoilt(once(Fault.CUT, "PUT", "POST")) as (driver, proxy):
        with pytest.raises(StorageError) as caught:
            driver.put(source, "x", move=True)
        assert caught.value.code is ErrorCode.OUTPUT_EXISTS
        assert size > MIB or proxy.spoilt[Fault.CUT] == 1
        assert driver.checksum("x", "sha256") == file_checksum(other, "sha256")
    assert source.exists()


def test_an_object_that_came_while_a_removal_waited_stays(
    spoilt: Callable[..., "Iterator[tuple[S3Driver, FaultyProxy]]"], tmp_path: Path
) -> None:
    """Each try looks anew: what was seen before the first one is another's by the second."""
    source, new = tmp_path / "source", tmp_path / "new"
    source.write_bytes(b"old")
    new.write_bytes(b"newer")
    with spoilt(lambda *_: None) as (well, _):
        well.put(source, "x")
        well.put(source, "y")
        seen = {path: well.stat(path) for path in "xy"}

        def meanwhile(method: str, path: str, number: int) -> Fault | None:
            if method != "DELETE" or number > 1:
                return None
            if path.endswith("/x"):
                assert well.delete("x")
                well.put(new, "x")
            return Fault.BUSY

        with spoilt(meanwhile) as (driver, proxy):
            faults = driver.delete_many(["x", "y"], seen)
        assert proxy.spoilt == {Fault.BUSY: 2}
        assert list(faults) == ["x"] and isinstance(faults["x"], OtherBytes)
        assert well.checksum("x", "sha256") == file_checksum(new, "sha256")
        assert [found.path for found in well.list()] == ["x"], "y went at its second try"


def test_a_marker_whose_answer_was_lost_is_written(
    spoilt: Callable[..., "Iterator[tuple[S3Driver, FaultyProxy]]"],
) -> None:
    with spoilt(once(Fault.LOST, "PUT")) as (driver, proxy):
        driver.write_marker(b"first")
        assert proxy.spoilt[Fault.LOST] == 1
    with spoilt(once(Fault.LOST, "PUT")) as (driver, proxy):
        driver.write_marker(b"second", before=b"first")
        assert proxy.spoilt[Fault.LOST] == 1
        assert driver.read_marker() == b"second"
        with pytest.raises(StorageError) as caught:
            driver.write_marker(b"third", before=b"first")
        assert caught.value.code is ErrorCode.OUTPUT_EXISTS


def test_errands_end_right_at_a_third_of_faults(
    catalog: Catalog, s3_server: S3Server, bucket: str, tmp_path: Path
) -> None:
    """A dataset is uploaded, verified, inspected, fetched and deleted; nothing fails, or stays."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for number in range(FILES):
        (folder / f"f{number:03}").write_bytes(os.urandom(100 + number))
    (folder / "large").write_bytes(os.urandom(12 * MIB))
    with before(s3_server.store.port, drawn(7, 0.3)) as proxy:
        with catalog.write() as session:
            raw = storages.add(session, "raw", StorageKind.LOCAL, StorageRole.INPUT, str(folder))
            place = storages.add(
                session, "tape", StorageKind.S3, StorageRole.OUTPUT, f"{proxy.url}/{bucket}"
            )
            made = datasets.create(session, "run-1")
        measured = intake.measure(sorted(folder.glob("[fl]*")), [raw])
        with catalog.write() as session:
            intake.add(session, made, measured)
            datasets.close(session, made)
            upload = uploads.ask(session, made, place.id)
        info = transfers.transfer(catalog, upload, tmp_path / "scratch")
        assert (info.state, info.files_done) == (UploadState.DONE, FILES + 1), info.reason
        assert verify_dataset(catalog, made) == []
        look = inspect(catalog, place.id, Options(100.0, 0.0))
        assert (look.state, look.found, look.reason) == (InspectionState.DONE, 0, None)
        for path in folder.glob("[fl]*"):
            path.rename(tmp_path / path.name)
        done = list(fetch_dataset(catalog, made, tmp_path / "got"))
        assert [one.fault for one in done] == [None] * (FILES + 1)
        for one in done:
            assert one.path.read_bytes() == (tmp_path / one.member.name).read_bytes()
        with catalog.write() as session:
            assert deletion.mark(session, made, "a test")
        assert deletion.remove(catalog, made).faults == ()
        assert list(driver_for(place).list()) == []
        assert sum(proxy.spoilt.values()) > proxy.asked / 5
