"""Our hints in a CWL document, and the one of others that we understand."""

import re
from dataclasses import dataclass
from typing import Any

from flows.compile.located import Mapping, refuse
from workers.slots import DEVICE_TOKENS

SPDF = "https://spdf.readthedocs.io/ns#"
"""The namespace that a template binds to `spdf`; a name only, never fetched."""
CWLTOOL = "http://commonwl.org/cwltool#"
NAMESPACES = {"spdf": SPDF, "cwltool": CWLTOOL}

TEMPLATE, STAGE, MERGE = "spdf:Template", "spdf:Stage", "spdf:Merge"
CUDA = "cwltool:CUDARequirement"


@dataclass(frozen=True)
class TemplateHint:
    """`spdf:Template`: which datasets the template is for."""

    mask: str | None = None
    rank: int = 0
    derived: bool = False
    dataset: str | None = None


@dataclass(frozen=True)
class StageHint:
    """`spdf:Stage`: how a stage is run. `goal` is a fraction."""

    device: str | None = None
    retry: int = 2
    rank: int = 0
    goal: float = 1.0
    max_pilots: int | None = None
    barrier: bool = False
    jobs_per_device: int = 1


def canonical_class(node: Mapping, namespaces: dict[str, str] | None) -> str:
    """The class of a requirement or hint, with the prefix that stands in `NAMESPACES`.

    Raises BadTemplate where the document uses `spdf:` without declaring it as ours.
    """
    name = str(node.get("class", ""))
    for prefix, uri in NAMESPACES.items():
        if name.startswith(uri):
            return f"{prefix}:{name.removeprefix(uri)}"
    prefix, colon, rest = name.partition(":")
    if not colon or rest.startswith("//"):
        return name
    declared = (namespaces or {}).get(prefix)
    if prefix == "spdf" and declared != SPDF:
        refuse(
            f"the prefix of {name!r} is "
            + (f"declared as {declared!r}" if declared else "not declared")
            + f'; write `$namespaces: {{spdf: "{SPDF}"}}` in the document.',
            node,
            "class",
        )
    for known, uri in NAMESPACES.items():
        if declared == uri or (declared is None and prefix == known):
            return f"{known}:{rest}"
    return f"{declared}{rest}" if declared else name


MOST_NUMBER = 1_000_000_000
"""The largest number that a hint may give: two of them still fit a column."""


def template_hint(node: Mapping | None) -> TemplateHint:
    """The values of a `spdf:Template`; raises BadTemplate on what it doesn't know."""
    if node is None:
        return TemplateHint()
    _only(node, ("mask", "rank", "derived", "dataset"))
    return TemplateHint(
        mask=_text(node, "mask"),
        rank=_integer(node, "rank") or 0,
        derived=_truth(node, "derived"),
        dataset=_text(node, "dataset"),
    )


def stage_hint(node: Mapping | None) -> StageHint:
    """The values of a `spdf:Stage`; raises BadTemplate on what it doesn't know."""
    if node is None:
        return StageHint()
    _only(node, ("device", "retry", "rank", "goal", "maxPilots", "barrier", "jobsPerDevice"))
    device = node.get("device")
    if device not in (None, "CPU", "GPU"):
        refuse(f"`device` is {device!r}; it is CPU or GPU.", node, "device")
    retry = _integer(node, "retry", least=0)
    sharing = _integer(node, "jobsPerDevice", least=1) or 1
    if sharing > DEVICE_TOKENS:
        refuse(
            f"`jobsPerDevice` is {sharing}; it is at most {DEVICE_TOKENS}.", node, "jobsPerDevice"
        )
    if sharing > 1 and device == "CPU":
        refuse(
            "`jobsPerDevice` has no meaning on the device CPU; remove it.", node, "jobsPerDevice"
        )
    return StageHint(
        device=device,
        retry=StageHint.retry if retry is None else retry,
        rank=_integer(node, "rank") or 0,
        goal=_goal(node),
        max_pilots=_integer(node, "maxPilots", least=1),
        barrier=_truth(node, "barrier"),
        jobs_per_device=sharing,
    )


def merge_hint(node: Mapping | None) -> int | None:
    """`filesPerJob` of a `spdf:Merge`; None where all files make one job."""
    if node is None:
        return None
    _only(node, ("filesPerJob",))
    return _integer(node, "filesPerJob", least=1)


def cuda_devices(node: Mapping | None) -> int | None:
    """How many GPUs a `cwltool:CUDARequirement` asks for; None where there is none."""
    if node is None:
        return None
    count = node.get("cudaDeviceCountMin", node.get("cudaDeviceCountMax", 1))
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        refuse(
            f"cudaDeviceCountMin is {count!r}; a number from 1 on is needed before the job's "
            "inputs are known.",
            node,
            "cudaDeviceCountMin",
        )
    return count


def _only(node: Mapping, known: tuple[str, ...]) -> None:
    for key in node:
        if key != "class" and key not in known:
            refuse(f"{node['class']} has no field {key!r}; it has {', '.join(known)}.", node, key)


def _text(node: Mapping, key: str) -> str | None:
    value = node.get(key)
    if value is not None and (not isinstance(value, str) or not value):
        refuse(f"`{key}` is {value!r}; it is a text.", node, key)
    return value


def _integer(node: Mapping, key: str, least: int | None = None) -> int | None:
    value = node.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        refuse(f"`{key}` is {value!r}; it is a whole number.", node, key)
    if least is not None and value < least:
        refuse(f"`{key}` is {value}; it is at least {least}.", node, key)
    if abs(value) > MOST_NUMBER:
        refuse(f"`{key}` is beyond {MOST_NUMBER}; give a number nearer to 0.", node, key)
    return value


def _truth(node: Mapping, key: str) -> bool:
    value = node.get(key, False)
    if not isinstance(value, bool):
        refuse(f"`{key}` is {value!r}; it is true or false.", node, key)
    return value


def _goal(node: Mapping) -> float:
    value: Any = node.get("goal", 1.0)
    goal = -1.0
    if isinstance(value, str):
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*%", value.strip())
        goal = float(match[1]) / 100 if match else goal
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        goal = float(value)
    if not 0 < goal <= 1:
        refuse(
            f"`goal` is {value!r}; it is a share such as `99%` or 0.99, above 0 and at most 1.",
            node,
            "goal",
        )
    return goal
