"""How the ports of a stage are fed: by key, by groups of keys, or the same for all jobs."""

import re

from flows.compile import cwltypes
from flows.compile.fits import check_extras, check_type, warn_null
from flows.compile.located import Mapping, refuse
from flows.compile.wires import Port, Wire, descents
from flows.plan import Link, Pick, StageKind


def shape(step: Mapping, name: str, ports: list[Port], inside: str | None) -> tuple[StageKind, str]:
    """Whether a step maps or merges, and the descent of what it gives.

    Raises BadTemplate where files can't be assigned to jobs by their keys.
    """
    ports = [feed for port in ports for feed in port.feeds()]
    wires = [port.wire for port in ports if port.wire is not None and port.wire.per_key]
    scattered = [port.wire for port in ports if port.scattered and port.wire is not None]
    check_scatter(step, scattered, inside)
    if len(scattered) < sum(port.scattered for port in ports):
        refuse(f"step {name!r} scatters over a port without `source`.", step, "scatter")
    if not wires:
        refuse(
            f"step {name!r} takes nothing from the dataset, so it has no jobs; run it before, and "
            "make its result an input of the workflow.",
            step,
        )
    if inside is not None and any(wire.array or wire.descent != inside for wire in wires):
        refuse(
            f"step {name!r} stands in a scattered subworkflow and takes a list of files from "
            "outside of it; each of its jobs has one file. Merge outside.",
            step,
        )
    whole = [port for port in ports if port.wire in wires and not port.scattered and _array(port)]
    if scattered and len(scattered) < len(wires):
        refuse(
            f"step {name!r} scatters over some ports and takes files as a whole on others; each "
            "job would read them all. Scatter over all ports, or use two templates with the "
            "merged file as an input of the second.",
            step,
        )
    if len({wire.descent for wire in wires}) > 1:
        refuse(
            f"step {name!r} joins files of different descent ({descents(wires)}), which have no "
            "keys in common; join them before the merge, or use two templates with the merged "
            "file as an input of the second.",
            step,
        )
    if not whole:
        return StageKind.MAP, wires[0].descent
    if len(whole) < len(wires):
        refuse(f"step {name!r} takes a list of files and single files; scatter, or merge.", step)
    _check_whole(name, whole)
    return StageKind.MERGE, name


def _array(port: Port) -> bool:
    return port.wire is not None and port.wire.array


def _check_whole(name: str, ports: list[Port]) -> None:
    wires = [port.wire for port in ports if port.wire is not None]
    for port, wire in zip(ports, wires, strict=True):
        if not cwltypes.is_file(wire.type):
            refuse(
                f"port {port.name!r} of step {name!r} takes the list of all values of type "
                f"{cwltypes.describe(wire.type)}; only single files are merged, so let the step "
                "before write what it gives into one file.",
                port.node,
            )
        if wire.nulls:
            refuse(
                f"port {port.name!r} of step {name!r} takes a list in which a filter leaves "
                "nulls; write `pickValue: all_non_null` beside its `source`.",
                port.node,
            )
    stages = {source.stage is None for wire in wires for source in wire.sources}
    if len(stages) > 1:
        refuse(
            f"step {name!r} merges the input dataset itself together with what steps made of it; "
            "merge each in its own step.",
            ports[-1].node,
        )
    if len(wires) > 1 and (
        len({wire.gone for wire in wires}) > 1 or any(wire.flattened for wire in wires)
    ):
        refuse(
            f"step {name!r} merges several lists of unequal length; merge each in its own step.",
            ports[1].node,
        )


def check_scatter(step: Mapping, wires: list[Wire], inside: str | None) -> None:
    """Raise BadTemplate where a step can't scatter over what its ports are connected to."""
    what = f"step {step['id']!r}"
    for wire in wires:
        if not wire.per_key:
            refuse(
                f"{what} scatters over a fixed input; jobs are made of the dataset's files only. "
                "Give the whole list to each job.",
                step,
                "scatter",
            )
        if not wire.array:
            refuse(
                f"{what} scatters over what is a single {cwltypes.describe(wire.type)} here; "
                "remove `scatter`.",
                step,
                "scatter",
            )
        if wire.flattened:
            refuse(
                f"{what} scatters over several lists together, in which a key may stand twice; "
                "let the branches meet with `first_non_null` in a scattered subworkflow.",
                step,
                "scatter",
            )
    if inside is not None and wires:
        refuse(
            f"{what} scatters inside a scattered subworkflow over a list from outside of it; that "
            "makes a job of each pair of files, which is not supported.",
            step,
            "scatter",
        )
    if len({wire.descent for wire in wires}) > 1:
        refuse(
            f"{what} scatters over files of different descent ({descents(wires)}), which have no "
            "keys in common; scatter over what comes from the same files.",
            step,
            "scatter",
        )
    if len({wire.gone for wire in wires}) > 1:
        refuse(
            f"{what} joins a filtered list with one that is not (or filtered otherwise): their "
            "lengths differ. Remove `pickValue` and guard the step with `when: $(inputs.PORT !== "
            "null)`.",
            step,
            "scatter",
        )


