"""The formats of files, as far as a template tells them before anything runs."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from flows.compile import cwltypes
from flows.compile.located import Mapping, plain, refuse
from flows.compile.wires import Port, Wire
from workers.cwl.expressions import parse_reference
from workers.cwl.normal import has_expression
from workers.cwl.scanner import Code, scan

Known = tuple[str | None, str | None]
"""A format, and why it can't be known; neither, where nothing says that there is one."""

_READ = re.compile(r"""\.\s*format\b|\[\s*(["'])format\1\s*\]""")
_ALL_INPUTS = re.compile(r"""\binputs\b(?!\s*[.\w])(?!\s*\[\s*["'])""")


def of_input(port: Mapping) -> Known:
    """The format of the files that an input of a workflow takes."""
    allowed = cwltypes.union(port.get("format") or [])
    if not allowed:
        return None, None
    if len(allowed) > 1 or has_expression(allowed[0]):
        return None, f"input {port['id']!r} takes files of more than one format"
    default = port.get("default")
    own = default.get("format") if isinstance(default, Mapping) else None
    if own is not None and own != allowed[0]:
        return None, f"the default of input {port['id']!r} is of a format of its own"
    return str(allowed[0]), None


def passed(wire: Wire, output: Mapping) -> Wire:
    """What a workflow gives on an output: CWL assigns the format that the output declares."""
    form = output.get("format")
    if form is None:
        return wire
    if has_expression(form):
        why = f"output {output['id']!r} declares it by an expression"
        return replace(wire, format=None, vague=why)
    return replace(wire, format=str(form), vague=None)


def of_output(port: Mapping, run: Mapping, ports: Sequence[Port]) -> Known:
    """The format of the files that a tool gives on an output, `ports` being what feeds it."""
    form, name = port.get("format"), port["id"]
    if form is not None:
        if not has_expression(form):
            return str(form), None
        source = _copied(str(form), ports)
        if source is not None:
            return source.format, source.vague
        return None, f"output {name!r} declares it by an expression"
    made = run.get("expression") or (port.get("outputBinding") or {}).get("outputEval")
    if not has_expression(made):
        return None, None
    given = any(
        wire.format or wire.vague or wire.fixed
        for wire in (feed.wire for each in ports for feed in each.feeds())
        if wire is not None and cwltypes.holds_files(wire.type)
    )
    if "format" in str(made) or (given and "inputs" in str(made)):
        return None, f"an expression makes output {name!r}, which declares none"
    return None, None


def check_reads(
    step: Mapping, ports: Sequence[Port], document: dict[str, Any], warnings: list[str]
) -> None:
    """Raise BadTemplate where a stage's expressions read a format that can't be known.

    `document` is the stage's tool. Where nothing says that there is a format, there is none: that
    is a warning.
    """
    library = any(
        _READ.search(str(text))
        for one in document["requirements"]
        for text in one.get("expressionLib") or ()
    )
    for port in ports:
        wires = [
            feed.wire
            for feed in port.feeds()
            if feed.wire is not None and cwltypes.holds_files(feed.wire.type)
        ]
        if not wires or not _reads(step, port, document, library):
            continue
        what = f"step {step['id']!r} reads the `format` of its input {port.name!r}"
        vague = next((wire.vague for wire in wires if wire.vague is not None), None)
        if vague is not None:
            refuse(
                f"{what}, which can't be told before it runs: {vague}; declare one format there, "
                "or pass what the expression asks for as a value.",
                port.node,
            )
        if any(wire.format is None and wire.fixed is None for wire in wires):
            warnings.append(
                f"{port.node.source}:{port.node.line}: {what}, which has none: nothing before it "
                "declares one."
            )


def _reads(step: Mapping, port: Port, document: dict[str, Any], library: bool) -> bool:
    own = [entry for entry in document["inputs"] if entry["id"] == port.name]
    if any(_READ.search(code) for code in _codes([port.value_from, *own])):
        return True
    name = re.escape(port.name)
    named = re.compile(rf"""\binputs\s*(\.\s*{name}\b|\[\s*(["']){name}\2\s*\])""")
    texts = [step.get("when"), document, *(plain(entry.get("valueFrom")) for entry in step["in"])]
    return any(
        (library or _READ.search(code)) and (named.search(code) or _ALL_INPUTS.search(code))
        for code in _codes(texts)
    )


def _codes(value: Any) -> Iterator[str]:
    """The expressions in a value."""
    if isinstance(value, str):
        if has_expression(value):
            yield from (part.text for part in scan(value) if isinstance(part, Code))
    elif isinstance(value, dict):
        for key, item in value.items():
            if key not in ("doc", "label", "expressionLib"):
                yield from _codes(item)
    elif isinstance(value, list):
        for item in value:
            yield from _codes(item)


def _copied(form: str, ports: Sequence[Port]) -> Wire | None:
    """What feeds the input whose format an output takes: `$(inputs.NAME.format)`."""
    parts = scan(form.strip())
    if len(parts) != 1 or not isinstance(parts[0], Code):
        return None
    reference = parse_reference(parts[0].text)
    if reference is None or reference.root != "inputs" or len(reference.segments) != 2:
        return None
    name, field = reference.segments
    port = next((one for one in ports if one.name == name), None)
    if field != "format" or port is None or port.value_from is not None:
        return None
    return None if port.default is not None else port.wire
