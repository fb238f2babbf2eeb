"""Connections to an S3 server, on which an answer whose head was cut is no answer.

Python's own takes the end of the stream for the end of the head: of an object whose length was in
the part that is lost it would say that it has no bytes.
"""

import http.client
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool


class _Head:
    """The lines of a head, each of which has its end."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.close, self.flush = stream.close, stream.flush

    def readline(self, limit: int) -> bytes:
        """The next one; raises `RemoteDisconnected` where it was cut."""
        line: bytes = self._stream.readline(limit)
        if len(line) < limit and not line.endswith(b"\n"):
            raise http.client.RemoteDisconnected("the head of an answer was cut")
        return line


class _Answer(http.client.HTTPResponse):
    def begin(self) -> None:
        """As that of the base, with a head that is whole."""
        stream: Any = self.fp
        head: Any = _Head(stream)
        self.fp = head
        try:
            super().begin()
        finally:
            if self.fp is head:
                self.fp = stream


class _Connection(HTTPConnection):
    response_class = _Answer


class _SecureConnection(HTTPSConnection):
    response_class = _Answer


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


POOLS = {"http": _Pool, "https": _SecurePool}
"""What a pool manager makes connections by."""
