"""Telling an outage from one item's trouble, and riding out a database that is away for a while.

A loop that serves many puts each item into `isolated`: an error there is that item's and the rest
goes on, unless it is an outage, which would meet every other item, too.
"""

import errno
import logging
import random
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from catalog import fulldisk
from catalog.errors import SpdfError
from catalog.names import spelt_out

log = logging.getLogger(__name__)

R = TypeVar("R")
T = TypeVar("T")
_WAIT_S = (0.2, 5.0)
_MOST_TOLD = 10_000
_MOST_CHARACTERS = 1000

_MACHINE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT})
"""What an `OSError` says that is this machine's trouble, whatever file met it."""

_SQLITE_SERVER = frozenset(
    {
        sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PERM, sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)  # fmt: skip
_STATEMENT = ("42", "54")
"""Classes of SQLSTATE that PostgreSQL calls operational, and that are a statement's: syntax, and
limits such as an index's longest row."""


_NO_TABLES = ("no such table", "no such column")
_NO_CATALOG = frozenset({"42P01", "42703", "42501"})
"""SQLSTATE of a table or column that isn't there, or may not be used: it isn't the catalog."""


class Over(Exception):
    """This process is to leave what it does: it lost its role, or shall stop. No item's trouble."""


def is_away(error: DBAPIError) -> bool:
    """Whether the error is the connection's or the server's, not that of a statement."""
    if error.connection_invalidated or isinstance(error, InterfaceError):
        return True
    if not isinstance(error, OperationalError):
        return False
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return (code & 0xFF) in _SQLITE_SERVER or str(error.orig).startswith(_NO_TABLES)
    state = getattr(error.orig, "sqlstate", None)
    return state is None or not str(state).startswith(_STATEMENT)


def is_outage(error: BaseException) -> bool:
    """Whether an error would meet any other item, too: the catalog's or this machine's."""
    if isinstance(error, DBAPIError):
        return is_away(error) or getattr(error.orig, "sqlstate", None) in _NO_CATALOG
    if isinstance(error, SpdfError):
        return error.is_outage
    if isinstance(error, PoolTimeout):
        return True
    return isinstance(error, OSError) and error.errno in _MACHINE


def sentence(error: BaseException) -> str:
    """What an error says, of a length and of characters that a row, a log and a file can hold."""
    if isinstance(error, SpdfError):
        text = str(error)
    elif (full := fulldisk.told(error)) is not None:
        text = full
    elif isinstance(error, IntegrityError):
        text = f"it contradicts what the catalog has ({_line(error.orig)})."
    elif isinstance(error, DataError | OverflowError | UnicodeError):
        told = error.orig if isinstance(error, DataError) else error
        text = f"it holds a number or a text that the catalog can't keep ({_line(told)})."
    elif isinstance(error, OSError) and error.strerror:
        text = f"{error.filename or 'the system'}: {error.strerror}."
    elif isinstance(error, MemoryError | RecursionError):
        text = f"it is larger or deeper than can be worked on ({type(error).__name__})."
    else:
        told = error.orig if isinstance(error, DBAPIError) else error
        text = f"a defect of spdf ({type(error).__name__}: {_line(told)}); the log says where."
    return printable(text)


def printable(text: str) -> str:
    """`text` without what no database, log or file takes, and not longer than people read."""
    text = spelt_out(text)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 1]}…"


def _line(error: object) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class _Told:
    """Which troubles were logged already: the same one of an item is told once, not each turn."""

    def __init__(self) -> None:
        self._by_item: OrderedDict[tuple[str, object], str] = OrderedDict()

    def is_new(self, item: tuple[str, object], text: str) -> bool:
        """Whether this was not told of the item last."""
        known = self._by_item.get(item) == text
        self._by_item[item] = text
        self._by_item.move_to_end(item)
        if len(self._by_item) > _MOST_TOLD:
            self._by_item.popitem(last=False)
        return not known

    def forget(self, item: tuple[str, object]) -> None:
        """The item is well again."""
        self._by_item.pop(item, None)


_told = _Told()


@contextmanager
def isolated(
    kind: str,
    item: object,
    tell: Callable[[Exception], None] = lambda _error: None,
    *,
    outage: Callable[[BaseException], bool] = is_outage,
) -> Iterator[None]:
    """An error in the block is this item's: logged once, and given to `tell`; the rest goes on.

    Raises what is an `outage`, and `Over`, as they came.
    """
    try:
        yield
    except Over:
        raise
    except Exception as error:
        if outage(error):
            raise
        text = sentence(error)
        if _told.is_new((kind, item), text):
            # The traceback of an error that isn't ours is all that there is to find its cause.
            log.warning(
                "%s has trouble, the others go on",
                kind,
                extra={kind: item, "why": text},
                exc_info=None if isinstance(error, SpdfError) else error,
            )
        tell(error)
    else:
        _told.forget((kind, item))


def in_halves(
    items: Sequence[T],
    call: Callable[[Sequence[T]], object],
    tell: Callable[[T, Exception], object],
    *,
    outage: Callable[[BaseException], bool] = is_outage,
) -> None:
    """Do `call` for all items together; where that fails, for ever smaller halves, in their order.

    `tell` hears of each that fails by itself, with its error. `call` must undo what it did where it
    raises. Raises what is an `outage`, and `Over`, as they came.
    """
    if not items:
        return
    try:
        call(items)
    except Over:
        raise
    except Exception as error:
        if outage(error):
            raise
        if len(items) == 1:
            if not isinstance(error, SpdfError):
                log.exception("one of many failed, the others go on")
            tell(items[0], error)
            return
        half = len(items) // 2
        in_halves(items[:half], call, tell, outage=outage)
        in_halves(items[half:], call, tell, outage=outage)


def ride_out(
    call: Callable[[], R], *, limit_s: float, wanted: Callable[[], bool] = lambda: True
) -> R:
    """What `call` gives, called again for `limit_s` while the database is away.

    `call` must be whole transactions that may safely run twice: one whose answer was lost may have
    been committed. Gives up, with the error, once `wanted` says no. Raises other errors at once.
    """
    until, wait_s = time.monotonic() + limit_s, _WAIT_S[0]
    while True:
        try:
            return call()
        except DBAPIError as error:
            if not is_away(error) or time.monotonic() >= until or not wanted():
                raise
            log.warning("catalog away", extra={"fault": str(error.orig)})
        time.sleep(wait_s * random.uniform(0.7, 1.3))
        wait_s = min(wait_s * 2, _WAIT_S[1])
