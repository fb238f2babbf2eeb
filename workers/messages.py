"""Messages between the processes of a pilot: whole objects, each read by one of many readers."""

import errno
import os
import pickle
import secrets
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

_MOST = 64 * 1024
"""Bytes of a message that goes through the socket itself; a longer one goes by a file."""
_BUFFER = 1 << 20
_HERE, _IN_FILE = b"=", b"@"


class NotWritten(OSError):
    """A long message could not be laid on the node's disk: nothing of it was sent."""


class Channel:
    """One end of a connection. `directory` is for messages that are long.

    Processes that share an end share its messages: each is read by one of them. Only what the
    processes of one pilot send is read: nobody else has the other end.
    """

    def __init__(self, end: socket.socket, directory: Path) -> None:
        self.socket = end
        self._directory = directory

    def send(self, message: object, *, wait: bool = True) -> None:
        """Send one object.

        Raises `BlockingIOError` without `wait`, `NotWritten`, `ConnectionError` once nobody reads.
        """
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        path = None
        if len(data) < _MOST:
            data = _HERE + data
        else:
            path = self._directory / f"message-{secrets.token_hex(8)}"
            _write(path, data)
            data = _IN_FILE + os.fsencode(path)
        try:
            self.socket.send(data, 0 if wait else socket.MSG_DONTWAIT)
        except OSError:
            if path is not None:
                _remove(path)
            raise

    def receive(self, *, wait: bool = True) -> Any:
        """The next object.

        Raises `EOFError` once all writers are gone, `BlockingIOError` without `wait`, and `OSError`
        where a long message can't be read: it is lost.
        """
        data = self.socket.recv(_MOST + 1, 0 if wait else socket.MSG_DONTWAIT)
        if not data:
            raise EOFError
        if data[:1] == _HERE:
            return pickle.loads(memoryview(data)[1:])  # noqa: S301
        path = Path(os.fsdecode(data[1:]))
        try:
            return pickle.loads(path.read_bytes())  # noqa: S301
        except (EOFError, pickle.UnpicklingError) as error:
            # Not the end of the connection.
            raise OSError(errno.EIO, "a message came back cut", str(path)) from error
        finally:
            _remove(path)

    def close(self) -> None:
        """Give this process's end up."""
        self.socket.close()


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        _remove(path)
        raise NotWritten(error.errno, error.strerror, error.filename) from error


def _remove(path: Path) -> None:
    """Remove a message's file; one that can't be goes with the pilot's directory."""
    with suppress(OSError):
        path.unlink()


def connection() -> tuple[socket.socket, socket.socket]:
    """Two ends; what is sent at one is received at the other, message by message."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
    return ends
