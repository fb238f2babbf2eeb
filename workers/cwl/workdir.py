"""InitialWorkDirRequirement: what lies in the output directory before the payload starts."""

# Paths are plain strings here, as in the rest of staging.
# ruff: noqa: PTH108, PTH114, PTH118, PTH119, PTH120, PTH211, PTH102, PTH103, PTH208

import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from catalog.drivers.filecopy import clone_file
from catalog.drivers.posix import LARGE_BYTES
from workers.cwl.containers import Mount
from workers.cwl.expressions import Expression, Scope
from workers.cwl.failures import ExpressionError, bad_input
from workers.cwl.files import leads_out, set_place
from workers.cwl.inputs import load_object
from workers.cwl.parameters import is_file_object
from workers.cwl.staging import Stager, move_listing, write_literal
from workers.cwl.tool import Dirent, Tool


@dataclass(frozen=True)
class _Entry:
    """Something to be placed: a File or Directory object, or a text."""

    value: Any
    name: str | None
    writable: bool


def lay_out(
    tool: Tool, scope: Scope, outdir: str, stager: Stager, mounts: list[Mount] | None = None
) -> Scope:
    """Put what the tool asks for into `outdir`; gives a scope in which inputs lie there.

    `mounts` of a container get what lies elsewhere in it. Raises `ToolFailure`.
    """
    if not isinstance(tool.work_dir, Expression) and not tool.work_dir:
        return scope
    inside = tool.container and tool.container.outdir
    layout = _Layout(outdir, inside or outdir, stager, tool.inplace, mounts)
    for entry in _entries(tool, scope):
        layout.place(entry)
    return Scope(_moved(scope.inputs, layout.moved), scope.runtime)


def _entries(tool: Tool, scope: Scope) -> Iterator[_Entry]:
    if isinstance(tool.work_dir, Expression):
        found = tool.work_dir.within(scope)
        if not isinstance(found, list):
            raise ExpressionError(str(tool.work_dir.text), "a work directory's listing is a list")
        yield from _evaluated(found, str(tool.work_dir.text))
        return
    for one in tool.work_dir:
        if isinstance(one, Dirent):
            yield from _of_dirent(one, scope)
        else:
            yield from _evaluated(one.within(scope), str(one.text))


def _evaluated(found: Any, text: str) -> Iterator[_Entry]:
    """What an expression of a listing gave: null, a File, a Directory, a Dirent or a list."""
    if found is None:
        return
    if isinstance(found, list):
        for one in found:
            yield from _evaluated(one, text)
    elif is_file_object(found):
        yield _Entry(found, None, bool(found.get("writable")))
    elif isinstance(found, Mapping) and "entry" in found:
        name, value = found.get("entryname"), found["entry"]
        yield _Entry(_text_or_object(value), name, bool(found.get("writable")))
    else:
        raise ExpressionError(text, f"a work directory can't hold {found!r}")


def _of_dirent(dirent: Dirent, scope: Scope) -> Iterator[_Entry]:
    value = dirent.entry.within(scope)
    if value is None:
        return
    name = None if dirent.name is None else dirent.name.within(scope)
    if name is not None and not isinstance(name, str):
        raise ExpressionError(str(dirent.name and dirent.name.text), "an entryname is a string")
    if isinstance(value, list) and value and all(is_file_object(one) for one in value):
        if name is not None:
            raise bad_input(f"entryname {name!r} can't name a list of {len(value)} files")
        yield from (_Entry(one, None, dirent.writable) for one in value)
        return
    yield _Entry(_text_or_object(value), name, dirent.writable)


def _text_or_object(value: Any) -> Any:
    """Anything but a file object as the text of a file."""
    if is_file_object(value) or isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True)


