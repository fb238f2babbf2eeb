"""The client of an S3 server, before one that refuses for a moment, as a busy one does."""

from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from threading import Thread

import pytest
from pydantic import SecretStr

from catalog import tries
from catalog.drivers.s3 import S3Driver
from catalog.drivers.s3client import Login, connect
from catalog.drivers.s3pool import GaveUp
from catalog.errors import ErrorCode, StorageError
from catalog.places import place_of
from catalog.settings import Settings
from tests.servers.postgres import free_port

BODY = b"content"
REFUSALS = 2
SLOW = b"<Error><Code>SlowDown</Code><Message>later</Message></Error>"
LOGIN = Login("key", SecretStr("secret"))


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
        body = SLOW if is_busy else BODY
        self.send_response(503 if is_busy else 200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", "Tue, 01 Dec 2026 00:00:00 GMT")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = answer

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Busy]:
    monkeypatch.setattr(tries, "REQUEST", replace(tries.REQUEST, tries=4, first_s=0.001))
    with Busy(("127.0.0.1", 0), Handler) as server:
        server.asked = []
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_what_reads_is_asked_again_of_a_busy_server(busy: Busy) -> None:
    client = connect(place_of(busy.url), LOGIN, Settings())
    assert client.get_object("bucket", "x").read() == BODY
    assert busy.asked == ["GET"] * (REFUSALS + 1)
    busy.asked.clear()
    assert client.stat_object("bucket", "x").size == len(BODY)
    assert busy.asked == ["HEAD"] * (REFUSALS + 1)


def test_what_writes_is_sent_again_and_tells_that_it_may_have_been_done(busy: Busy) -> None:
    driver = S3Driver("buffer", busy.url, LOGIN, Settings())
    driver._pool.begin()
    assert not driver._pool.is_unsure
    driver._client.put_object("bucket", "x", BytesIO(BODY), len(BODY))
    assert busy.asked == ["PUT"] * (REFUSALS + 1)
    assert driver._pool.is_unsure
    driver._pool.begin()
    driver._client.put_object("bucket", "x", BytesIO(BODY), len(BODY))
    assert not driver._pool.is_unsure


def test_a_server_that_stays_busy_is_asked_so_often_and_no_more(busy: Busy) -> None:
    busy.refusals = 100
    client = connect(place_of(busy.url), LOGIN, Settings())
    with pytest.raises(GaveUp, match="answered 503 SlowDown 4 times"):
        client.get_object("bucket", "x")
    assert busy.asked == ["GET"] * 4


def test_no_try_begins_after_the_time_for_them(busy: Busy, monkeypatch: pytest.MonkeyPatch) -> None:
    busy.refusals = 100
    monkeypatch.setattr(tries, "REQUEST", replace(tries.REQUEST, limit_s=0.0))
    client = connect(place_of(busy.url), LOGIN, Settings())
    with pytest.raises(GaveUp):
        client.get_object("bucket", "x")
    assert busy.asked == ["GET"]


@pytest.mark.parametrize("asked", ["0", "1", "soon"])
def test_a_server_may_say_how_long_to_wait(
    busy: Busy, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(tries, "pause", waits.append)
    send = Handler.send_header

    def also(handler: Handler, name: str, value: str) -> None:
        send(handler, name, value)
        if name == "Content-Type":
            send(handler, "Retry-After", asked)

    monkeypatch.setattr(Handler, "send_header", also)
    connect(place_of(busy.url), LOGIN, Settings()).stat_object("bucket", "x")
    assert len(waits) == REFUSALS
    assert all((wait == 1.0) if asked == "1" else wait < 0.01 for wait in waits)


def test_the_sentence_says_what_was_answered(busy: Busy) -> None:
    busy.refusals = 100
    driver = S3Driver("buffer", busy.url, LOGIN, Settings())
    with pytest.raises(StorageError) as caught:
        driver.open("x")
    assert caught.value.code is ErrorCode.STORAGE_UNAVAILABLE
    assert "answered 503 SlowDown 4 times (4 tries in" in str(caught.value)
    with pytest.raises(StorageError, match="answered 503 4 times"):
        driver.stat("x")


def test_only_a_server_that_is_not_there_is_said_to_take_no_connection(busy: Busy) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}/bucket"
    with pytest.raises(StorageError, match=r"takes no connection .* check that it runs"):
        S3Driver("buffer", nowhere, LOGIN, Settings()).stat("x")


@pytest.mark.parametrize("end", [5, 17, 40, 67])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_an_answer_whose_head_was_cut_is_none(
    busy: Busy, monkeypatch: pytest.MonkeyPatch, method: str, end: int
) -> None:
    """Else an object would have no bytes whose length was in the part that is lost."""
    cut = 0

    def answer(handler: Handler) -> None:
        nonlocal cut
        cut += 1
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: 7\r\n\r\n"
        handler.close_connection = True
        handler.wfile.write(head[:end] if cut < 3 else head)
        if cut >= 3 and method != "HEAD":
            handler.wfile.write(BODY)

    monkeypatch.setattr(Handler, f"do_{method}", answer)
    pool = connect(place_of(busy.url), LOGIN, Settings())._http
    found = pool.urlopen(method, f"{busy.url}/x", body=b"")
    assert (cut, found.headers["Content-Length"]) == (3, "7")
