"""Requests to an S3 server: each is tried again for itself; what makes an object is conditional.

A request is whole in memory, so any may be sent again. Only what makes an object isn't the same
twice: where an answer was lost, the next one says that the object is there, or that its upload is
not; `is_unsure` tells who asked to look.
"""

import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    InvalidHeader,
    NewConnectionError,
    ReadTimeoutError,
    SSLError,
)
from urllib3.response import BaseHTTPResponse

from catalog import tries
from catalog.drivers.s3wire import POOLS
from catalog.settings import Settings

CONNECT_S, READ_S = 5.0, 60.0
BUSY = (429, 500, 502, 503, 504)
"""What a server answers now and then to what it does at another time."""
_CONNECTS = 4
"""A server that takes no connection is away: whoever asked shall hear of it soon."""
_MOST_ASKED_S = 10
"""How long a server may have us wait."""
_CODE = re.compile(rb"<Code>([A-Za-z]{1,60})</Code>")
_ERROR = re.compile(rb"\s*(<\?xml[^>]*>)?\s*<Error[\s>]")
_MOST_BYTES = 1 << 16


# It would write a line for each try: what a request met is told where it gives up.
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


class Met:
    """What the tries of one request met, in their order."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.is_unsure = False
        """Whether one may have been done without our hearing of it."""
        self.answers = False
        self._since = time.monotonic()

    @property
    def waited_s(self) -> float:
        """How long ago it began."""
        return time.monotonic() - self._since

    def note(self, answer: BaseHTTPResponse | None, error: Exception | None) -> None:
        """A try is over, and was in vain."""
        self.told.append(_told(answer, error))
        went = not isinstance(error, ConnectTimeoutError | SSLError)
        self.is_unsure |= went
        self.answers |= went and not isinstance(error, ReadTimeoutError)

    @property
    def words(self) -> str:
        """All of it, to follow after who was asked."""
        counted = Counter(self.told).items()
        text = ", ".join(what if count == 1 else f"{what} {count} times" for what, count in counted)
        if len(self.told) > 1:
            text += f" ({len(self.told)} tries in {self.waited_s:.1f} s)"
        return text


def _told(answer: BaseHTTPResponse | None, error: Exception | None) -> str:
    match error:
        case NewConnectionError():
            return "takes no connection"
        case ConnectTimeoutError():
            return f"takes no connection within {CONNECT_S:g} s"
        case ReadTimeoutError():
            return f"gave no answer within {READ_S:g} s"
        case SSLError():
            return "can't be trusted with TLS"
    if answer is None:
        return "broke the connection off"
    found = None
    with suppress(HTTPError):
        found = _CODE.search(answer.data[:_MOST_BYTES])
    return f"answered {answer.status}" + (f" {found[1].decode()}" if found else "")


class GaveUp(HTTPError):
    """A request was tried as often, or as long, as one is; `met` is what it met."""

    def __init__(self, met: Met) -> None:
        self.met = met
        super().__init__(met.words)


class _Tries(urllib3.Retry):
    """How often one request is tried, by `tries.REQUEST`."""

    def __init__(self, met: Met, **kw: Any) -> None:
        self.met = met
        super().__init__(**kw)

    @classmethod
    def begin(cls, most: int) -> Self:
        """Of a new request."""
        return cls(
            Met(), total=most - 1, connect=min(_CONNECTS, most - 1), other=0,
            status_forcelist=BUSY, allowed_methods=None, retry_after_max=_MOST_ASKED_S,
        )  # fmt: skip

    def new(self, **kw: Any) -> Self:
        """The next try of the same request."""
        return super().new(met=self.met, **kw)

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        error: Exception | None = None,
        *more: Any,
        **kw: Any,
    ) -> Self:
        """As that of the base, which raises where there is no next one."""
        if response is None or not response.get_redirect_location():
            self.met.note(response, error)
        return super().increment(method, url, response, error, *more, **kw)

    def is_exhausted(self) -> bool:
        """Whether that was the last one."""
        return super().is_exhausted() or self.met.waited_s >= tries.REQUEST.limit_s

    def sleep(self, response: BaseHTTPResponse | None = None) -> None:
        """Wait for the next one, as long as the server says, or as our own pace has it."""
        asked_s = None
        if response is not None:
            with suppress(InvalidHeader):
                asked_s = self.get_retry_after(response)
        tries.pause(max(asked_s or 0.0, tries.REQUEST.wait_s(len(self.met.told))))


class ConditionalPool(urllib3.PoolManager):
    """Adds `If-None-Match: *` to the request that makes an object: a PUT of it, or the completion
    of its multipart upload. The client itself offers no way to ask for that."""

    def __init__(self, settings: Settings) -> None:
        self._here = threading.local()
        super().__init__(
            maxsize=64,
            timeout=urllib3.Timeout(connect=CONNECT_S, read=READ_S),
            ca_certs=str(settings.s3_ca_file) if settings.s3_ca_file else None,
        )
        self.pool_classes_by_scheme = POOLS

    @contextmanager
    def only_over(self, etag: str | None) -> Iterator[None]:
        """What this thread writes replaces the object of that ETag, and no other; None: nothing."""
        self._here.etag = etag
        try:
            yield
        finally:
            self._here.etag = None

    @contextmanager
    def once(self) -> Iterator[None]:
        """This thread's requests are tried once: whoever asks looks again before the next try."""
        self._here.most = 1
        try:
            yield
        finally:
            del self._here.most

    def begin(self) -> None:
        """This thread is about to make an object."""
        self._here.is_unsure = False

    @property
    def is_unsure(self) -> bool:
        """Whether the object that this thread began to make may be there, whatever was answered."""
        return bool(getattr(self._here, "is_unsure", False))

    def urlopen(  # type: ignore[override]
        self, method: str, url: str, redirect: bool = True, **kw: Any
    ) -> BaseHTTPResponse:
        """As that of the base; the header is not part of what is signed, and need not be.

        Raises `GaveUp` in place of its errors.
        """
        begun = _Tries.begin(getattr(self._here, "most", tries.REQUEST.tries))
        makes = makes_object(method, url)
        if makes:
            etag = getattr(self._here, "etag", None)
            condition = {"If-Match": etag} if etag else {"If-None-Match": "*"}
            kw["headers"] = {**(kw.get("headers") or {}), **condition}
        try:
            answer = super().urlopen(method, url, redirect, **{**kw, "retries": begun})
            if makes and method == "POST" and _ERROR.match(answer.data):
                # A completion that takes long begins its answer before it knows how it ends.
                begun.met.note(answer, None)
                raise GaveUp(begun.met)
            return answer
        except HTTPError as error:
            if isinstance(error, GaveUp) or not begun.met.told:
                raise
            raise GaveUp(begun.met) from error
        finally:
            if makes:
                self._here.is_unsure = begun.met.is_unsure


def makes_object(method: str, url: str) -> bool:
    """Whether a request gives an object its name."""
    query = parse_qs(urlsplit(url).query, keep_blank_values=True)
    inside = urlsplit(url).path.strip("/").count("/") > 0
    if method == "PUT":
        return inside and not query
    return method == "POST" and "uploadId" in query
