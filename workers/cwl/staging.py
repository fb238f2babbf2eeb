"""Linking a job's input files into one directory, under the names that the payload shall see."""

# Paths are plain strings here: this runs for every file of every job.
# ruff: noqa: PTH102, PTH119, PTH123, PTH202, PTH211

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from catalog.errors import ErrorCode
from workers.cwl.failures import ToolFailure, bad_input
from workers.cwl.files import file_uri, is_plain_name, set_place, shown


@dataclass
class Stager:
    """Places inputs below `root`.

    A File with secondary files gets a directory of its own, with nothing else in it; so does one
    whose name is taken.
    """

    root: str
    names: set[str] = field(default_factory=set)
    sources: dict[str, str] = field(default_factory=dict)
    """Real path of each staged input by its place."""
    directories: int = 0

    def place(self, value: dict[str, Any]) -> dict[str, Any]:
        """Stage a File (with its secondaryFiles beside it) or Directory; it is changed in place."""
        group = with_secondary(value)
        name = self._name(value)
        folder = self.root
        if len(group) > 1 or name in self.names:
            folder = self.folder()
        else:
            self.names.add(name)
        for one in group:
            self._put_once(one, f"{folder}/{self._name(one)}")
        return value

    def folder(self) -> str:
        """A new directory below the root."""
        while True:
            self.directories += 1
            name = f"{self.directories}.d"
            if name not in self.names:
                break
        self.names.add(name)
        folder = f"{self.root}/{name}"
        os.mkdir(folder)
        return folder

    def _put_once(self, value: dict[str, Any], path: str) -> None:
        """Stage a thing at a path that only it has, or the same file by another mention."""
        held = self.sources.get(path)
        if held is None:
            self._put(value, path)
            self.sources.setdefault(path, path)
        elif held == value.get("path"):
            set_place(value, path)
        else:
            raise bad_input(
                f"two things would be staged as {os.path.basename(path)!r}, beside one another: "
                f"{shown({'class': 'File', 'path': held})} and {shown(value)}; give one another "
                "basename"
            )

    def _name(self, value: dict[str, Any]) -> str:
        name = value.get("basename")
        if not is_plain_name(name):
            raise bad_input(f"basename {name!r} of an input is no file name")
        return str(name)

    def _put(self, value: dict[str, Any], path: str) -> None:
        source = value.get("path")
        if source is not None:
            _link(source, path)
            self.sources[path] = source
        elif value["class"] == "File":
            write_literal(path, value)
            value["size"] = os.path.getsize(path)
            value["location"] = file_uri(path)
            self.sources[path] = path
        else:
            self._fill(value, path)
        set_place(value, path)
        if source is not None and value.get("listing"):
            move_listing(value, path)

    def _fill(self, value: dict[str, Any], path: str) -> None:
        """Make a Directory literal out of its listing."""
        os.mkdir(path)
        value.setdefault("location", file_uri(path))
        for entry in value.get("listing") or ():
            for one in with_secondary(entry):
                self._put_once(one, f"{path}/{self._name(one)}")


def with_secondary(value: Any) -> list[Any]:
    """A File or Directory and its secondary files, and theirs: what must lie in one folder."""
    found = [value]
    for other in value.get("secondaryFiles") or ():
        found += with_secondary(other)
    return found


def _link(source: str, path: str) -> None:
    """Link a staged input: a second name costs no inode, where the file system can give one.

    A directory, a file of another file system, or one of another owner gets a symbolic link.
    """
    try:
        os.link(source, path)
    except OSError:
        os.symlink(source, path)


def move_listing(value: Mapping[str, Any], path: str) -> None:
    """Let the entries of a staged directory's listing say that they lie in it."""
    for entry in value["listing"]:
        set_place(entry, f"{path}/{entry['basename']}")
        if entry.get("listing"):
            move_listing(entry, entry["path"])


def write_literal(path: str, value: Mapping[str, Any]) -> None:
    """Write a File literal's `contents`."""
    contents = value.get("contents")
    if not isinstance(contents, str):
        raise bad_input(f"a File has neither path nor location nor contents: {dict(value)!r}")
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        stream.write(contents)


def missing(path: str, name: str) -> ToolFailure:
    """The failure of an input whose file is not there."""
    return ToolFailure(
        ErrorCode.INPUT_MISSING, f"input {name!r}: there is no {path!r}; give a file that exists"
    )
