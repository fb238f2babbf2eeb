"""What a `source` or `outputSource` stands for: one connection, or several made one."""

from collections.abc import Iterable
from collections.abc import Mapping as AnyMapping
from dataclasses import replace
from typing import Any

from flows.compile import cwltypes
from flows.compile.located import Mapping, refuse
from flows.compile.wires import ROOT, Gathering, Wire, descents
from flows.plan import Pick

Names = AnyMapping[str, Wire]


def connect(node: Mapping, key: str, names: Names, what: str) -> Wire | None:
    """The wire that `source` (or `outputSource`) under `key` of `node` stands for.

    Raises BadTemplate for a source that doesn't exist and for a combination of sources that
    can't be followed key by key.
    """
    listed = node.get(key)
    if listed is None or listed == []:
        if node.get("pickValue") or node.get("linkMerge"):
            refuse(f"{what} has no `{key}` to pick from or to merge.", node)
        return None
    sources = [str(item) for item in cwltypes.union(listed)]
    wires = [_named(source, names, node, key, what) for source in sources]
    picking = node.get("pickValue")
    if len(wires) == 1:
        return _one(wires[0], picking, node, what)
    return _several(wires, picking, node, key, what)


def several(node: Mapping, key: str) -> bool:
    """Whether `node` names more than one source under `key`."""
    return len(cwltypes.union(node.get(key) or [])) > 1


def gathered_output(node: Mapping, names: Names, what: str) -> Wire:
    """What an output of the whole workflow stands for that has several sources.

    Each is stored by itself, so nothing has to fit together. Raises BadTemplate for a source that
    doesn't exist.
    """
    listed = [str(item) for item in cwltypes.union(node["outputSource"])]
    wires = [_named(source, names, node, "outputSource", what) for source in listed]
    return Wire(node["type"], sources=tuple(source for wire in wires for source in wire.sources))


def _named(source: str, names: Names, node: Mapping, key: str, what: str) -> Wire:
    if source in names:
        return names[source]
    step = source.partition("/")[0]
    ports = [name for name in names if name.startswith(f"{step}/")]
    if "/" in source and ports:
        hint = f"step {step!r} gives {', '.join(name.partition('/')[2] for name in ports)}"
    else:
        hint = f"there are {', '.join(names) or 'none'}"
    return refuse(f"{what} has the source {source!r}, which does not exist; {hint}.", node, key)


def _one(wire: Wire, picking: Any, node: Mapping, what: str) -> Wire:
    merging = node.get("linkMerge")
    if not wire.array and (merging or (picking and cwltypes.is_array(wire.type))):
        return _gathered([wire], picking, node, what, flattened=merging != "merge_nested")
    if merging == "merge_nested":
        refuse(f"{what} makes a list of one list; remove `linkMerge`.", node, "linkMerge")
    if picking is None:
        return wire
    if picking != "all_non_null" or not wire.array:
        refuse(
            f"{what} says `pickValue: {picking}` of one source, which is "
            + (
                "the list over all files; only `all_non_null` keeps one value for each file."
                if wire.array
                else "no list; remove `pickValue`, or name the sources to pick from."
            ),
            node,
            "pickValue",
        )
    return replace(
        wire,
        type=cwltypes.required(wire.type),
        gone=wire.gone | wire.nulls,
        nulls=frozenset(),
    )


def _several(wires: list[Wire], picking: Any, node: Mapping, key: str, what: str) -> Wire:
    keyed = [wire for wire in wires if wire.per_key]
    if len({wire.descent for wire in keyed}) > 1:
        refuse(
            f"{what} combines files of different descent ({descents(keyed)}), which have no keys "
            "in common; join them before the merge, or use two templates.",
            node,
            key,
        )
    arrays = [wire.array for wire in wires]
    if all(arrays):
        return _flatten(wires, picking, node, key, what)
    if any(arrays):
        refuse(
            f"{what} combines the list over all files with single values; give each its own port.",
            node,
            key,
        )
    if len(keyed) == len(wires) and picking in ("first_non_null", "the_only_non_null"):
        return _branches(wires, picking, node, what)
    flattened = node.get("linkMerge") == "merge_flattened"
    return _gathered(wires, picking, node, what, flattened=flattened)


