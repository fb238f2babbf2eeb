"""What flows along a workflow's connections, worked out before anything runs."""

from collections.abc import Iterable
from collections.abc import Mapping as AnyMapping
from dataclasses import dataclass, replace
from typing import Any

from flows.compile import cwltypes
from flows.compile.located import Mapping, refuse
from flows.plan import Pick, Source

ROOT = ""
"""The descent of the input dataset."""


@dataclass(frozen=True)
class Wire:
    """The values that a name stands for, for all keys at once.

    Of a fixed input (`fixed` is its name), of a constant (neither `fixed` nor `sources`), or of
    stages and the dataset (`sources`): one value for each key of `descent`. `type` is that of
    one value. `array`: where the name stands, CWL sees the list over all keys (else one value,
    inside a scattered subworkflow or behind a merge).

    `nulls` names what may make a value null; `gone` what has made keys disappear from the list
    (`pickValue: all_non_null`). Two lists are of equal length only if the same things did.
    """

    type: Any
    fixed: str | None = None
    sources: tuple[Source, ...] = ()
    descent: str = ROOT
    array: bool = False
    pick: Pick | None = None
    flattened: bool = False
    nulls: frozenset[str] = frozenset()
    gone: frozenset[str] = frozenset()
    default: Any = None
    load_contents: bool = False
    secondary: tuple[str, ...] = ()
    format: str | None = None

    @property
    def per_key(self) -> bool:
        """Whether it has a value for each key (and is no fixed input or constant)."""
        return bool(self.sources)

    @property
    def seen_type(self) -> Any:
        """The type that CWL sees where the name stands."""
        return cwltypes.array_of(self.type) if self.array else self.type


@dataclass(frozen=True)
class Port:
    """One entry of a step's `in`, with what it is connected to."""

    name: str
    node: Mapping
    wire: Wire | None = None
    scattered: bool = False
    value_from: str | None = None
    default: Any = None
    load_contents: bool = False


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
    if merging and not (wire.array and merging == "merge_flattened"):
        refuse(f"{what} makes a list of one source's value; remove `linkMerge`.", node, "linkMerge")
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
    if not all(wire.per_key for wire in wires):
        refuse(
            f"{what} combines several sources of which one is a fixed input; give each its own "
            "port and choose with `valueFrom`.",
            node,
            key,
        )
    if len({wire.descent for wire in wires}) > 1:
        refuse(
            f"{what} combines files of different descent ({_descents(wires)}), which have no keys "
            "in common; join them before the merge, or use two templates.",
            node,
            key,
        )
    arrays = [wire.array for wire in wires]
    if all(arrays):
        return _flatten(wires, picking, node, key, what)
    if any(arrays):
        refuse(f"{what} combines a list with single values; give each its own port.", node, key)
    return _branches(wires, picking, node, key, what)


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


def _branches(wires: list[Wire], picking: Any, node: Mapping, key: str, what: str) -> Wire:
    if picking not in ("first_non_null", "the_only_non_null") or node.get("linkMerge"):
        refuse(
            f"{what} takes several values of the same file, of which CWL makes a list; write "
            "`pickValue: first_non_null` where branches meet again, or give each its own port.",
            node,
            key,
        )
    if any(wire.pick not in (None, Pick(picking)) or wire.flattened for wire in wires) or (
        picking == "the_only_non_null" and any(wire.pick for wire in wires)
    ):
        refuse(
            f"{what} picks from what is itself picked; name all branches in one place.", node, key
        )
    if len({wire.gone for wire in wires}) > 1:
        refuse(f"{what} combines branches of which one was filtered before.", node, key)
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


def _common(wire: Wire, wires: list[Wire]) -> Wire:
    """`wire` with what all of `wires` agree on."""
    secondary = [name for name in wires[0].secondary if all(name in w.secondary for w in wires)]
    formats = {each.format for each in wires}
    return replace(
        wire,
        secondary=tuple(secondary),
        format=formats.pop() if len(formats) == 1 else None,
    )


def _union_type(wires: Iterable[Wire], drop_null: bool) -> Any:
    members: list[Any] = []
    for wire in wires:
        for member in cwltypes.union(wire.type):
            if member not in members and not (drop_null and member == "null"):
                members.append(member)
    return members[0] if len(members) == 1 else members


def _descents(wires: Iterable[Wire]) -> str:
    names = sorted({wire.descent for wire in wires})
    return " and ".join(f"of {name!r}" if name else "of the input dataset" for name in names)


def descents(wires: Iterable[Wire]) -> str:
    """The descents of some wires, for a message."""
    return _descents(wires)
