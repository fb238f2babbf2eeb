"""What an S3 server answers, and what that is for a storage: its code, and what it is about."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from pydantic import SecretStr

from catalog import tries
from catalog.drivers.protocol import ObjectInfo
from catalog.drivers.s3 import S3Driver, _utc
from catalog.drivers.s3client import Login
from catalog.errors import ErrorCode, StorageError
from catalog.names import MARKER
from catalog.settings import Settings

WHEN = datetime(2026, 12, 1, tzinfo=UTC)
NAME = "run 1/a?.raw"
MIB = 2**20


class Answering(ThreadingHTTPServer):
    """Answers all that is asked of its bucket's objects with one refusal."""

    status: int
    code: str
    has_bucket: bool
    body: str = ""
    """In place of a refusal."""
    has_object: bool = False
    """Whether one that is asked for alone is there."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/bucket/below"


class Handler(BaseHTTPRequestHandler):
    server: Answering

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        about_bucket = self.command == "HEAD" and self.path.strip("/") == "bucket"
        status = self.server.status
        if about_bucket:
            status = 200 if self.server.has_bucket else 404
        if self.command == "HEAD" and self.server.has_object:
            status = 200
        refusal = f"<Error><Code>{self.server.code}</Code><Message>no</Message></Error>"
        body = (self.server.body or refusal).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Last-Modified", "Tue, 01 Dec 2026 00:00:00 GMT")
        self.send_header("Content-Length", str(0 if about_bucket else len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Answering]:
    with Answering(("127.0.0.1", 0), Handler) as made:
        made.status, made.code, made.has_bucket = 403, "AccessDenied", True
        thread = Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def driver(server: Answering, monkeypatch: pytest.MonkeyPatch) -> S3Driver:
    monkeypatch.setattr(tries, "REQUEST", replace(tries.REQUEST, first_s=0.001, most_s=0.01))
    return S3Driver("buffer", server.url, Login("key", SecretStr("secret")), Settings())


MEANINGS = {
    "NoSuchKey": (404, ErrorCode.INPUT_MISSING),
    "NoSuchObject": (400, ErrorCode.INPUT_MISSING),
    "ResourceNotFound": (400, ErrorCode.INPUT_MISSING),
    "MethodNotAllowed": (405, ErrorCode.INPUT_MISSING),
    "NoSuchBucket": (404, ErrorCode.STORAGE_GONE),
    "AccessDenied": (403, ErrorCode.STORAGE_DENIED),
    "InvalidAccessKeyId": (400, ErrorCode.STORAGE_DENIED),
    "SignatureDoesNotMatch": (400, ErrorCode.STORAGE_DENIED),
    "AccountProblem": (400, ErrorCode.STORAGE_DENIED),
    "InvalidSecurity": (400, ErrorCode.STORAGE_DENIED),
    "ExpiredToken": (400, ErrorCode.STORAGE_DENIED),
    "InvalidToken": (400, ErrorCode.STORAGE_DENIED),
    "RequestTimeTooSkewed": (400, ErrorCode.STORAGE_DENIED),
    "Whatever": (401, ErrorCode.STORAGE_DENIED),
    "PreconditionFailed": (400, ErrorCode.OUTPUT_EXISTS),
    "ConditionalRequestConflict": (409, ErrorCode.OUTPUT_EXISTS),
    "SomethingElse": (412, ErrorCode.OUTPUT_EXISTS),
    "EntityTooLarge": (400, ErrorCode.OUTPUT_INVALID),
    "QuotaExceeded": (403, ErrorCode.STORAGE_FULL),
    "XMinioStorageFull": (400, ErrorCode.STORAGE_FULL),
    "InsufficientStorage": (400, ErrorCode.STORAGE_FULL),
    "XMinioAdminBucketQuotaExceeded": (400, ErrorCode.STORAGE_FULL),
    "ServiceQuotaExceededException": (400, ErrorCode.STORAGE_FULL),
    "Full": (507, ErrorCode.STORAGE_FULL),
    "Teapot": (418, ErrorCode.STORAGE_UNAVAILABLE),
    "Nothing": (404, ErrorCode.INPUT_MISSING),
    "Odd": (400, ErrorCode.STORAGE_UNAVAILABLE),
}


@pytest.mark.parametrize("code", MEANINGS)
def test_what_an_answer_means(server: Answering, driver: S3Driver, code: str) -> None:
    server.code = code
    server.status, meaning = MEANINGS[code]
    with pytest.raises(StorageError) as caught:
        driver.open(NAME)
    assert caught.value.code is meaning, str(caught.value)
    assert "'buffer'" in str(caught.value) and "'bucket'" in str(caught.value)
    if meaning is not ErrorCode.STORAGE_GONE:
        assert repr(NAME) in str(caught.value)
    if meaning is ErrorCode.STORAGE_DENIED:
        assert "SPDF_S3_ACCESS_KEY" in str(caught.value)
        assert "SPDF_S3_SECRET_KEY" in str(caught.value)
    assert caught.value.of_path == (
        meaning in (ErrorCode.STORAGE_DENIED, ErrorCode.STORAGE_UNAVAILABLE)
    )


def test_an_object_that_is_missing_with_its_bucket_is_the_storages_trouble(
    server: Answering, driver: S3Driver
) -> None:
    server.status, server.code, server.has_bucket = 404, "NoSuchKey", False
    with pytest.raises(StorageError) as caught:
        driver.open(NAME)
    assert caught.value.code is ErrorCode.STORAGE_GONE


def stored(driver: S3Driver, folder: Path) -> object:
    (folder / "a").write_bytes(b"content")
    return driver.put(folder / "a", NAME)


ASKED: dict[str, Callable[[S3Driver, Path], object]] = {
    "open": lambda driver, _: driver.open(NAME),
    "get": lambda driver, folder: driver.get(NAME, folder / "b"),
    "put": stored,
    "stat": lambda driver, _: driver.stat(NAME),
    "checksum": lambda driver, _: driver.checksum(NAME, "sha256"),
    "delete": lambda driver, _: driver.delete(NAME),
    "delete unseen": lambda driver, _: thrown(driver.delete_many([NAME])),
    "delete seen": lambda driver, _: thrown(
        driver.delete_many([NAME], {NAME: ObjectInfo(NAME, 1, WHEN)})
    ),
    "marker": lambda driver, _: driver.read_marker(),
    "inner marker": lambda driver, _: driver.read_marker(NAME),
    "new marker": lambda driver, _: driver.write_marker(b"mark"),
}


def thrown(faults: dict[str, StorageError]) -> None:
    assert list(faults) == [NAME]
    raise faults[NAME]


@pytest.mark.parametrize("what", ["delete", "delete seen"])
def test_a_deletion_that_is_refused_of_what_is_there_names_it(
    server: Answering, driver: S3Driver, what: str
) -> None:
    server.has_object = True
    seen = driver.stat(NAME)
    with pytest.raises(StorageError) as caught:
        if what == "delete":
            driver.delete(NAME)
        else:
            thrown(driver.delete_many([NAME], {NAME: seen}))
    assert caught.value.code is ErrorCode.STORAGE_DENIED and repr(NAME) in str(caught.value)


@pytest.mark.parametrize("what", ASKED)
def test_every_refusal_names_what_was_asked_for(
    driver: S3Driver, tmp_path: Path, what: str
) -> None:
    with pytest.raises(StorageError) as caught:
        ASKED[what](driver, tmp_path)
    assert caught.value.code is ErrorCode.STORAGE_DENIED
    about = MARKER if what.endswith("marker") else NAME
    assert repr(about if what != "inner marker" else f"{NAME}/{MARKER}") in str(caught.value)


@pytest.mark.parametrize(
    ("code", "meaning"),
    [("AccessDenied", ErrorCode.STORAGE_DENIED), ("InternalError", ErrorCode.STORAGE_FAILED)],
)
@pytest.mark.parametrize("named", [True, False])
def test_what_a_server_would_not_delete_of_many_says_why(
    server: Answering, driver: S3Driver, code: str, meaning: ErrorCode, named: bool
) -> None:
    key = "below/b" if named else ""
    server.status = 200
    server.body = (
        f"<DeleteResult><Error><Key>{key}</Key><Code>{code}</Code>"
        "<Message>not now</Message></Error></DeleteResult>"
    )
    faults = driver.delete_many(["a", "b"])
    assert sorted(faults) == (["b"] if named else ["a", "b"])
    for fault in faults.values():
        assert fault.code is meaning
        where = server.url.split("/")[2]
        told = f"storage 'buffer': {where} removes nothing ({code}: not now); it is tried again."
        assert str(fault) == told


@pytest.mark.parametrize(
    ("size", "part"),
    [(0, 8), (10_000 * 8 * MIB, 8), (10_000 * 8 * MIB + 1, 9), (5 * 2**40, 525)],
)
def test_parts_are_whole_mebibytes_and_at_most_ten_thousand(
    server: Answering, size: int, part: int
) -> None:
    settings = Settings(s3_part_bytes=8 * MIB)
    driver = S3Driver("buffer", server.url, Login("key", SecretStr("secret")), settings)
    found = driver._part_bytes(size)
    assert (found, type(found)) == (part * MIB, int)
    assert -(-size // found) <= 10_000


def test_times_are_in_utc_and_within_the_years_that_are_known() -> None:
    there = datetime(2026, 12, 1, 3, tzinfo=timezone(timedelta(hours=3)))
    assert _utc(there) == WHEN and _utc(there).tzinfo is UTC
    assert _utc(datetime.max.replace(tzinfo=timezone(timedelta(hours=-3)))).year == 9999
    assert _utc(datetime.min.replace(tzinfo=timezone(timedelta(hours=3)))).year == 1
    assert _utc(None).year == 1970
