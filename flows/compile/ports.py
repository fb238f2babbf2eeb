"""The inputs of a step with what they are connected to."""

from typing import Any

from flows.compile import cwltypes
from flows.compile.connect import Names, connect
from flows.compile.located import Mapping, plain, refuse
from flows.compile.requirements import Scope
from flows.compile.wires import Port


def bind(step: Mapping, names: Names, scope: Scope) -> list[Port]:
    """The ports of `step` in the document's order.

    Raises BadTemplate for two of one name, a source that doesn't exist, and for a feature whose
    requirement is not declared.
    """
    scattered = set(step.get("scatter") or ())
    ports: dict[str, Port] = {}
    for entry in step.get("in") or ():
        name = entry["id"]
        what = f"port {name!r} of step {step['id']!r}"
        if name in ports:
            refuse(f"{what} is there twice; remove one.", entry)
        _check_features(entry, what, scope)
        wire = connect(entry, "source", names, what)
        default: Any = plain(entry.get("default"))
        if wire is not None and wire.default is not None:
            default = plain(wire.default)
        if name in scattered:
            # CWL gives a default to a list that is null, not to its items.
            default = None
        ports[name] = Port(
            name=name,
            node=entry,
            wire=wire,
            scattered=name in scattered,
            value_from=entry.get("valueFrom"),
            default=default,
            load_contents=bool(entry.get("loadContents"))
            or (wire is not None and wire.load_contents),
        )
    for name in scattered - ports.keys():
        refuse(
            f"step {step['id']!r} scatters over {name!r}, which is not in its `in`.",
            step,
            "scatter",
        )
    return list(ports.values())


def _check_features(entry: Mapping, what: str, scope: Scope) -> None:
    if len(cwltypes.union(entry.get("source") or [])) > 1:
        need(scope, "MultipleInputFeatureRequirement", f"{what} has several sources", entry)
    if "valueFrom" in entry:
        need(scope, "StepInputExpressionRequirement", f"{what} has `valueFrom`", entry)


def need(scope: Scope, requirement: str, what: str, node: Mapping) -> None:
    """Raise BadTemplate unless `requirement` is declared where `node` stands."""
    if scope.get(requirement) is None:
        refuse(
            f"{what}, which CWL allows only with {requirement}; add it to the workflow's "
            "`requirements`.",
            node,
        )
