"""Collecting a tool's outputs: CWL v1.2 CommandLineTool, section Output binding."""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalog.errors import ErrorCode
from workers.cwl.expressions import Expression, Scope
from workers.cwl.failures import ToolFailure, bad_output
from workers.cwl.files import contents_of, leads_out, listing_of, shown
from workers.cwl.findings import Findings
from workers.cwl.left import read_left
from workers.cwl.parameters import (
    OutputBinding,
    Parameter,
    Type,
    is_file_object,
    is_required,
    listed,
    secondary_names,
)  # fmt: skip
from workers.cwl.tool import Tool
from workers.cwl.values import settled

log = logging.getLogger(__name__)

OUTPUT_JSON = "cwl.output.json"
_MOST_BYTES = 16 << 20
"""Of an output object that a payload writes."""
_MOST_NAMED = 5


def collect_outputs(tool: Tool, scope: Scope, findings: Findings) -> dict[str, Any]:
    """The output object of a payload that ended well. Raises `ToolFailure`.

    OUTPUT_MISSING: a required file was not made; OUTPUT_INVALID: something doesn't fit its
    declaration, or lies outside the output directory.
    """
    findings.check_place()
    given = _output_json(findings)
    if given is not None:
        if left := _unknown(tool, given):
            log.warning(
                "an output object has keys that are no outputs",
                extra={"tool": tool.name, "keys": left},
            )
        return _adopted(tool, scope, findings, given)
    collector = _Collector(tool, scope, findings)
    return {one.name: collector.checked(one, collector.collect(one)) for one in tool.outputs}


def expression_outputs(
    tool: Tool, scope: Scope, findings: Findings, given: Mapping[str, Any]
) -> dict[str, Any]:
    """The output object of an ExpressionTool out of what it gave. Raises `ToolFailure`.

    EXPRESSION_FAILED: it names an output that there isn't.
    """
    if left := _unknown(tool, given):
        assert tool.expression is not None
        there = ", ".join(one.name for one in tool.outputs) or "none"
        raise tool.expression.fault(
            f"{', '.join(left)} is no output of {tool.name!r}, which has: {there}"
        )
    return _adopted(tool, scope, findings, given)


def _unknown(tool: Tool, given: Mapping[str, Any]) -> list[str]:
    """The keys of an output object that are no outputs, as text of which there isn't too much."""
    names = {one.name for one in tool.outputs}
    return [shown(key) for key in given if key not in names][:_MOST_NAMED]


def _adopted(
    tool: Tool, scope: Scope, findings: Findings, given: Mapping[str, Any]
) -> dict[str, Any]:
    """The output object out of one that an expression or `cwl.output.json` gave."""
    collector = _Collector(tool, scope, findings)
    made = {}
    for one in tool.outputs:
        value = given.get(one.name)
        if value is not None and one.formats and one.output is None:
            value = collector.with_format(one, value)
        made[one.name] = collector.checked(one, value)
    return made


def _output_json(findings: Findings) -> Mapping[str, Any] | None:
    path = Path(findings.outdir, OUTPUT_JSON)
    if not os.path.lexists(path):
        return None
    findings.check_inside(str(path))
    try:
        text = read_left(path, _MOST_BYTES, follow=True).decode("utf-8")
        given = json.loads(text, parse_constant=_no_number)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise bad_output(f"{OUTPUT_JSON} can't be read: {why}") from error
    if not isinstance(given, Mapping):
        raise bad_output(f"{OUTPUT_JSON} holds {shown(given)}; an object was expected")
    return given


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


