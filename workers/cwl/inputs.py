"""A job's inputs: defaults, types, File objects, and what their declarations ask of them."""

# Paths are plain strings here: this runs for every file of every job.
# ruff: noqa: PTH110, PTH112, PTH116, PTH118, PTH119, PTH120

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workers.cwl.expressions import Expression, Scope
from workers.cwl.failures import bad_input
from workers.cwl.files import (
    check_object,
    contents_of,
    file_uri,
    listing_of,
    literal_name,
    name_it,
    place_of,
    set_place,
    shown,
)  # fmt: skip
from workers.cwl.formats import format_fits
from workers.cwl.left import ends
from workers.cwl.parameters import (
    Parameter,
    Type,
    is_file_object,
    is_required,
    listed,
    secondary_names,
)  # fmt: skip
from workers.cwl.staging import Stager, missing
from workers.cwl.tool import Tool
from workers.cwl.values import settled


def prepare_inputs(
    tool: Tool, job: Mapping[str, Any], stager: Stager | None, *, discover: bool = False
) -> dict[str, Any]:
    """The `inputs` that expressions and the command line see. `job` is left as it was.

    With a `stager` Files get their place in the stage directory. `discover` looks for secondary
    files beside a File that doesn't list them. Raises `ToolFailure` (BAD_JOB_INPUT,
    INPUT_MISSING).
    """
    inputs: dict[str, Any] = {}
    for one in tool.inputs:
        value = job.get(one.name)
        inputs[one.name] = one.default if value is None else value
    preparer = _Preparer(tool, inputs, stager, discover)
    for one in tool.inputs:
        value = inputs[one.name]
        if not one.type.fits(value):
            what = "it is missing" if value is None else f"it is {shown(value)}"
            raise bad_input(f"input {one.name!r} of {tool.name!r} must be {one.type}; {what}")
        if one.settles:
            value = inputs[one.name] = settled(one.type, value)
        if one.with_files and value is not None:
            inputs[one.name] = preparer.walk(one, one.type, value)
    return inputs