def links(
    step: Mapping, name: str, ports: list[Port], kind: StageKind, warnings: list[str]
) -> tuple[Link, ...]:
    """The links of a stage; raises BadTemplate for a type that doesn't fit or a loose null."""
    entries = {entry["id"]: entry for entry in step["run"]["inputs"]}
    found = []
    for port in ports:
        entry = entries.get(port.name)
        if port.wire is None:
            continue
        if entry is not None:
            check_type(port, entry, step)
            check_extras(port, entry, name, warnings)
            warn_null(port, entry, name, warnings)
        for feed in port.feeds():
            if feed.wire is not None and feed.wire.per_key:
                found.append(_link(step, name, feed, entry if feed is port else None))
    _check_gone(step, name, ports, found)
    return tuple(found)


def _link(step: Mapping, name: str, port: Port, entry: Mapping | None) -> Link:
    wire = port.wire
    assert wire is not None
    kind = _kind(name, port, wire)
    if wire.nulls and not _handles_null(step, port, entry):
        _refuse_null(name, port, wire)
    pick = Pick.ALL_NON_NULL if wire.flattened else wire.pick
    return Link(
        port=port.name,
        sources=wire.sources,
        kind=kind,
        pick=pick,
        # Of branches of which none gave a value, CWL makes an error; but a key that a filter took
        # out before is none.
        null_skips=bool(wire.gone) if wire.pick is not None else not wire.nulls,
    )


def _kind(name: str, port: Port, wire: Wire) -> str:
    """What a port gets of each key: a File, a list of files that one job made, or a value."""
    if cwltypes.is_file(wire.type):
        return "File"
    if not cwltypes.holds_files(wire.type):
        return "value"
    if cwltypes.is_file_array(wire.type) and not cwltypes.is_optional(wire.type):
        return "File[]"
    refuse(
        f"port {port.name!r} of step {name!r} takes {cwltypes.describe(wire.type)} of each job; "
        "give its source the type `File[]`, for which an empty list says that there are none.",
        port.node,
    )


def _refuse_null(name: str, port: Port, wire: Wire) -> None:
    causes = ", ".join(sorted(wire.nulls))
    mend = f"`when: $(inputs.{port.name} !== null)` on the step"
    if port.scattered:
        mend = f"`pickValue: all_non_null` beside the `source`, or {mend} where it joins others"
    refuse(
        f"port {port.name!r} of step {name!r} may be null ({causes}), and nothing guards the "
        f"step; write {mend}.",
        port.node,
    )


def _handles_null(step: Mapping, port: Port, entry: Mapping | None) -> bool:
    """Whether the step deals with a null on the port: its guard, default, type or `valueFrom`."""
    if entry is None or port.value_from is not None or port.default is not None:
        return True
    if cwltypes.is_optional(entry["type"]) or entry.get("default") is not None:
        return True
    return guards(step, port.name)


def guards(step: Mapping, port: str) -> bool:
    """Whether the `when` of a step looks at the port."""
    text = step.get("when")
    if not isinstance(text, str):
        return False
    name = re.escape(port)
    return bool(
        re.search(rf"""\binputs\s*(\.\s*{name}\b|\[\s*["']{name}["']\s*\])""", text)
        or re.search(r"\binputs\b(?!\s*[.\[\w])", text)
    )


def _check_gone(step: Mapping, name: str, ports: list[Port], found: list[Link]) -> None:
    """A key that a filter removed must stop here too, where nulls of others are let through."""
    skipping = any(link.null_skips for link in found)
    for port in ports:
        wire = port.wire
        if wire is None or not (wire.nulls and wire.gone) or skipping:
            continue
        if not guards(step, port.name):
            refuse(
                f"port {port.name!r} of step {name!r} may be null and comes after a filter; guard "
                f"the step with `when: $(inputs.{port.name} !== null)`.",
                port.node,
            )