def _flatten(wires: list[Wire], picking: Any, node: Mapping, key: str, what: str) -> Wire:
    if node.get("linkMerge") != "merge_flattened" or picking not in (None, "all_non_null"):
        refuse(
            f"{what} takes several lists, from which CWL makes a list of lists; write "
            "`linkMerge: merge_flattened` for a merge of all files (with `pickValue: "
            "all_non_null` behind filters), or let branches meet in a scattered subworkflow.",
            node,
            key,
        )
    if any(len(wire.sources) > 1 for wire in wires):
        refuse(f"{what} merges what is itself picked from several sources.", node, key)
    nulls: frozenset[str] = frozenset().union(*(wire.nulls for wire in wires))
    merged = replace(
        wires[0],
        type=_union_type(wires, drop_null=picking is not None),
        sources=tuple(source for wire in wires for source in wire.sources),
        flattened=True,
        nulls=frozenset() if picking else nulls,
        gone=frozenset().union(*(wire.gone for wire in wires)) | (nulls if picking else set()),
    )
    return _common(merged, wires)


def _branches(wires: list[Wire], picking: Any, node: Mapping, what: str) -> Wire:
    if any(
        wire.pick not in (None, Pick(picking)) or wire.flattened or wire.parts for wire in wires
    ) or (picking == "the_only_non_null" and any(wire.pick for wire in wires)):
        refuse(f"{what} picks from what is itself picked; name all branches in one place.", node)
    if len({wire.gone for wire in wires}) > 1:
        refuse(f"{what} combines branches of which one was filtered before.", node)
    if picking == "the_only_non_null" and wires[0].gone:
        refuse(
            f"{what} asks for the_only_non_null behind a filter; write `first_non_null`.",
            node,
            "pickValue",
        )
    picked = replace(
        wires[0],
        type=_union_type(wires, drop_null=True),
        sources=tuple(source for wire in wires for source in wire.sources),
        pick=Pick(picking),
        nulls=frozenset(),
    )
    return _common(picked, wires)


def _gathered(
    wires: list[Wire], picking: Any, node: Mapping, what: str, *, flattened: bool
) -> Wire:
    """What each job makes of its own values: a list, or what `pickValue` takes of that."""
    if any(wire.parts or wire.flattened for wire in wires):
        refuse(f"{what} combines what is itself combined; name all sources in one place.", node)
    members: list[Any] = []
    for wire in wires:
        for member in cwltypes.union(wire.type):
            inner = flattened and cwltypes.kind(member) == "array"
            members += cwltypes.union(member["items"]) if inner else [member]
    items = cwltypes.joined(members)
    pick = None if picking is None else Pick(picking)
    if pick is not None:
        items = cwltypes.required(items)
    keyed = [wire for wire in wires if wire.per_key]
    gathered = Wire(
        type=cwltypes.array_of(items) if pick in (None, Pick.ALL_NON_NULL) else items,
        descent=keyed[0].descent if keyed else ROOT,
        gone=frozenset().union(*(wire.gone for wire in wires)),
        parts=tuple(wires),
        gathering=Gathering(flattened, pick),
    )
    return _common(gathered, wires)


def _common(wire: Wire, wires: list[Wire]) -> Wire:
    """`wire` with what all of `wires` agree on."""
    secondary = [name for name in wires[0].secondary if all(name in w.secondary for w in wires)]
    formats = {each.format for each in wires}
    vague = next((each.vague for each in wires if each.vague is not None), None)
    if vague is None and len(formats) > 1:
        vague = f"it comes from {', '.join(sorted(map(str, formats)))}"
    return replace(
        wire,
        secondary=tuple(secondary),
        maybe=tuple(dict.fromkeys(name for each in wires for name in each.maybe)),
        format=formats.pop() if len(formats) == 1 else None,
        vague=vague,
    )


def _union_type(wires: Iterable[Wire], drop_null: bool) -> Any:
    members = [member for wire in wires for member in cwltypes.union(wire.type)]
    return cwltypes.joined(member for member in members if not (drop_null and member == "null"))