@dataclass
class _Layout:
    outdir: str
    inside: str
    """The output directory as the payload sees it."""
    stager: Stager
    inplace: bool
    mounts: list[Mount] | None
    moved: dict[str, str] = field(default_factory=dict)
    """Where an input that was staged at a path lies now."""

    def place(self, entry: _Entry) -> None:
        """Put one entry (and its secondary files) below the output directory."""
        if isinstance(entry.value, str):
            if not entry.name:
                raise bad_input("an entry of the initial work directory has no entryname")
            value: dict[str, Any] = {"class": "File", "contents": entry.value}
        else:
            value = self._known(entry.value)
        name = entry.name or value.get("basename")
        if not isinstance(name, str) or not name:
            raise bad_input("a File or Directory of the initial work directory has no basename")
        put = self._put
        path = self._within(name)
        if path is None:
            put, path = self._mount, os.path.normpath(name)
        put(value, path, entry.writable)
        for other in value.get("secondaryFiles") or ():
            beside = os.path.join(os.path.dirname(path), str(other["basename"]))
            put(other, beside, entry.writable)

    def _known(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """An object as loaded: one of the inputs as it was staged, or one from the expression."""
        path = value.get("path") or value.get("location")
        if path in self.stager.sources or (path is None and "basename" in value):
            return dict(value)
        return load_object(value, "initial work directory")

    def _within(self, name: str) -> str | None:
        """The path of an entry; None for an absolute one that only a container has."""
        name = os.path.normpath(name)
        for outdir in (self.outdir, self.inside):
            name = name.removeprefix(f"{outdir}/")
        if name.startswith("/") and name != "/" and self.mounts is not None:
            return None
        if name == "." or leads_out(name):
            raise bad_input(
                f"initial work directory: {name!r} leads out of the output directory; absolute "
                "names need a container"
            )
        parent = self.outdir
        for part in name.split("/")[:-1]:
            parent = f"{parent}/{part}"
            if os.path.islink(parent):
                self._unfold(parent)
            os.makedirs(parent, exist_ok=True)
        return f"{self.outdir}/{name}"

    def _mount(self, value: Mapping[str, Any], path: str, writable: bool) -> None:
        """Put an entry aside, to be mounted at `path`."""
        assert self.mounts is not None
        aside = f"{self.stager.folder()}/{os.path.basename(path)}"
        self._put(value, aside, writable)
        real = os.path.realpath(aside)
        self.mounts.append(Mount(real, path, writable))
        if value.get("path") is not None:
            self.moved[value["path"]] = path
            self.stager.sources[path] = real

    def _unfold(self, path: str) -> None:
        """Turn a linked directory into one of links, so that it can hold more."""
        real = os.path.realpath(path)
        os.unlink(path)
        os.mkdir(path)
        for name in os.listdir(real):
            os.symlink(f"{real}/{name}", f"{path}/{name}")

    def _put(self, value: Mapping[str, Any], path: str, writable: bool) -> None:
        source = value.get("path")
        if os.path.islink(path):
            os.unlink(path)
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
            for one in value.get("listing") or ():
                self._put(one, f"{path}/{one['basename']}", writable)


def _copy(source: str, path: str) -> None:
    """A copy that the payload may change; stored files are read-only."""
    found = os.stat(source)  # noqa: PTH116
    if not stat.S_ISDIR(found.st_mode):
        if found.st_size < LARGE_BYTES or not clone_file(source, path):
            shutil.copyfile(source, path)
        os.chmod(path, stat.S_IMODE(found.st_mode) | stat.S_IRUSR | stat.S_IWUSR)  # noqa: PTH101
        return
    os.makedirs(path, exist_ok=True)
    for name in os.listdir(source):
        _copy(f"{source}/{name}", f"{path}/{name}")


def _moved(value: Any, moved: Mapping[str, str]) -> Any:
    """`value` with the paths of its Files and Directories as they are now."""
    if isinstance(value, list):
        return [_moved(one, moved) for one in value]
    if not isinstance(value, Mapping):
        return value
    made = {key: _moved(one, moved) for key, one in value.items()}
    if is_file_object(value) and value.get("path") in moved:
        set_place(made, moved[value["path"]])
        if made.get("listing"):
            move_listing(made, made["path"])
    return made
