"""What a step must be like before its links are looked at."""

from typing import Any

from flows.compile import cwltypes, hints
from flows.compile.located import Mapping, refuse
from flows.compile.ports import need
from flows.compile.requirements import Scope
from flows.compile.wires import Port


def scatter(step: Mapping, ports: list[Port], scope: Scope) -> None:
    """Raise BadTemplate where the way in which a step scatters can't be followed key by key."""
    names = [port.name for port in ports if port.scattered]
    method = step.get("scatterMethod")
    what = f"step {step['id']!r}"
    if not names:
        if method is not None or "scatter" in step:
            key = "scatter" if "scatter" in step else "scatterMethod"
            refuse(f"{what} names no port to scatter over; remove `{key}`.", step, key)
        return
    need(scope, "ScatterFeatureRequirement", f"{what} scatters", step)
    if method in ("nested_crossproduct", "flat_crossproduct"):
        refuse(
            f"{what} asks for {method}, which makes a job of each pair of files; only dotproduct, "
            "a job of each key, is supported.",
            step,
            "scatterMethod",
        )
    if len(names) > 1 and method is None:
        refuse(
            f"{what} scatters over {', '.join(names)}; write `scatterMethod: dotproduct`.",
            step,
            "scatter",
        )


def subworkflow(step: Mapping, ports: list[Port], scope: Scope, warnings: list[str]) -> None:
    """Raise BadTemplate for what a step that runs a Workflow can't have here."""
    what = f"step {step['id']!r}"
    need(scope, "SubworkflowFeatureRequirement", f"{what} runs a Workflow", step)
    if step.get("when") is not None:
        refuse(
            f"{what} runs a Workflow under `when`; put the `when` on the steps inside of it.",
            step,
            "when",
        )
    for hint in (*(step.get("hints") or ()), *(step["run"].get("hints") or ())):
        if hint["class"] == hints.MERGE:
            refuse(f"{hints.MERGE} belongs on the step that merges, not on {what}.", hint)
    known = {port["id"] for port in step["run"]["inputs"]}
    for port in ports:
        if port.value_from is not None:
            refuse(
                f"{what} runs a Workflow and has a `valueFrom`; put it on the step inside that "
                "uses the value.",
                port.node,
                "valueFrom",
            )
        if port.name not in known:
            warnings.append(
                f"{port.node.source}:{port.node.line}: {what} has the port {port.name!r}, which "
                f"its Workflow does not have; it has {', '.join(sorted(known)) or 'none'}."
            )


def inputs(step: Mapping, name: str, ports: list[Port]) -> None:
    """Raise BadTemplate for an input of the tool that gets nothing or can't get a value."""
    bound = {port.name: port for port in ports}
    for entry in step["run"]["inputs"]:
        port = bound.get(entry["id"])
        if "Directory" in set(cwltypes.parts(entry["type"])) and not cwltypes.is_optional(
            entry["type"]
        ):
            refuse(
                f"input {entry['id']!r} of step {name!r} is a Directory, and only files are "
                "staged; pass a packed File and let the tool unpack it.",
                entry,
                "type",
            )
        if cwltypes.is_optional(entry["type"]) or entry.get("default") is not None:
            continue
        if port is None:
            refuse(
                f"step {name!r} gives nothing to the input {entry['id']!r} of its tool; add it "
                "to `in`.",
                step,
                "in" if "in" in step else None,
            )
        if port.wire is None and port.value_from is None and port.default is None:
            refuse(
                f"port {entry['id']!r} of step {name!r} has neither `source` nor `default` nor "
                "`valueFrom`, and its tool needs a value.",
                port.node,
            )


def required_secondary(entry: Mapping) -> list[str]:
    """The patterns of the secondary files that an input asks for."""
    found: list[Any] = entry.get("secondaryFiles") or []
    return [item["pattern"] for item in found if item.get("required") is not False]
