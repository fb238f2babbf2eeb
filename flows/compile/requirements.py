"""Requirements and hints: what is known, what a step inherits, what its jobs reserve."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from catalog.errors import BadTemplate
from flows.compile import hints
from flows.compile.located import Mapping, plain, refuse
from workers.cwl.images import image_of
from workers.spec import Resources

SPDF_CLASSES = (hints.TEMPLATE, hints.STAGE, hints.MERGE)
OF_TOOLS = frozenset(
    {
        "InlineJavascriptRequirement",
        "SchemaDefRequirement",
        "LoadListingRequirement",
        "DockerRequirement",
        "SoftwareRequirement",
        "InitialWorkDirRequirement",
        "EnvVarRequirement",
        "ShellCommandRequirement",
        "ResourceRequirement",
        "WorkReuse",
        "NetworkAccess",
        "InplaceUpdateRequirement",
        "ToolTimeLimit",
    }
)
OF_WORKFLOWS = frozenset(
    {
        "SubworkflowFeatureRequirement",
        "ScatterFeatureRequirement",
        "MultipleInputFeatureRequirement",
        "StepInputExpressionRequirement",
    }
)
KNOWN = OF_TOOLS | OF_WORKFLOWS


@dataclass(frozen=True)
class Scope:
    """The requirements and hints that hold at some place, by class: the innermost of each."""

    requirements: dict[str, Mapping]
    hints: dict[str, Mapping]

    def inside(self, node: Mapping, warnings: list[str]) -> "Scope":
        """What holds inside a workflow, step or tool with its own requirements and hints."""
        own = {entry["class"]: check_requirement(entry) for entry in node.get("requirements", ())}
        hinted = {}
        for entry in node.get("hints", ()):
            if _known_hint(entry, warnings):
                hinted[entry["class"]] = entry
        requirements = {**self.requirements, **own}
        return Scope(
            requirements,
            {
                name: entry
                for name, entry in {**self.hints, **hinted}.items()
                if name not in requirements
            },
        )

    def get(self, name: str) -> Mapping | None:
        """The requirement of that class, or else the hint."""
        return self.requirements.get(name, self.hints.get(name))

    def without(self, names: Iterable[str]) -> "Scope":
        """The scope without the hints of some classes."""
        left = {name: entry for name, entry in self.hints.items() if name not in names}
        return Scope(self.requirements, left)


EMPTY = Scope({}, {})


def check_requirement(entry: Mapping) -> Mapping:
    """`entry`, if it may be required of a job here; else BadTemplate."""
    name = entry["class"]
    if name in SPDF_CLASSES:
        refuse(
            f"{name} stands under `requirements`, where other CWL runners refuse it; move it to "
            "`hints`.",
            entry,
        )
    if name not in KNOWN and name != hints.CUDA:
        refuse(
            f"requirement {name} is not supported; remove it, or move it to `hints` if the "
            "payload runs without.",
            entry,
        )
    if name == "InplaceUpdateRequirement" and entry.get("inplaceUpdate"):
        refuse(
            "inputs can't be changed in place, because stored files never change; let the tool "
            "write a new file and remove InplaceUpdateRequirement.",
            entry,
        )
    if name == "DockerRequirement":
        _check_image(entry)
    if name == "SoftwareRequirement":
        refuse(
            "SoftwareRequirement can't be fulfilled here; move it to `hints` and install the "
            "program on the nodes.",
            entry,
        )
    return entry


def _check_image(entry: Mapping) -> None:
    try:
        image_of(plain(entry))
    except BadTemplate as fault:
        refuse(f"{fault.reason}.", entry)


def _known_hint(entry: Mapping, warnings: list[str]) -> bool:
    name = str(entry["class"])
    if name.startswith("spdf:") and name not in SPDF_CLASSES:
        refuse(f"there is no hint {name}; there are {', '.join(SPDF_CLASSES)}.", entry)
    if name in KNOWN or name in SPDF_CLASSES or name == hints.CUDA:
        if name == "InplaceUpdateRequirement" and entry.get("inplaceUpdate"):
            check_requirement(entry)
        if name == "DockerRequirement":
            warnings.append(
                f"{entry.source}:{entry.line}: DockerRequirement is a hint and has no effect; the "
                "program must be installed on the nodes, or the hint be a requirement."
            )
        return True
    warnings.append(f"{entry.source}:{entry.line}: hint {name} is not known and has no effect.")
    return False


_MOST = 10**12
"""Cores or MiB beyond which a number is a mistake."""


def resources(scope: Scope, devices: int, jobs_per_device: int = 1) -> Resources:
    """What a job reserves: CWL's ResourceRequirement with its defaults.

    Raises BadTemplate for an expression, since slots are reserved before inputs are known.
    """
    node = scope.get("ResourceRequirement")
    if node is None:
        return Resources(devices=devices, jobs_per_device=jobs_per_device)
    return Resources(
        cores=_amount(node, "cores", Resources.cores),
        ram_mib=int(_amount(node, "ram", Resources.ram_mib)),
        devices=devices,
        jobs_per_device=jobs_per_device,
        tmpdir_mib=int(_amount(node, "tmpdir", Resources.tmpdir_mib)),
        outdir_mib=int(_amount(node, "outdir", Resources.outdir_mib)),
    )


def _amount(node: Mapping, name: str, default: float) -> float:
    least, most = _number(node, f"{name}Min"), _number(node, f"{name}Max")
    if least is not None and most is not None and most < least:
        refuse(f"`{name}Max` is below `{name}Min`.", node, f"{name}Max")
    found = least if least is not None else most
    return default if found is None else found


def _number(node: Mapping, key: str) -> float | None:
    value: Any = node.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        refuse(
            f"`{key}` is {value!r}; nodes reserve before a job's inputs are known, so give a "
            "number.",
            node,
            key,
        )
    if value < 0 or (value == 0 and key.startswith(("cores", "ram"))):
        refuse(f"`{key}` is {value}; it must be above 0.", node, key)
    if not value <= _MOST:
        refuse(f"`{key}` is {value}; no node has so much.", node, key)
    return value
