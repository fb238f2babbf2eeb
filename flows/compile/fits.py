"""Whether what a port is connected to fits the input (or output) behind it."""

from flows.compile import cwltypes
from flows.compile.checks import required_secondary
from flows.compile.located import Mapping, refuse
from flows.compile.wires import Port, Wire


def check_type(port: Port, entry: Mapping, step: Mapping) -> None:
    """Raise BadTemplate where what a port is connected to doesn't fit the input behind it."""
    wire = port.wire
    if wire is None or port.value_from is not None:
        return
    given = wire.type if port.scattered and wire.array else wire.seen_type
    if wire.nulls and wire.array and not port.scattered:
        given = cwltypes.array_of(cwltypes.without_null(wire.type))
    if cwltypes.assignable(given, entry["type"]) != "no":
        return
    mend = "correct one of them"
    if wire.array and not port.scattered:
        mend = "`scatter` over the port for one job of each file"
    elif port.scattered and cwltypes.assignable(wire.seen_type, entry["type"]) != "no":
        mend = "remove the port from `scatter` to take the list as a whole"
    refuse(
        f"port {port.name!r} of step {step['id']!r} gets {cwltypes.describe(given)}, but its "
        f"input is {cwltypes.describe(entry['type'])}; {mend}.",
        port.node,
    )


def check_extras(port: Port, entry: Mapping, name: str, warnings: list[str]) -> None:
    """Raise BadTemplate where secondary files or the format are not what the input asks for."""
    wire = port.wire
    assert wire is not None
    missing = [one for one in required_secondary(entry) if one not in wire.secondary]
    if missing and (cwltypes.is_file(wire.type) or cwltypes.is_file_array(wire.type)):
        refuse(
            f"port {port.name!r} of step {name!r} asks for secondary files ({', '.join(missing)}), "
            "which its source does not have; pass them on a port of their own.",
            port.node,
        )
    for pattern in required_secondary(entry):
        if pattern in wire.maybe:
            warnings.append(
                f"{entry.source}:{entry.at('secondaryFiles')}: step {name!r} needs the secondary "
                f"file {pattern}, which its source may lack; its jobs fail where there is none."
            )
    formats = cwltypes.union(entry.get("format") or [])
    if not formats:
        return
    if wire.format is None or any("$(" in str(one) for one in formats):
        warnings.append(
            f"{entry.source}:{entry.at('format')}: the format of port {port.name!r} of step "
            f"{name!r} is not checked."
        )
    elif wire.format not in formats:
        refuse(
            f"port {port.name!r} of step {name!r} gets files of format {wire.format}, but takes "
            f"{', '.join(map(str, formats))}.",
            port.node,
        )


def warn_null(port: Port, entry: Mapping, name: str, warnings: list[str]) -> None:
    """Warn where an input that a user may leave out is needed by a tool."""
    wire = port.wire
    if wire is None or wire.fixed is None or port.value_from is not None:
        return
    loose = cwltypes.is_optional(wire.type) and not cwltypes.is_optional(entry["type"])
    if loose and wire.default is None and port.default is None and entry.get("default") is None:
        warnings.append(
            f"{port.node.source}:{port.node.line}: step {name!r} needs the optional input "
            f"{wire.fixed!r}; its jobs fail where it is not given."
        )


def check_output(node: Mapping, wire: Wire, what: str, warnings: list[str]) -> None:
    """Raise BadTemplate where a workflow's output doesn't fit its source."""
    given = wire.seen_type
    if wire.array and wire.nulls:
        given = cwltypes.array_of(["null", *cwltypes.without_null(wire.type)])
    if cwltypes.assignable(given, node["type"]) == "no":
        mend = "correct the type"
        if wire.array and wire.nulls:
            mend = "behind a filter, write `pickValue: all_non_null`"
        refuse(
            f"{what} is {cwltypes.describe(node['type'])}, but its source is "
            f"{cwltypes.describe(given)}; {mend}.",
            node,
        )
    if not wire.per_key:
        warnings.append(f"{node.source}:{node.line}: {what} is an input passed on; not stored.")
