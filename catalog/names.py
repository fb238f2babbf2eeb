"""Rules for the names of datasets, storages, templates, files and paths."""

import re

from catalog.errors import BadName

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+@=-]*\Z")
_USUAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@=-]*(?:/[A-Za-z0-9_][A-Za-z0-9._+@=-]*)*\Z")
"""Paths that are right at first sight, as nearly all are."""
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
MAX_NAME = 200
MAX_PATH = 900


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
    return None
