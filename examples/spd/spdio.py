"""Files between the programs: named numpy tables in a zip archive, and how programs fail."""

import io
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np

CORRUPT_SLICE = 65
BAD_INPUT = 66
CANT_WRITE = 74

# All that numpy and zipfile raise on damaged bytes; NotImplementedError is a RuntimeError.
_UNREADABLE = (ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile)

SLICE = np.dtype(
    [
        ("run", "<u4"),
        ("slice", "<u4"),
        ("raw_bytes", "<u8"),
        ("start_ns", "<u8"),
        ("duration_ns", "<u8"),
    ]
)
"""One row for each time slice that went into a file."""

HIT = np.dtype([("time", "<f4"), ("phi", "<f4"), ("z", "<f4"), ("layer", "<u1"), ("word", "<u8")])
"""One calibrated hit; `word` is the raw word it came from."""

TRACK = np.dtype(
    [
        ("event", "<i4"),
        ("charge", "<i1"),
        ("n_hits", "<u1"),
        ("pt", "<f4"),
        ("phi", "<f4"),
        ("cot_theta", "<f4"),
        ("d0", "<f4"),
        ("z0", "<f4"),
        ("time", "<f4"),
        ("chi2", "<f4"),
        ("hits", "<i4", (10,)),
    ]
)
"""One track; `event` is its row in the event table (-1: none), `hits` the number of its raw word
in the slice for each layer (-1: none), `chi2` is per degree of freedom."""

EVENT = np.dtype(
    [
        ("run", "<u4"),
        ("slice", "<u4"),
        ("number", "<u4"),
        ("time", "<f8"),
        ("z", "<f4"),
        ("mass", "<f4"),
        ("first_track", "<u4"),
        ("n_tracks", "<u4"),
        ("first_word", "<u4"),
        ("n_words", "<u4"),
    ]
)
"""One event; its tracks and raw words are ranges of rows of the other tables. `mass` is that of
its best pair, 0 until `select.py` fills it in."""


class FailureError(Exception):
    """Ends a program with an exit code and one sentence on stderr."""

    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


def run(main: Callable[[], int]) -> NoReturn:
    """Run a program's `main` and exit with its code, or with that of its failure."""
    try:
        sys.exit(main())
    except FailureError as failure:
        print(f"error: {failure}", file=sys.stderr)
        sys.exit(failure.code)


def read_bytes(path: Path) -> bytes:
    """The file's bytes, or a failure that names it."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise FailureError(BAD_INPUT, f"{path} can't be read: {error.strerror}.") from error


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, or fail with its name."""
    try:
        path.write_bytes(data)
    except OSError as error:
        raise FailureError(CANT_WRITE, f"{path} can't be written: {error.strerror}.") from error


def write_tables(path: Path, **tables: np.ndarray) -> None:
    """Write tables so that `numpy.load` reads them, the same bytes for the same content.

    `numpy.savez` leaves the time stamps of the archive to the Python version; here they are fixed.
    """
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_STORED) as archive:
        for name, table in tables.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(table), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), buffer.getvalue())
    write_bytes(path, whole.getvalue())


def read_tables(path: Path, *names: str) -> list[np.ndarray]:
    """The tables of these names; a failure says which file lacks what."""
    try:
        with np.load(io.BytesIO(read_bytes(path)), allow_pickle=False) as archive:
            return [archive[name] for name in names]
    except _UNREADABLE as error:
        raise FailureError(
            BAD_INPUT, f"{path} is not a file with the tables {', '.join(names)}."
        ) from error


def take_events(events: np.ndarray, tracks: np.ndarray, words: np.ndarray) -> dict[str, np.ndarray]:
    """Tables with these events alone: their tracks and words, renumbered."""
    events = events.copy()
    track_rows = _ranges(events["first_track"], events["n_tracks"])
    word_rows = _ranges(events["first_word"], events["n_words"])
    events["first_track"] = _starts(events["n_tracks"])
    events["first_word"] = _starts(events["n_words"])
    tracks = tracks[track_rows]
    tracks["event"] = np.repeat(np.arange(len(events)), events["n_tracks"])
    return {"events": events, "tracks": tracks, "words": words[word_rows]}


def join_events(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """One set of tables from several that `take_events` made."""
    empty = {
        "events": np.empty(0, EVENT),
        "tracks": np.empty(0, TRACK),
        "words": np.empty(0, "<u8"),
    }
    joined = {
        name: np.concatenate([table, *(p[name] for p in parts)]) for name, table in empty.items()
    }
    events = joined["events"]
    events["first_track"] = _starts(events["n_tracks"])
    events["first_word"] = _starts(events["n_words"])
    joined["tracks"]["event"] = np.repeat(np.arange(len(events)), events["n_tracks"])
    return joined


def _starts(counts: np.ndarray) -> np.ndarray:
    return np.asarray(np.cumsum(counts, dtype=np.int64) - counts)


def _ranges(first: np.ndarray, count: np.ndarray) -> np.ndarray:
    count = count.astype(np.int64)
    offsets = np.arange(count.sum()) - np.repeat(_starts(count), count)
    return np.asarray(np.repeat(first.astype(np.int64), count) + offsets)
