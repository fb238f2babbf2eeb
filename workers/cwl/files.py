"""File and Directory objects of CWL: from paths to objects and back."""

# Paths are plain strings here: this runs for every file of every job.
# ruff: noqa: PTH116, PTH122, PTH123, PTH208

import hashlib
import json
import math
import os
import stat
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any

from workers.cwl.failures import ToolFailure, bad_input
from workers.cwl.left import read_left

CONTENT_LIMIT = 64 * 2**10
_CHUNK = 2**20
_TEXTS = ("path", "location", "basename", "format")

_HERE = ("", "localhost")
"""Hosts of this machine's files."""

Fault = Callable[[str], ToolFailure]


def local_path(location: str) -> str | None:
    """The path that a File's `location` or `path` names; None where it is elsewhere or none."""
    if not location.startswith("file://"):
        return None if "://" in location else location
    try:
        parts = urllib.parse.urlsplit(location)
    except ValueError:
        return None
    path = urllib.parse.unquote(parts.path)
    return path if parts.netloc in _HERE and "\0" not in path else None


def place_of(value: Mapping[str, Any]) -> str | None:
    """The path that a File or Directory object gives; None where it lies elsewhere or nowhere.

    Its `path` is a path as it is; its `location` is an IRI, in which `%20` is a blank, relative or
    not.
    """
    if value.get("path"):
        return local_path(str(value["path"]))
    where = str(value.get("location") or "")
    if not where or where.startswith("file://"):
        return local_path(where) or None
    return None if "://" in where else urllib.parse.unquote(where)


def file_uri(path: str) -> str:
    """The `file://` URI of an absolute path."""
    return f"file://{urllib.parse.quote(path)}"


def set_place(value: dict[str, Any], path: str) -> dict[str, Any]:
    """Let a File or Directory object say that it lies at `path`; its basename is the path's."""
    dirname, basename = os.path.split(path)
    value["path"] = path
    if value["class"] == "File":
        value["dirname"] = dirname
    return name_it(value, basename)


def check_object(value: Any, fault: Fault) -> None:
    """Refuse, by an error that `fault` makes, what is no File or Directory object of CWL."""
    if not isinstance(value, Mapping) or value.get("class") not in ("File", "Directory"):
        raise fault(f"a File or Directory was expected, not {shown(value)}")
    for key in _TEXTS:
        text = value.get(key)
        if text is not None and (not isinstance(text, str) or "\0" in text):
            raise fault(f"the {key} of a {value['class']} is a string, not {shown(text)}")
    for key in ("secondaryFiles", "listing"):
        inner = value.get(key)
        if inner is not None and not isinstance(inner, list):
            raise fault(f"the {key} of a {value['class']} is a list, not {shown(inner)}")
        for one in inner or ():
            check_object(one, fault)


def name_it(value: dict[str, Any], basename: str) -> dict[str, Any]:
    """Give a File or Directory object that basename, and what follows from it."""
    value["basename"] = basename
    if value["class"] == "File":
        value["nameroot"], value["nameext"] = os.path.splitext(basename)
    return value


def literal_name(value: Mapping[str, Any]) -> str:
    """The basename of a literal: its own, or one out of what it holds."""
    if value.get("basename") is not None:
        return str(value["basename"])
    text = json.dumps(value.get("contents", value.get("listing")), sort_keys=True)
    digest = hashlib.sha1(text.encode("utf-8", "surrogateescape"), usedforsecurity=False)
    return f"literal-{digest.hexdigest()[:12]}"


def read_contents(value: Any) -> Any:
    """`value` with the `contents` of its File, or of each File in a list (`loadContents`).

    Raises `ToolFailure` (BAD_JOB_INPUT) where a File is larger than 64 KiB or no UTF-8 text.
    """
    if isinstance(value, list | tuple):
        return [read_contents(one) for one in value]
    if isinstance(value, Mapping) and value.get("class") == "File" and "contents" not in value:
        return {**value, "contents": contents_of(str(place_of(value)), bad_input)}
    return value


def contents_of(path: str, fault: Fault) -> str:
    """The text of a file of at most 64 KiB; `fault` makes the error of one that isn't such."""
    try:
        data = read_left(path, CONTENT_LIMIT, follow=True)
    except OSError as error:
        raise fault(f"loadContents of {path!r}: {error.strerror}") from error
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise fault(f"loadContents of {path!r}: it is no UTF-8 text") from error


def listing_of(path: str, deep: bool, location: str | None = None) -> list[dict[str, Any]]:
    """The entries of a directory as File and Directory objects, by name.

    `location` is where the directory really lies, if `path` is a link that stands for it.
    """
    base = location or file_uri(path)
    entries = []
    for name in sorted(os.listdir(path), key=os.fsencode):
        inner, where = f"{path}/{name}", f"{base.rstrip('/')}/{urllib.parse.quote(name)}"
        mode = os.stat(inner)
        if stat.S_ISDIR(mode.st_mode):
            entry: dict[str, Any] = {"class": "Directory", "location": where}
            if deep:
                entry["listing"] = listing_of(inner, True, where)
        else:
            entry = {"class": "File", "location": where, "size": mode.st_size}
        entries.append(set_place(entry, inner))
    return entries


def sha1_of(path: str) -> str:
    """A file's checksum in CWL's form."""
    digest = hashlib.sha1(usedforsecurity=False)
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return f"sha1${digest.hexdigest()}"


def is_plain_name(name: Any) -> bool:
    """Whether `name` can be the last part of a path."""
    return isinstance(name, str) and name not in ("", ".", "..") and "/" not in name


def leads_out(path: str) -> bool:
    """Whether a relative path has a `..` or is absolute."""
    return path.startswith("/") or ".." in path.split("/")


def shown(value: Any) -> str:
    """A short form of a value for a message."""
    if isinstance(value, Mapping) and value.get("class") in ("File", "Directory"):
        return f"a {value['class']} ({value.get('location') or value.get('path') or 'literal'})"
    if isinstance(value, float) and not math.isfinite(value):
        return "beyond the range of a double"
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
