"""Errors that aren't ours as sentences: a database or server that is away, and our own defects."""

import errno
import os
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from catalog.names import spelt_out

DEFECT = 70
"""Exit code of an error that nobody expected (EX_SOFTWARE)."""
UNAVAILABLE = 5
BAD_INPUT = 2
INTERRUPTED = 130


def explain(error: Exception) -> tuple[str, int] | None:
    """The sentence and exit code of a fault of the surroundings; None for any other error."""
    if (full := _full_disk(error)) is not None:
        return full, UNAVAILABLE
    # Only where a library was imported can it have raised: none is imported for this.
    if isinstance(error, _types("sqlalchemy.exc", "OperationalError", "InterfaceError")):
        return (
            f"the catalog can't be reached ({_first_line(getattr(error, 'orig', error))}); "
            "check SPDF_CATALOG_URL and that the database runs.",
            UNAVAILABLE,
        )
    if isinstance(error, UnicodeEncodeError):
        around = error.object[max(0, error.start - 20) : error.end + 20]
        return f"the name or text {spelt_out(repr(around))} is no UTF-8; give another.", BAD_INPUT
    beyond = (*_types("sqlalchemy.exc", "DataError"), OverflowError)
    if isinstance(error, beyond):
        told = _first_line(getattr(error, "orig", error))
        return f"a number or a text is beyond what can be kept ({told}); give another.", BAD_INPUT
    if type(error) in _types("sqlalchemy.exc", "DatabaseError"):
        return (
            f"the catalog can't be used ({_first_line(getattr(error, 'orig', error))}); "
            "check that SPDF_CATALOG_URL names a catalog.",
            UNAVAILABLE,
        )
    if isinstance(error, _types("httpx", "TransportError")):
        return "the server is not up; `spdf up` starts it.", UNAVAILABLE
    refusals = _types("httpx", "HTTPError") + _types("prefect.exceptions", "PrefectException")
    if isinstance(error, refusals):
        return (
            f"the server refused ({type(error).__name__}: {_first_line(error)}); "
            "`spdf status` tells whether all of it is up.",
            UNAVAILABLE,
        )
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}; check the path and its permissions.", BAD_INPUT
    return None


def _full_disk(error: Exception) -> str | None:
    """The sentence of an error that a full disk made, if it is one."""
    if not isinstance(error, (OSError, *_types("sqlalchemy.exc", "DBAPIError"))):
        return None
    if isinstance(error, OSError) and error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    from catalog.fulldisk import told

    return told(error)


def _types(module: str, *names: str) -> tuple[type[BaseException], ...]:
    loaded: Any = sys.modules.get(module)
    return tuple(getattr(loaded, name) for name in names) if loaded is not None else ()


def _first_line(error: object) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def record_defect(error: Exception) -> tuple[str, int]:
    """Keep the traceback of a defect of ours; gives the sentence that says where, and the code."""
    text = "".join(traceback.format_exception(error))
    if os.environ.get("SPDF_DEBUG"):
        sys.stderr.write(text)
        return f"a defect of spdf: {type(error).__name__}: {_first_line(error)}", DEFECT
    where = "SPDF_DEBUG=1 shows where"
    log = Path(os.environ.get("SPDF_HOME") or Path.home() / ".spdf") / "log" / "cli.log"
    if log.parent.is_dir():
        try:
            with log.open("a", encoding="utf-8") as stream:
                stream.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {sys.argv[1:]}\n{text}\n")
            where = f"{log} says where"
        except OSError:
            pass
    return f"a defect of spdf: {type(error).__name__}: {_first_line(error)}; {where}.", DEFECT
