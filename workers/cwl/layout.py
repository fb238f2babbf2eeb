"""Where the entries of an initial work directory go: to each path one of them."""

# Paths are plain strings here, as in the rest of staging.
# ruff: noqa: PTH101, PTH102, PTH103, PTH108, PTH112, PTH114, PTH116, PTH119, PTH120, PTH208, PTH211

import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from catalog.drivers.filecopy import clone_file
from catalog.drivers.posix import LARGE_BYTES
from workers.cwl.containers import Mount
from workers.cwl.failures import ToolFailure, bad_input
from workers.cwl.files import leads_out
from workers.cwl.inputs import load_object
from workers.cwl.left import ends
from workers.cwl.staging import Stager, with_secondary, write_literal


@dataclass
class _Placement:
    """A File or Directory that goes to a path; `twins` are staged paths of the same input."""

    value: Mapping[str, Any]
    writable: bool
    mounted: bool = False
    """In a container, at a path that isn't below its output directory."""
    part: bool = False
    """Of a literal that is mounted as a whole."""
    twins: list[str] = field(default_factory=list)


@dataclass
class Layout:
    """Gathers what goes below `outdir`, then puts it there. `inside` is the payload's name of it.

    `mounts` of a container get what lies elsewhere in it.
    """

    outdir: str
    inside: str
    stager: Stager
    inplace: bool
    mounts: list[Mount] | None
    moved: dict[str, str] = field(default_factory=dict)
    """Where an input that was staged at a path lies now."""
    _places: dict[str, _Placement] = field(default_factory=dict)

    def add(self, value: Any, name: str | None, writable: bool) -> None:
        """Take an entry (and its secondary files): a File, a Directory or a text.

        Raises `ToolFailure` where another lies at that path.
        """
        if isinstance(value, str):
            if not name:
                raise bad_input("an entry of the initial work directory has no entryname")
            value = {"class": "File", "contents": value}
        else:
            value = self._known(value)
        name = name or value.get("basename")
        if not isinstance(name, str) or not name:
            raise bad_input("a File or Directory of the initial work directory has no basename")
        path = self._path(name)
        self._claim(path, _Placement(value, writable, not path.startswith(f"{self.outdir}/")))

    def lay(self) -> None:
        """Put everything in its place. Raises `ToolFailure` where one path lies in another's."""
        for path, placement in self._places.items():
            self._check_above(path, placement)
        # What is higher comes first, so that it can be opened for what goes into it.
        for path, placement in sorted(self._places.items(), key=lambda one: one[0].count("/")):
            if placement.part:
                continue
            if placement.mounted:
                self._mount(placement, path)
                continue
            self._make_parents(path)
            self._put(placement.value, path, placement.writable)
            for twin in placement.twins:
                self.moved[twin] = path

    def _known(self, value: Mapping[str, Any]) -> Mapping[str, Any]:
        """An object as loaded: one of the inputs as it was staged, or one from the expression."""
        path = value.get("path") or value.get("location")
        if path in self.stager.sources and "basename" in value:
            return value
        return load_object(value, "initial work directory")

    def _path(self, name: str) -> str:
        """The path of an entry; only in a container it may lie elsewhere."""
        name = os.path.normpath(name)
        for outdir in (self.outdir, self.inside):
            name = name.removeprefix(f"{outdir}/")
        if name.startswith("/") and name != "/" and self.mounts is not None:
            return name
        if name == "." or leads_out(name):
            raise bad_input(
                f"initial work directory: {name!r} leads out of the output directory; absolute "
                "names need a container"
            )
        return f"{self.outdir}/{name}"

    def _claim(self, path: str, placement: _Placement) -> None:
        """Have a path for one thing, and those beside and within it for what comes with it."""
        for other in with_secondary(placement.value)[1:]:
            beside = f"{os.path.dirname(path)}/{other['basename']}"
            self._claim_one(beside, _Placement(other, placement.writable, placement.mounted))
        self._claim_one(path, placement)

    def _claim_one(self, path: str, placement: _Placement) -> None:
        held = self._places.get(path)
        if held is not None:
            if not self._same(held.value, placement.value):
                raise self._clash(path, held.value, placement.value)
            held.writable = held.writable or placement.writable
            held.twins += [placement.value["path"]] if "path" in placement.value else []
            return
        self._places[path] = placement
        if placement.value["class"] == "Directory" and placement.value.get("path") is None:
            part = placement.mounted or placement.part
            for one in placement.value.get("listing") or ():
                inner = f"{path}/{one['basename']}"
                self._claim(inner, _Placement(one, placement.writable, part=part))

    def _same(self, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
        """Whether two things are one: the same file of this machine, or equal literals."""
        if one["class"] != other["class"]:
            return False
        if one.get("path") is None or other.get("path") is None:
            key = "contents" if one["class"] == "File" else "listing"
            return bool(one.get("path") == other.get("path") and one.get(key) == other.get(key))
        return self._source(one) == self._source(other)

    def _source(self, value: Mapping[str, Any]) -> str:
        path = str(value["path"])
        return os.path.realpath(self.stager.sources.get(path, path))

    def _check_above(self, path: str, placement: _Placement) -> None:
        """Refuse a path below another thing's file, or at what a Directory holds already."""
        above = os.path.dirname(path)
        while len(above) > 1 and above != self.outdir:
            held = self._places.get(above)
            if held is not None and self._holds(held, path[len(above) + 1 :]):
                raise self._clash(path, held.value, placement.value)
            above = os.path.dirname(above)

    def _holds(self, above: _Placement, rest: str) -> bool:
        """Whether a thing has something at a path within it, or can't have one."""
        if above.value["class"] == "File":
            return True
        at = above.value.get("path")
        if at is None:
            return False
        first, *others = rest.split("/")
        at = f"{at}/{first}"
        for part in others:
            if os.path.lexists(at) and not os.path.isdir(at):
                return True
            at = f"{at}/{part}"
        return os.path.lexists(at)

    def _clash(self, path: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> ToolFailure:
        name = path.removeprefix(f"{self.outdir}/")
        return bad_input(
            f"initial work directory: {self._words(one)} and {self._words(other)} would both lie "
            f"at {name!r}; give each an `entryname` of its own"
        )

    def _words(self, value: Mapping[str, Any]) -> str:
        if value.get("path") is not None:
            return f"the {value['class']} {self.stager.sources.get(value['path'], value['path'])!r}"
        if value["class"] == "Directory":
            return f"the Directory literal {value.get('basename')!r}"
        return f"the text {str(value.get('contents'))[:60]!r}"

    def _make_parents(self, path: str) -> None:
        parent = self.outdir
        for part in path[len(parent) + 1 :].split("/")[:-1]:
            parent = f"{parent}/{part}"
            if os.path.islink(parent):
                _unfold(parent)
            os.makedirs(parent, exist_ok=True)

    def _mount(self, placement: _Placement, path: str) -> None:
        """Put a thing aside, to be mounted at `path`."""
        assert self.mounts is not None
        value = placement.value
        aside = f"{self.stager.folder()}/{os.path.basename(path)}"
        for at, one in _tree(value, aside):
            self._put(one, at, placement.writable)
        real = os.path.realpath(aside)
        self.mounts.append(Mount(real, path, placement.writable))
        for staged in (value.get("path"), *placement.twins):
            if staged is not None:
                self.moved[staged] = path
                self.stager.sources[path] = real

    def _put(self, value: Mapping[str, Any], path: str, writable: bool) -> None:
        source = value.get("path")
        if source is not None:
            self.moved[source] = path
            real = os.path.realpath(source)
            self.stager.sources[path] = real
            if writable and not self.inplace:
                _copy(real, path)
            else:
                os.symlink(real, path)
        elif value["class"] == "File":
            write_literal(path, value)
        else:
            os.makedirs(path, exist_ok=True)


def _tree(value: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A thing by its path, then what a Directory literal lists."""
    yield path, value
    if value["class"] == "Directory" and value.get("path") is None:
        for entry in value.get("listing") or ():
            for one in with_secondary(entry):
                yield from _tree(one, f"{path}/{one['basename']}")


def _unfold(path: str) -> None:
    """Turn a linked directory into one of links, so that it can hold more."""
    real = os.path.realpath(path)
    os.unlink(path)
    os.mkdir(path)
    for name in os.listdir(real):
        os.symlink(f"{real}/{name}", f"{path}/{name}")


def _copy(source: str, path: str) -> None:
    """A copy that the payload may change; stored files are read-only."""
    found = os.stat(source)
    if not stat.S_ISDIR(found.st_mode):
        if not ends(found):
            raise bad_input(f"initial work directory: {source!r} is neither a file nor a directory")
        if found.st_size < LARGE_BYTES or not clone_file(source, path):
            shutil.copyfile(source, path)
        os.chmod(path, stat.S_IMODE(found.st_mode) | stat.S_IRUSR | stat.S_IWUSR)
        return
    os.makedirs(path, exist_ok=True)
    for name in os.listdir(source):
        _copy(f"{source}/{name}", f"{path}/{name}")
