"""The client of an S3 server, before one that refuses for a moment, as a busy one does."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from threading import Thread

import pytest
from minio.error import MinioException
from pydantic import SecretStr

from catalog.drivers.s3client import Login, connect
from catalog.places import place_of
from catalog.settings import Settings

BODY = b"content"
REFUSALS = 2


class Busy(ThreadingHTTPServer):
    """Answers 503 so many times before it serves the one object."""

    asked: list[str]
    refusals = REFUSALS

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/bucket"


class Handler(BaseHTTPRequestHandler):
    server: Busy

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append(self.command)
        is_busy = len(self.server.asked) <= self.server.refusals
        body = b"" if is_busy else BODY
        self.send_response(503 if is_busy else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", "Tue, 01 Dec 2026 00:00:00 GMT")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = answer

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def busy() -> Iterator[Busy]:
    with Busy(("127.0.0.1", 0), Handler) as server:
        server.asked = []
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_what_only_reads_is_asked_again_of_a_busy_server(busy: Busy) -> None:
    client = connect(place_of(busy.url), Login("key", SecretStr("secret")), Settings())
    assert client.get_object("bucket", "x").read() == BODY
    assert busy.asked == ["GET"] * (REFUSALS + 1)
    busy.asked.clear()
    assert client.stat_object("bucket", "x").size == len(BODY)
    assert busy.asked == ["HEAD"] * (REFUSALS + 1)


def test_a_server_that_stays_busy_is_asked_four_times(busy: Busy) -> None:
    busy.refusals = 100
    client = connect(place_of(busy.url), Login("key", SecretStr("secret")), Settings())
    with pytest.raises(MinioException):
        client.get_object("bucket", "x")
    assert busy.asked == ["GET"] * 4


def test_what_writes_is_not_asked_again_by_the_client(busy: Busy) -> None:
    """Its answer may be lost, and the object be there: who asked looks."""
    client = connect(place_of(busy.url), Login("key", SecretStr("secret")), Settings())
    with pytest.raises(MinioException):
        client.put_object("bucket", "x", BytesIO(BODY), len(BODY))
    assert busy.asked == ["PUT"]
