"""What flows along a workflow's connections, worked out before anything runs."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from flows.compile import cwltypes
from flows.compile.located import Mapping
from flows.plan import Pick, Source

ROOT = ""
"""The descent of the input dataset."""


@dataclass(frozen=True)
class Gathering:
    """How a job makes one value of several sources: CWL's `linkMerge` and `pickValue`."""

    flattened: bool = False
    pick: Pick | None = None


@dataclass(frozen=True)
class Wire:
    """The values that a name stands for, for all keys at once.

    Of a fixed input (`fixed` is its name), of a constant (neither `fixed` nor `sources`), or of
    stages and the dataset (`sources`): one value for each key of `descent`. `type` is that of
    one value. `array`: where the name stands, CWL sees the list over all keys (else one value,
    inside a scattered subworkflow or behind a merge).

    `nulls` names what may make a value null; `gone` what has made keys disappear from the list
    (`pickValue: all_non_null`). Two lists are of equal length only if the same things did.

    `secondary`: patterns of the secondary files of a value, `maybe` those that it may be without.

    `format` is that of all its files (None: nothing says that they have one); `vague` says why it
    can't be known before they are made.

    `parts`: several sources of which each job makes one value by itself, as `gathering` says; their
    own wires tell what is fixed and what is a key's.
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
    maybe: tuple[str, ...] = ()
    format: str | None = None
    vague: str | None = None
    parts: tuple["Wire", ...] = ()
    gathering: Gathering | None = None

    @property
    def per_key(self) -> bool:
        """Whether it has a value for each key (and is no fixed input or constant)."""
        return bool(self.sources) or any(part.per_key for part in self.parts)

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

    def feeds(self) -> list["Port"]:
        """The port itself, or in its place one for each source that its jobs gather."""
        if self.wire is None or not self.wire.parts:
            return [self]
        return [
            Port(f"{self.name}/{number}", self.node, part, load_contents=part.load_contents)
            for number, part in enumerate(self.wire.parts)
        ]


def descents(wires: Iterable[Wire]) -> str:
    """The descents of some wires, for a message."""
    names = sorted({wire.descent for wire in wires})
    return " and ".join(f"of {name!r}" if name else "of the input dataset" for name in names)
