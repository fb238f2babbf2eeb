"""The process that a step runs, as a node gets it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from catalog.errors import BadName, BadTemplate
from catalog.names import check_name
from flows.compile import cwltypes
from flows.compile.located import Mapping, Sequence, plain, refuse
from flows.compile.requirements import OF_TOOLS, Scope
from workers.cwl.expressions import compile_expression, parse_reference
from workers.cwl.normal import has_expression
from workers.cwl.scanner import Code, scan
from workers.cwl.tool import load_tool
from workers.spec import OutputPort

JAVASCRIPT = "InlineJavascriptRequirement"
LOG_PORT = "log"
_NAMES = ("entryname", "stdout", "stderr")


@dataclass(frozen=True)
class Output:
    """An output of a tool: what the node stores, and what CWL knows of it."""

    port: OutputPort
    type: Any
    secondary: tuple[str, ...]


def document(
    name: str, run: Mapping, scope: Scope, step_scope: Scope, expressions: bool
) -> dict[str, Any]:
    """The tool of stage `name` with all requirements that hold for it, in CWL's JSON form.

    `expressions`: the step has JavaScript of its own, which finds the `expressionLib` of
    `step_scope` through the tool. Raises BadTemplate where the two libraries differ, and where the
    engine that runs tools can't take this one.
    """
    requirements = {
        name: plain(entry) for name, entry in scope.requirements.items() if name in OF_TOOLS
    }
    hints = {name: plain(entry) for name, entry in scope.hints.items() if name in OF_TOOLS}
    if expressions:
        outer = step_scope.get(JAVASCRIPT)
        if outer is None:
            refuse(
                "the step has JavaScript (`when` or `valueFrom`) but no "
                f"{JAVASCRIPT}; add it to the workflow's `requirements`.",
                run,
            )
        requirements[JAVASCRIPT] = _library(outer, scope.get(JAVASCRIPT), run)
        hints.pop(JAVASCRIPT, None)
    tool = {key: plain(value) for key, value in run.items() if key != "$namespaces"}
    tool.update({"cwlVersion": "v1.2", "id": name})
    tool["requirements"] = list(requirements.values())
    tool["hints"] = list(hints.values())
    for port in tool["inputs"]:
        # Formats are compared here (see `fits`), because stored files carry none.
        port.pop("format", None)
    try:
        load_tool(tool)
    except BadTemplate as fault:
        refuse(f"step {name!r}: {fault.reason}", *_place(run, fault.reason))
    return tool


def _place(node: Any, reason: str) -> tuple[Any, str | int | None]:
    """Where in a tool the expression or name stands that a reason quotes; else the tool."""
    for key, value in node.items() if isinstance(node, Mapping) else enumerate(node):
        quotable = key in _NAMES or has_expression(value)
        if isinstance(value, str) and quotable and repr(value) in reason:
            return node, key
        if isinstance(value, (Mapping, Sequence)):
            found = _place(value, reason)
            if found[1] is not None:
                return found
    return node, None


def _library(outer: Mapping, inner: Mapping | None, run: Mapping) -> dict[str, Any]:
    found = plain(outer)
    theirs = plain(inner) if inner is not None else {}
    ours, own = found.get("expressionLib") or [], theirs.get("expressionLib") or []
    if ours and own and ours != own:
        refuse(
            "the step has JavaScript and an `expressionLib` other than its tool's; give both the "
            "same library.",
            run,
        )
    result: dict[str, Any] = {"class": JAVASCRIPT}
    if ours or own:
        result["expressionLib"] = ours or own
    return result


def outputs(run: Mapping, step: Mapping) -> dict[str, Output]:
    """The outputs that the step passes on, by port; raises BadTemplate where one can't be kept."""
    given = {port["id"]: port for port in run["outputs"]}
    _check_globs(run)
    found: dict[str, Output] = {}
    for index, name in enumerate(step["out"]):
        if name in found:
            refuse(f"step {step['id']!r} lists the output {name!r} twice.", step, "out")
        if name not in given:
            refuse(
                f"step {step['id']!r} passes on {name!r}, which its tool does not give; it gives "
                f"{', '.join(given) or 'nothing'}.",
                step["out"] if step["out"].lines else step,
                index if step["out"].lines else "out",
            )
        check_port(name, given[name])
        found[name] = _output(given[name])
    return found


def check_port(name: str, node: Mapping) -> None:
    """Raise BadTemplate if an output of that name can't become a dataset's name."""
    if name == LOG_PORT:
        refuse("an output can't be called `log`, the name of the jobs' log files; rename it.", node)
    try:
        check_name("output", name)
    except BadName as fault:
        refuse(str(fault), node)


def _output(port: Mapping) -> Output:
    kind, name = port["type"], port["id"]
    if "Directory" in set(cwltypes.parts(kind)):
        refuse(
            f"output {name!r} is a Directory, and only files are stored; let the tool pack it "
            "(`tar -cf`) and give that File.",
            port,
            "type",
        )
    if cwltypes.is_file(kind):
        stored = "File"
    elif cwltypes.is_file_array(kind):
        stored = "File[]"
    elif cwltypes.holds_files(kind) or "Any" in set(cwltypes.parts(kind)):
        refuse(
            f"output {name!r} is of type {cwltypes.describe(kind)}; an output is a File, a File[] "
            "or a value without files in it.",
            port,
            "type",
        )
    else:
        stored = "value"
    return Output(
        OutputPort(name, stored, cwltypes.is_optional(kind)),
        kind,
        tuple(item["pattern"] for item in port.get("secondaryFiles") or ()),
    )


def _check_globs(run: Mapping) -> None:
    for key in ("stdout", "stderr"):
        if key in run:
            _check_glob(run[key], run, key)
    for node, binding in _bindings(run["outputs"]):
        if isinstance(binding, Mapping) and "glob" in binding:
            for pattern in cwltypes.union(binding["glob"]):
                _check_glob(pattern, binding, "glob")
        elif node.get("type") in ("stdout", "stderr") and binding:
            refuse(f"a {node['type']} output has no `outputBinding`.", node, "outputBinding")


def _bindings(nodes: Any) -> Iterator[tuple[Mapping, Any]]:
    for node in nodes:
        yield node, node.get("outputBinding")
        for member in cwltypes.union(node["type"]):
            if cwltypes.kind(member) == "record" and isinstance(member, Mapping):
                yield from _bindings(member.get("fields") or ())


def _check_glob(pattern: Any, node: Mapping, key: str) -> None:
    if not isinstance(pattern, str) or "$(" in pattern or "${" in pattern:
        return
    if pattern.startswith("/") or ".." in pattern.split("/"):
        refuse(
            f"`{key}` is {pattern!r}, which leaves the job's folder; give a relative path "
            "without `..`.",
            node,
            key,
        )


def check_expression(value: Any, scope: Scope, node: Mapping, key: str) -> bool:
    """Whether `value` holds JavaScript; raises BadTemplate where it is not allowed or not valid."""
    requirement = scope.get(JAVASCRIPT)
    library = requirement.get("expressionLib") or () if requirement is not None else ()
    try:
        compile_expression(value, requirement is not None, library)
    except BadTemplate as fault:
        refuse(f"`{key}`: {fault.reason}", node, key)
    return has_expression(value) and any(
        isinstance(part, Code) and parse_reference(part.text) is None
        for part in scan(value.strip())
    )