@dataclass(frozen=True)
class _Collector:
    tool: Tool
    scope: Scope
    findings: Findings

    def collect(self, declared: Parameter) -> Any:
        """What an output is, before it is checked."""
        if declared.output is not None:
            return self._bound(declared, declared.output)
        kind = _main_type(declared.type)
        if _is_collected(kind):
            made = {one.name: self.collect(one) for one in kind.fields}
            return None if declared.type.optional and _lacks(kind, made) else made
        return None

    def checked(self, declared: Parameter, value: Any) -> Any:
        """`value` with its Files as they are on disk, if it is what the tool declares."""
        if value is not None and declared.with_files:
            value = self.findings.adopt(value)
        if declared.type.fits(value):
            return settled(declared.type, value) if declared.settles else value
        if value is None or value == []:
            globs = [one.text for one in declared.output.globs] if declared.output else []
            how = f"nothing matches {' or '.join(map(str, globs))}" if globs else "it is null"
            raise ToolFailure(
                ErrorCode.OUTPUT_MISSING,
                f"output {declared.name!r} of {self.tool.name!r} was not made: {how}",
            )
        raise bad_output(
            f"output {declared.name!r} of {self.tool.name!r} must be {declared.type}; "
            f"it is {shown(value)}"
        )

    def with_format(self, declared: Parameter, value: Any) -> Any:
        """`value` with its Files' format set to what the output declares."""
        if isinstance(value, list):
            return [self.with_format(declared, one) for one in value]
        if isinstance(value, Mapping) and value.get("class") == "File":
            found = self._evaluate(declared.formats[0], value)
            if not isinstance(found, str):
                raise declared.formats[0].fault(f"a format is a string, not {found!r}")
            return {**value, "format": found}
        return value

    def _evaluate(self, expression: Expression, self_: Any) -> Any:
        return expression.within(self.scope, self_)

    def _bound(self, declared: Parameter, binding: OutputBinding) -> Any:
        found = [self._loaded(one, binding) for one in self._globbed(binding)]
        result: Any = found
        if binding.output_eval is not None:
            result = self._evaluate(binding.output_eval, found)
        result = _shaped(declared, result, binding.output_eval is not None)
        if result is None:
            return None
        if declared.secondary:
            if isinstance(result, list):
                result = [self._with_secondary(declared, one) for one in result]
            else:
                result = self._with_secondary(declared, result)
        return self.with_format(declared, result) if declared.formats else result

    def _globbed(self, binding: OutputBinding) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for one in binding.globs:
            patterns = listed(self._evaluate(one, None))
            for pattern in patterns:
                if not isinstance(pattern, str):
                    raise one.fault(f"a glob is a string, not {pattern!r}")
            for made in self.findings.glob(
                patterns, literal=binding.literal, made=not one.constant
            ):
                found.setdefault(made["path"], made)
        return list(found.values())

    def _loaded(self, found: dict[str, Any], binding: OutputBinding) -> dict[str, Any]:
        if found["class"] == "File":
            if binding.load_contents:
                found["contents"] = contents_of(found["path"], bad_output)
            return found
        mode = binding.load_listing or self.tool.load_listing
        if mode == "deep_listing":
            self.findings.check_tree(found["path"])
        if mode != "no_listing":
            found["listing"] = listing_of(found["path"], mode == "deep_listing")
        return found

    def _with_secondary(self, declared: Parameter, value: Any) -> Any:
        if not isinstance(value, Mapping) or value.get("class") != "File":
            return value
        primary = self.findings.named(value)
        extras = primary["secondaryFiles"] = list(primary.get("secondaryFiles") or ())
        here = {self.findings.named(one)["basename"] for one in (primary, *extras)}
        for entry in declared.secondary:
            for wanted in secondary_names(entry, primary, self._evaluate):
                found = (
                    self.findings.named(wanted)
                    if is_file_object(wanted)
                    else self._beside(primary, str(wanted))
                )
                if found is not None:
                    if found["basename"] not in here:
                        extras.append(found)
                        here.add(found["basename"])
                elif is_required(entry, primary, self._evaluate):
                    raise ToolFailure(
                        ErrorCode.OUTPUT_MISSING,
                        f"output {declared.name!r}: {primary['basename']!r} was made without its "
                        f"secondary file {wanted!r}",
                    )
        return primary

    def _beside(self, primary: Mapping[str, Any], name: str) -> dict[str, Any] | None:
        if leads_out(name):
            raise bad_output(f"secondary file {name!r} leads out of the output directory")
        if primary.get("path") is None:
            return None
        path = Path(primary["path"]).parent / name
        if not path.exists():
            return None
        kind = "Directory" if path.is_dir() else "File"
        return {"class": kind, "path": str(path), "basename": path.name}


def _main_type(kind: Type) -> Type:
    """The type without null."""
    rest = [one for one in kind.members if one.kind != "null"]
    return rest[0] if kind.kind == "union" and len(rest) == 1 else kind


def _is_collected(kind: Type) -> bool:
    """Whether it is a record of which a field, or a field of a field, is found by a binding."""
    return kind.kind == "record" and any(
        one.output is not None or _is_collected(_main_type(one.type)) for one in kind.fields
    )


def _lacks(kind: Type, made: Mapping[str, Any]) -> bool:
    """Whether a record of which nothing was made lacks what it needs."""
    return not kind.fits(made) and all(value in (None, []) for value in made.values())


def _shaped(declared: Parameter, result: Any, evaluated: bool) -> Any:
    """A glob's list as the one File that is declared, or as null where none is fine."""
    kinds = declared.type.members or (declared.type,)
    single = any(one.kind in ("File", "Directory") for one in kinds)
    is_list = isinstance(result, list)
    if is_list and not result and (declared.type.optional or single):
        return None
    if not is_list or not single or (evaluated and declared.type.fits(result)):
        return result
    if len(result) == 1:
        return result[0]
    if any(one.kind == "array" for one in kinds):
        return result
    names = ", ".join(str(one.get("basename") if is_file_object(one) else one) for one in result)
    raise bad_output(f"output {declared.name!r} is one file, but {len(result)} match: {names}")