@dataclass(frozen=True)
class _Preparer:
    tool: Tool
    inputs: dict[str, Any]
    stager: Stager | None
    discover: bool

    def walk(self, declared: Parameter, kind: Type, value: Any) -> Any:
        """`value` with its Files and Directories made ready; they are copied, not changed."""
        kind = kind.member(value)
        if kind.kind in ("File", "Directory") or (kind.kind == "Any" and is_file_object(value)):
            return self._file_object(declared, value)
        if kind.kind == "array" and kind.items is not None:
            return [self.walk(declared, kind.items, one) for one in value]
        if kind.kind == "record":
            made = dict(value)
            for one in kind.fields:
                if one.with_files and made.get(one.name) is not None:
                    made[one.name] = self.walk(one, one.type, made[one.name])
            return made
        if kind.kind == "Any" and isinstance(value, Mapping):
            return {key: self.walk(declared, kind, one) for key, one in value.items()}
        if kind.kind == "Any" and isinstance(value, list | tuple):
            return [self.walk(declared, kind, one) for one in value]
        return value

    def _file_object(self, declared: Parameter, value: Mapping[str, Any]) -> dict[str, Any]:
        made = load_object(value, declared.name)
        if made["class"] == "Directory":
            self._load_listing(declared, made)
        else:
            if declared.formats:
                self._check_format(declared, made)
            if declared.secondary:
                self._find_secondary(declared, made)
            if declared.load_contents and "contents" not in made:
                made["contents"] = contents_of(made["path"], bad_input)
        return made if self.stager is None else self.stager.place(made)

    def _evaluate(self, expression: Expression, self_: Any) -> Any:
        return expression.within(Scope(self.inputs), self_)

    def _load_listing(self, declared: Parameter, made: dict[str, Any]) -> None:
        if made.get("path") is None:
            return
        mode = declared.load_listing or self.tool.load_listing
        if mode == "no_listing":
            made.pop("listing", None)
        else:
            made["listing"] = listing_of(made["path"], mode == "deep_listing", made["location"])

    def _check_format(self, declared: Parameter, made: Mapping[str, Any]) -> None:
        allowed: list[str] = []
        for one in declared.formats:
            found = listed(self._evaluate(one, None))
            if not all(isinstance(iri, str) for iri in found):
                raise one.fault(f"a format is a string or a list of them, not {found!r}")
            allowed += found
        actual = made.get("format")
        if actual is None or not format_fits(actual, allowed, self.tool.schemas):
            raise bad_input(
                f"input {declared.name!r} must have format {' or '.join(allowed)}; "
                f"{made.get('basename')!r} has {'none' if actual is None else actual}"
            )

    def _find_secondary(self, declared: Parameter, made: dict[str, Any]) -> None:
        """Check that the secondary files that the tool declares are there."""
        found: list[dict[str, Any]] = made.setdefault("secondaryFiles", [])
        here = {one.get("basename") for one in (made, *found)}
        for entry in declared.secondary:
            for wanted in secondary_names(entry, made, self._evaluate):
                extra = dict(wanted) if is_file_object(wanted) else self._beside(made, str(wanted))
                name = wanted if extra is None else extra.get("basename")
                if name in here:
                    continue
                if extra is not None:
                    found.append(load_object(extra, declared.name))
                    here.add(name)
                elif is_required(entry, made, self._evaluate):
                    raise bad_input(
                        f"input {declared.name!r}: {made['basename']!r} comes without its "
                        f"secondary file {wanted!r}"
                    )

    def _beside(self, made: Mapping[str, Any], name: str) -> dict[str, Any] | None:
        """The secondary file of that name in the primary's own directory."""
        if not self.discover or made.get("path") is None:
            return None
        path = os.path.join(os.path.dirname(made["path"]), name)
        if not os.path.exists(path):
            return None
        kind = "Directory" if os.path.isdir(path) else "File"
        return {"class": kind, "path": path, "basename": os.path.basename(path)}


def load_object(value: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A copy of a File or Directory object with all the fields that CWL gives it.

    `path` is where it lies now; a literal has none. Raises `ToolFailure`.
    """
    check_object(value, bad_input)
    made = dict(value)
    where: str | None = made.get("path") or made.get("location")
    if where is None or ("contents" in made and made.get("path") is None):
        _literal(made, name)
    else:
        path = place_of(value)
        if path is None or not path.startswith("/"):
            raise bad_input(f"input {name!r}: {where!r} is no absolute path of this machine")
        _existing(made, path.rstrip("/") or "/", name)
    if made.get("secondaryFiles"):
        made["secondaryFiles"] = [load_object(one, name) for one in made["secondaryFiles"]]
    return made


def _literal(made: dict[str, Any], name: str) -> None:
    made.pop("path", None)
    made.pop("location", None)
    if made["class"] == "Directory":
        if not isinstance(made.get("listing"), list):
            raise bad_input(f"input {name!r}: a Directory needs a path, a location or a listing")
        made["listing"] = [load_object(one, name) for one in made["listing"]]
    elif not isinstance(made.get("contents"), str):
        raise bad_input(f"input {name!r}: a File needs a path, a location or contents")
    name_it(made, literal_name(made))


def _existing(made: dict[str, Any], path: str, name: str) -> None:
    try:
        found = os.stat(path)
    except OSError:
        raise missing(path, name) from None
    fits = stat.S_ISDIR(found.st_mode) if made["class"] == "Directory" else ends(found)
    if not fits:
        raise bad_input(f"input {name!r}: {path!r} is not a {made['class']}")
    basename = made.get("basename")
    set_place(made, path)
    made.setdefault("location", file_uri(path))
    if made["class"] == "File":
        made["size"] = found.st_size
    if basename is not None and basename != made["basename"]:
        name_it(made, basename)
