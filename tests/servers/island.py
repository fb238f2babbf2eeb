"""A command in a network of its own, which reaches servers over bridges that a test can cut.

`python -m tests.servers.island DIR PORT… -- COMMAND…`, started under `unshare --net`: there the
loopback's ports lead to sockets in DIR, which `Bridges` leads on to the ports outside. Sockets of
the file system are the only way out.
"""

import asyncio
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

LOOPBACK = "127.0.0.1"
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_IFREQ = struct.Struct("16sh")
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Bridges:
    """The outer ends of an island's connections, as a process of their own."""

    def __init__(self, directory: Path, ports: Sequence[int]) -> None:
        self.directory, self.ports = directory, ports
        directory.mkdir(exist_ok=True)
        command = [sys.executable, "-m", __name__, str(directory), *map(str, ports)]
        self._process = subprocess.Popen(command)

    def cut(self) -> None:
        """Let nothing through any more, and tell nobody: as a pulled cable does."""
        self._process.send_signal(signal.SIGSTOP)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()

    def start(
        self, command: Sequence[str | Path], env: Mapping[str, str], cwd: Path, log: Path
    ) -> subprocess.Popen[bytes]:
        """Start a command on the island; its pid is the command's own."""
        words = ["unshare", "--net", sys.executable, "-m", __name__, self.directory, *self.ports]
        with log.open("ab") as stream:
            return subprocess.Popen(
                [*map(str, words), "--", *map(str, command)],
                env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
            )  # fmt: skip


def inhabitants(pid: int) -> list[int]:
    """All processes in the network of a process."""
    network = Path(f"/proc/{pid}/ns/net").stat().st_ino
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            same = (folder / "ns" / "net").stat().st_ino == network
        except OSError:
            continue
        if same:
            found.append(int(folder.name))
    return found


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        flags = _IFREQ.unpack(fcntl.ioctl(probe, _SIOCGIFFLAGS, _IFREQ.pack(b"lo", 0)))[1]
        fcntl.ioctl(probe, _SIOCSIFFLAGS, _IFREQ.pack(b"lo", flags | _IFF_UP))


def _forward(reach: Callable[[], Coroutine[Any, Any, Streams]]) -> Callable[..., Any]:
    """A server's callback that joins each connection with one that `reach` makes."""

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await reach()
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))

    return join


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def _bridge(directory: Path, ports: Sequence[int], *, inside: bool) -> None:
    servers = []
    for port in ports:
        path = directory / str(port)
        if inside:
            out = _forward(lambda path=path: asyncio.open_unix_connection(path))
            servers.append(await asyncio.start_server(out, LOOPBACK, port))
        else:
            out = _forward(lambda port=port: asyncio.open_connection(LOOPBACK, port))
            servers.append(await asyncio.start_unix_server(out, path))
    await asyncio.gather(*(server.serve_forever() for server in servers))


def main(words: Sequence[str]) -> None:
    """The outer ends; or, where a command follows, the inner ones and the command."""
    split = words.index("--") if "--" in words else len(words)
    directory, ports, command = Path(words[0]), list(map(int, words[1:split])), words[split + 1 :]
    if not command:
        asyncio.run(_bridge(directory, ports, inside=False))
        return
    _raise_loopback()
    if os.fork() == 0:
        asyncio.run(_bridge(directory, ports, inside=True))
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
