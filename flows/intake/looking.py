"""Looking at a storage through a process of its own, which is given up where it hangs."""

import json
import logging
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from catalog.errors import BadInput, ErrorCode, SpdfError, StorageError
from catalog.outage import printable
from flows.intake.roles import Errand
from flows.intake.sightings import Take, read

log = logging.getLogger(__name__)

_READ_BYTES = 1 << 18
_END_S = 2.0
_STEP_S = 0.5


class Looker:
    """Looks at one storage, one look at a time; its process is started when it is needed.

    `limit_s` is how long a look may give no sign: then its process is killed, and the look fails.
    """

    def __init__(self, storage: str, limit_s: float) -> None:
        self.storage, self._limit_s = storage, limit_s
        self._process: subprocess.Popen[bytes] | None = None
        self._stuck: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self._looking = threading.Lock()
        self._closing = threading.Event()

    def look(self, errand: Errand, take: Take) -> None:
        """As `sightings.look`. Raises `StorageError` where nothing comes for `limit_s`, too."""
        is_answered = False
        with self._looking:
            try:
                for part in self._parts(errand):
                    is_answered = "error" in part or "end" in part
                    if "error" in part:
                        raise _failure(part)
                    if "page" in part:
                        take([read(cells) for cells in part["page"]])
            finally:
                # What is left of an answer must not be taken for the next one's.
                if not is_answered:
                    self._give_up()

    def close(self) -> None:
        """End the process; a look that goes on fails, and there is none after it."""
        self._closing.set()
        if (process := self._process) is not None:
            process.kill()
        with self._looking:
            self._give_up()

    def _parts(self, errand: Errand) -> Iterator[dict[str, Any]]:
        try:
            process = self._running()
            assert process.stdin is not None
            process.stdin.write(json.dumps(asdict(errand)).encode() + b"\n")
            process.stdin.flush()
            part: dict[str, Any] = {}
            while not ("end" in part or "error" in part):
                part = json.loads(self._line(process))
                yield part
        except (BrokenPipeError, EOFError, ValueError) as error:
            raise self._away(
                "the process that looks at it has ended; another is started"
            ) from error

    def _line(self, process: subprocess.Popen[bytes]) -> bytes:
        """The next line that the process writes."""
        assert process.stdout is not None
        descriptor = process.stdout.fileno()
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        since = time.monotonic()
        while b"\n" not in self._rest:
            if not poll.poll(1000 * min(_STEP_S, self._limit_s)):
                if self._closing.is_set():
                    raise EOFError
                if time.monotonic() - since >= self._limit_s:
                    raise self._hangs(process)
                continue
            read_bytes = os.read(descriptor, _READ_BYTES)
            if not read_bytes:
                raise EOFError
            self._rest += read_bytes
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._stuck is not None:
            # A process that waits for a dead server can't be killed: no second one joins it.
            if self._stuck.poll() is None:
                raise self._hangs(self._stuck)
            self._stuck = None
        if self._process is None or self._process.poll() is not None:
            self._give_up()
            if self._closing.is_set():
                raise EOFError
            self._process = subprocess.Popen(
                [sys.executable, "-m", "flows.intake.lister"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
        return self._process

    def _give_up(self) -> None:
        process, self._process, self._rest = self._process, None, b""
        if process is None:
            return
        process.kill()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            log.warning("look can't be ended", extra={"storage": self.storage, "pid": process.pid})
            self._stuck = process
        for stream in (process.stdin, process.stdout):
            with suppress(OSError):
                if stream is not None:
                    stream.close()

    def _hangs(self, process: "subprocess.Popen[bytes]") -> StorageError:
        return self._away(
            f"a look at it gave no sign for {self._limit_s:g} s (process {process.pid}); its mount "
            "or its server hangs: mend it, it is tried again by itself"
        )

    def _away(self, told: str) -> StorageError:
        return StorageError(ErrorCode.STORAGE_UNAVAILABLE, f"storage {self.storage!r}: {told}.")


def _failure(part: dict[str, Any]) -> SpdfError:
    code, told = part["code"], printable(part["error"])
    return BadInput(told) if code is None else StorageError(ErrorCode(code), told)
