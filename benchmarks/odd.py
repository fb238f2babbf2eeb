"""Odd requests and odd files, made by a seed: what senders and storages should not, and do."""

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

HUGE = (2**63, 2**64, 2**63 - 1, -1, -(2**63) - 1, 10**30, 10**400)
TEXTS = ("", "\0", "a\0b", "\ud800", "x" * 5000, "../up", "/etc/passwd", "a//b", "\n", "é" * 300,
         "\u202etxt", "con", ".", "a b", "%00", "'; DROP TABLE request; --")  # fmt: skip
TIMES = ("9999999d", "-1d", "1e400d", "nan", "0", "1" * 400 + "s", "d")
SPARSE_BYTES = 2**31
ABSURD_TIMES_S = (2**33, 2**40, -(2**40), 2**62, 0)


class Requests:
    """Makes the bytes of one spooled document after the other; their keys are `odd-N`."""

    def __init__(self, seed: int, storage: str, things: list[str]) -> None:
        self._random, self._storage, self._things = Random(seed), storage, things
        self._made: tuple[Callable[[int], Any], ...] = (
            self._number, self._text, self._kind, self._field, self._time, self._absent,
            self._thing, self._claim, self._again, self._other, self._close, self._nested,
        )  # fmt: skip

    def make(self, number: int) -> bytes:
        """The document of that number, or what is no document."""
        if self._random.random() < 0.1:
            return self._garbage()
        document = self._random.choice(self._made)(number)
        return json.dumps(document).encode()

    def _garbage(self) -> bytes:
        whole = json.dumps(self._close(0)).encode()
        return self._random.choice(
            (
                b"", b"\xff\xfe\x00", whole[: len(whole) // 2], b"[" * 50_000, b'{"a":' * 50_000,
                b"[1, 2]", b"null", b"9" * 10_000, os.urandom(200), b"{" + whole,
            )
        )  # fmt: skip

    def _files(self, number: int, *files: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {"kind": "file.input", "key": f"odd-{number}", "datasetId": "requested",
                "files": list(files), **more}  # fmt: skip

    def _file(self, path: str, size: Any = 4, **more: Any) -> dict[str, Any]:
        return {"storageId": self._storage, "path": path, "size": size, **more}

    def _close(self, number: int) -> dict[str, Any]:
        return {"kind": "dataset.close", "key": f"odd-{number}", "datasetId": f"nowhere-{number}"}

    def _number(self, number: int) -> dict[str, Any]:
        value = self._random.choice((*HUGE, 1.5, float("nan"), float("inf"), True, None))
        return self._random.choice(
            (
                self._files(number, self._file("f", value)),
                {**self._close(number), "fileCount": value},
                {**self._close(number), "datasetId": value},
                {"kind": "dataset.upload", "key": f"odd-{number}", "datasetId": 1,
                 "storageId": value},
            )
        )  # fmt: skip

    def _text(self, number: int) -> dict[str, Any]:
        text = self._random.choice(TEXTS)
        return self._random.choice(
            (
                self._files(number, self._file(text)),
                {"kind": "dataset.input", "key": f"odd-{number}", "name": text},
                {**self._close(number), "datasetId": text},
                {**self._close(number), "key": f"odd-{number}{text}"},
                self._files(number, self._file("f", checksum=text)),
            )
        )

    def _kind(self, number: int) -> dict[str, Any]:
        kind = self._random.choice(("", "file.moved", ["file.input"], None, 7, "x" * 10_000))
        return {**self._close(number), "kind": kind}

    def _field(self, number: int) -> dict[str, Any]:
        name = self._random.choice(("x", "datasetid", "x\ud800" * 100, "constrained-int"))
        return {**self._close(number), name: [{}]}

    def _time(self, number: int) -> dict[str, Any]:
        return {"kind": "dataset.input", "key": f"odd-{number}", "name": f"made-{number}",
                "lifetime": self._random.choice(TIMES)}  # fmt: skip

    def _absent(self, number: int) -> dict[str, Any]:
        files = [self._file(f"not/there-{number}-{n}") for n in range(self._random.randint(1, 50))]
        return self._files(number, *files)

    def _thing(self, number: int) -> dict[str, Any]:
        verify = self._random.choice(("none", "size", "checksum"))
        thing = self._file(self._random.choice(self._things), self._random.choice((0, 4, 10**6)))
        return self._files(number, thing, verify=verify)

    def _claim(self, number: int) -> dict[str, Any]:
        huge = self._file(f"claim-{number}", 2**63 - 1, checksum="adler32:00000001")
        return self._files(number, huge, verify="none")

    def _again(self, number: int) -> dict[str, Any]:
        return {**self._close(number), "key": f"odd-{self._random.randint(0, number)}"}

    def _other(self, number: int) -> dict[str, Any]:
        kind = self._random.choice(("dataset.delete", "dataset.upload"))
        return {**self._close(number), "kind": kind, "storageId": "nowhere"}

    def _nested(self, number: int) -> dict[str, Any]:
        deep: Any = []
        for _ in range(self._random.randint(1, 400)):
            deep = [deep]
        return {**self._close(number), "datasetId": deep}


class Files:
    """Makes one odd thing after the other in a folder of a storage."""

    def __init__(self, seed: int, folder: Path) -> None:
        self._random, self._folder = Random(seed), folder
        self._made: tuple[Callable[[Path], None], ...] = (
            self._dated, self._long, self._link, self._loop, self._pipe, self._socket,
            self._sparse, self._unreadable, self._vanishing, self._growing, self._empty,
            self._bytes, self._folder_of_that_name, self._hidden,
        )  # fmt: skip

    def make(self, number: int) -> None:
        """The thing of that number."""
        self._random.choice(self._made)(self._folder / f"f{number:05}")

    def _dated(self, path: Path) -> None:
        path.write_bytes(b"date")
        at = self._random.choice(ABSURD_TIMES_S)
        try:
            os.utime(path, (at, at))
        except (OverflowError, OSError):
            os.utime(path, (2**32, 2**32))

    def _long(self, path: Path) -> None:
        path.with_name(path.name.ljust(self._random.choice((250, 255)), "x")).write_bytes(b"long")

    def _link(self, path: Path) -> None:
        path.symlink_to(self._random.choice(("/etc/passwd", "nowhere", "..")))

    def _loop(self, path: Path) -> None:
        path.symlink_to(path.name)

    def _pipe(self, path: Path) -> None:
        os.mkfifo(path)

    def _socket(self, path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as made:
            descriptor = os.open(path.parent, os.O_RDONLY)
            try:
                made.bind(f"/proc/self/fd/{descriptor}/{path.name}")
            finally:
                os.close(descriptor)

    def _sparse(self, path: Path) -> None:
        with path.open("wb") as file:
            file.truncate(SPARSE_BYTES if self._random.random() < 0.1 else 2**26)

    def _unreadable(self, path: Path) -> None:
        path.write_bytes(b"dark")
        path.chmod(0)

    def _vanishing(self, path: Path) -> None:
        path.write_bytes(b"gone")
        threading.Timer(
            self._random.uniform(0.0, 1.0), lambda: path.unlink(missing_ok=True)
        ).start()

    def _growing(self, path: Path) -> None:
        path.write_bytes(b"")
        threading.Thread(target=_grow, args=(path, 20), daemon=True).start()

    def _empty(self, path: Path) -> None:
        path.touch()

    def _bytes(self, path: Path) -> None:
        tail = self._random.choice((b"\xff\xfe", b"\n", b" ", b"?#%", b"\xe2\x80\xae", b"\x01"))
        Path(os.fsdecode(os.fsencode(path) + tail)).write_bytes(b"name")

    def _folder_of_that_name(self, path: Path) -> None:
        path.mkdir()
        (path / "inner").write_bytes(b"in")

    def _hidden(self, path: Path) -> None:
        path.with_name(f".{path.name}").write_bytes(b"part")


def things(folder: Path) -> list[str]:
    """Things that are no files for requests to name, made in a storage's folder; their paths."""
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    (folder / "loop").symlink_to("loop")
    (folder / "away").symlink_to("nowhere")
    (folder / "device").symlink_to("/dev/zero")
    with (folder / "sparse").open("wb") as file:
        file.truncate(10**6)
    return ["pipe", "folder", "loop", "away", "device", "sparse", "folder/inner", "pipe/inner"]


def spool(directory: Path, name: str, content: bytes) -> None:
    """Leave a document as the spool asks for it: written beside, then renamed."""
    part = directory / f".{name}"
    part.write_bytes(content)
    part.rename(directory / f"{name}.json")


def _grow(path: Path, times: int) -> None:
    for _ in range(times):
        time.sleep(0.1)
        try:
            with path.open("ab") as file:
                file.write(b"more")
        except OSError:
            return
