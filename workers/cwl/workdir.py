"""InitialWorkDirRequirement: what lies in the output directory before the payload starts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from workers.cwl.containers import Mount
from workers.cwl.dirents import Dirent
from workers.cwl.expressions import Expression, Scope
from workers.cwl.failures import bad_input
from workers.cwl.files import set_place
from workers.cwl.layout import Layout
from workers.cwl.numbers import json_text
from workers.cwl.parameters import is_file_object
from workers.cwl.staging import Stager, move_listing
from workers.cwl.tool import Tool


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

    `mounts` of a container get what lies elsewhere in it. Raises `ToolFailure`, also where two
    things would lie at one path.
    """
    if not isinstance(tool.work_dir, Expression) and not tool.work_dir:
        return scope
    inside = tool.container and tool.container.outdir
    layout = Layout(outdir, inside or outdir, stager, tool.inplace, mounts)
    for entry in _entries(tool, scope):
        layout.add(entry.value, entry.name, entry.writable)
    layout.lay()
    return Scope(_moved(scope.inputs, layout.moved), scope.runtime)


def _entries(tool: Tool, scope: Scope) -> Iterator[_Entry]:
    if isinstance(tool.work_dir, Expression):
        found = tool.work_dir.within(scope)
        if not isinstance(found, list):
            raise tool.work_dir.fault("a work directory's listing is a list")
        yield from _evaluated(found, tool.work_dir)
        return
    for one in tool.work_dir:
        if isinstance(one, Dirent):
            yield from _of_dirent(one, scope)
        else:
            yield from _evaluated(one.within(scope), one)


def _evaluated(found: Any, source: Expression) -> Iterator[_Entry]:
    """What an expression of a listing gave: null, a File, a Directory, a Dirent or a list."""
    if found is None:
        return
    if isinstance(found, list):
        for one in found:
            yield from _evaluated(one, source)
    elif is_file_object(found):
        yield _Entry(found, None, bool(found.get("writable")))
    elif isinstance(found, Mapping) and "entry" in found:
        name, value = found.get("entryname"), found["entry"]
        if value is None:
            return
        yield _Entry(_text_or_object(value), name, bool(found.get("writable")))
    else:
        raise source.fault(f"a work directory can't hold {found!r}")


def _of_dirent(dirent: Dirent, scope: Scope) -> Iterator[_Entry]:
    value = dirent.entry.within(scope)
    if value is None:
        return
    name = None if dirent.name is None else dirent.name.within(scope)
    if dirent.name is not None and name is not None and not isinstance(name, str):
        raise dirent.name.fault(f"an entryname is a string, not {name!r}")
    if value == [] and name is None:
        return
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
    return json_text(value)


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
