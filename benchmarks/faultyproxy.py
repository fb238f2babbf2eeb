"""A proxy before an S3 server that spoils some requests, as a busy server and a bad network do.

What is spoilt is drawn of a seed, the request and how often it came: whoever asks first, and
however many do, the same ones are. Nothing is ever delayed. As a program it ends when its standard
input does, and prints what it has spoilt.
"""

import argparse
import http.client
import json
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOST = "127.0.0.1"
_HOPS = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})


class Fault(StrEnum):
    """What becomes of a request."""

    BUSY = "503 SlowDown"
    ERROR = "500 InternalError"
    CUT = "cut before it is done"
    LOST = "done, and its answer lost"
    HALF = "done, and its answer cut"


Plan = Callable[[str, str, int], Fault | None]
"""What becomes of a request of that method and path, the how manieth it is; None: all is well."""


def drawn(seed: int, share: float) -> Plan:
    """A plan that spoils that share of all requests, each fault as often as the others."""

    def plan(method: str, path: str, number: int) -> Fault | None:
        lot = random.Random(f"{seed} {number} {method} {path}")
        return lot.choice(list(Fault)) if lot.random() < share else None

    return plan


class FaultyProxy(ThreadingHTTPServer):
    """Passes requests on to the server at `HOST:upstream`, but for what the plan spoils."""

    daemon_threads = True

    def __init__(self, upstream: int, plan: Plan) -> None:
        self.upstream, self.plan = upstream, plan
        self.asked = 0
        self.spoilt: Counter[Fault] = Counter()
        self._seen: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        super().__init__((HOST, 0), _Handler)

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{HOST}:{self.server_address[1]}"

    def next(self, method: str, path: str) -> Fault | None:
        """What becomes of the request that has just come."""
        with self._lock:
            self.asked += 1
            self._seen[method, path] += 1
            fault = self.plan(method, path, self._seen[method, path])
            if fault is not None:
                self.spoilt[fault] += 1
        return fault

    def handle_error(self, request: object, client_address: object) -> None:
        """Who is asked no more may leave."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client, with one of its own to the server."""

    server: FaultyProxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self._up = http.client.HTTPConnection(HOST, self.server.upstream, timeout=60)

    def finish(self) -> None:
        self._up.close()
        super().finish()

    def answer(self) -> None:
        """Pass a request on, or spoil it."""
        fault = self.server.next(self.command, self.path)
        if fault is Fault.CUT:
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if fault in (Fault.BUSY, Fault.ERROR):
            number, code = fault.split()
            text = f"<Error><Code>{code}</Code><Message>spoilt</Message></Error>".encode()
            self._send(int(number), [("Content-Type", "application/xml")], text, len(text))
            return
        status, headers, content = self._ask(body)
        if fault is Fault.LOST:
            self.close_connection = True
            return
        length = len(content)
        if self.command == "HEAD":
            length = int(next((v for k, v in headers if k.lower() == "content-length"), "0"))
        kept = [(name, value) for name, value in headers if name.lower() not in _HOPS]
        self._send(status, kept, content, length, half=fault is Fault.HALF)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        self._up.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            self._up.putheader(name, value)
        self._up.endheaders(body or None)
        with self._up.getresponse() as found:
            return found.status, found.getheaders(), found.read()

    def _send(
        self,
        status: int,
        headers: list[tuple[str, str]],
        content: bytes,
        length: int,
        *,
        half: bool = False,
    ) -> None:
        lines = [f"HTTP/1.1 {status} {http.client.responses.get(status, '')}"]
        lines += [f"{name}: {value}" for name, value in [*headers, ("Content-Length", str(length))]]
        whole = "\r\n".join([*lines, "", ""]).encode("latin-1")
        if self.command != "HEAD":
            whole += content
        if half:
            whole = whole[: len(whole) // 2]
            self.close_connection = True
        self.wfile.write(whole)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: there are many."""


@contextmanager
def before(upstream: int, plan: Plan) -> Iterator[FaultyProxy]:
    """A proxy in a thread of this process, while the block lasts."""
    with FaultyProxy(upstream, plan) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.05,), name="proxy")
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()


def main() -> None:
    """Print the port, then serve until standard input ends, then print what was spoilt as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("upstream", type=int, help="port of the server")
    parser.add_argument("seed", type=int)
    parser.add_argument("share", type=float, help="of all requests, from 0 to 1")
    given = parser.parse_args()
    with before(given.upstream, drawn(given.seed, given.share)) as proxy:
        print(proxy.server_address[1], flush=True)
        sys.stdin.read()
        told = {"asked": proxy.asked, **{str(what): n for what, n in proxy.spoilt.items()}}
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
