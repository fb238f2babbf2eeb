"""Rules for the names of datasets, storages, templates, files and paths."""

import hashlib
import os
import re

from catalog.errors import BadName

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+@=-]*\Z")
_USUAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@=-]*(?:/[A-Za-z0-9_][A-Za-z0-9._+@=-]*)*\Z")
"""Paths that are right at first sight, as nearly all are."""
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_UNDECODED = re.compile("[\udc80-\udcff]")
_QUOTED = re.compile(r"(?<!\\)\\udc([89a-f][0-9a-f])")
MAX_NAME = 200
MAX_PATH = 900
MAX_COMPONENT = 255
"""Bytes of a file's own name on most file systems."""
_DIGITS = 16
"""Of the digest that stands for what was cut off a name."""
_LEAST = 40
"""Characters that shall be left of the name of the dataset that another one is made of."""
MARKER = ".spdf-storage"
"""Name of the file at a storage's root that says which one it is; never one of its files."""


def check_name(kind: str, name: str) -> str:
    """`name`, if it can name a storage, dataset, template or scope; else `BadName`."""
    if not _PLAIN.match(name) or ".." in name or len(name) > MAX_NAME:
        raise BadName(
            f"{kind} name {name!r} can't be used; take 1 to {MAX_NAME} letters, digits and "
            "`. _ + @ = -`, beginning with a letter or digit, without `..`."
        )
    return name


def check_path(kind: str, path: str) -> str:
    """`path`, if it is a relative path that can't leave its folder; else `BadName`."""
    why = _path_fault(path)
    if why:
        raise BadName(f"{kind} {path!r} can't be used: {why}; give a plain relative path.")
    return path


def is_path(path: str) -> bool:
    """Whether `check_path` would take it."""
    return _path_fault(path) is None


def is_hidden(path: str) -> bool:
    """Whether a part of the path begins with a dot: what lies there isn't whole yet.

    Who writes, or transfers, gives it a name without one then.
    """
    return path.startswith(".") or "/." in path


def shown(path: str) -> str:
    """A path as people can read it and a row can hold it, whatever bytes it is made of."""
    text = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    if len(text.encode()) <= MAX_PATH:
        return text
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return f"{text.encode()[: MAX_PATH - 24].decode(errors='ignore')}…{digest}"


def spelt_out(text: str) -> str:
    """`text` as any database or terminal takes it: bytes that are no UTF-8 as `\\xe4`.

    Also where a `repr` has spelt them as the surrogates that Python has for them.
    """
    text = _QUOTED.sub(r"\\x\1", text)
    text = _UNDECODED.sub(lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", text)
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


def _path_fault(path: str) -> str | None:
    if len(path) <= MAX_PATH and _USUAL.match(path):
        return None
    if not path:
        return "it is empty"
    if path.startswith("/"):
        return "it is absolute"
    if len(path.encode("utf-8", "surrogateescape")) > MAX_PATH:
        return f"it is longer than {MAX_PATH} bytes"
    if _UNPRINTABLE.search(path):
        return "it holds control or invalid characters"
    parts = path.split("/")
    if ".." in parts:
        return "it holds `..`"
    if "" in parts or "." in parts:
        return "it holds an empty or `.` component"
    if MARKER in parts:
        return f"{MARKER} is the name of a storage's marker"
    return None


def beside(path: str, suffix: str) -> str:
    """Another path in the same folder: with the suffix, and no longer than a name can be."""
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{cut(name, MAX_COMPONENT - len(os.fsencode(suffix)))}{suffix}"


def cut(text: str, most: int) -> str:
    """`text`, or where it has more bytes than that, what fits of it and a digest of it all."""
    if len(os.fsencode(text)) <= most:
        return text
    digest = hashlib.sha256(os.fsencode(text)).hexdigest()[:_DIGITS]
    kept = os.fsencode(text)[: max(0, most - _DIGITS - 1)].decode("utf-8", "ignore")
    return f"{kept}-{digest}"


def output_dataset(given: str, tail: str) -> str:
    """The name of a dataset that is made of the one called `given`; `tail` says by what.

    Where both together are too long, `given` is cut: masks go by the ending.
    """
    room = MAX_NAME - len(tail)
    if room < _LEAST:
        return cut(f"{given}{tail}", MAX_NAME)
    return f"{cut(given, room)}{tail}"


def below(given: str, basename: str) -> str:
    """The path of a file below a folder, or a job's key; where both are too long that is cut."""
    folder, slash, name = cut(given, MAX_PATH - 1 - len(os.fsencode(basename))).rpartition("/")
    return f"{folder}{slash}{cut(name, MAX_COMPONENT)}/{basename}"
