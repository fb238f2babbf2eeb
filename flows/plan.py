"""The compiled form of a template: what the advancer, the pilots and the UI need to know of it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import TypeAdapter

from workers.cwl.images import image_of
from workers.cwl.parameters import secondary_name
from workers.spec import Resources, StepSpec


class StageKind(StrEnum):
    """How a stage turns files into jobs."""

    MAP = "map"
    MERGE = "merge"


class Pick(StrEnum):
    """CWL's `pickValue`."""

    FIRST_NON_NULL = "first_non_null"
    THE_ONLY_NON_NULL = "the_only_non_null"
    ALL_NON_NULL = "all_non_null"


@dataclass(frozen=True)
class Source:
    """Where a value comes from: a stage's output port, or (stage None) the input dataset."""

    stage: str | None
    port: str


@dataclass(frozen=True)
class Link:
    """One port of a stage that is fed per key (map) or by groups of keys (merge).

    Several `sources` are branches that meet again: `pick` says which counts for a key.
    `null_skips`: a key for which the link yields null goes no further (its job is SKIPPED);
    else null is handed to the step (whose `when` or optional input deals with it).
    `kind` is `File`, `File[]` (a list that one job made) or `value`.
    """

    port: str
    sources: tuple[Source, ...]
    kind: str = "File"
    pick: Pick | None = None
    null_skips: bool = True


@dataclass(frozen=True)
class FixedLink:
    """A port of a stage that gets the value of a workflow input, the same for all jobs."""

    port: str
    input: str


@dataclass(frozen=True)
class Stage:
    """One compiled step.

    `files_per_job` counts for merges; None: one group of all. `descent` names the set of keys:
    a map keeps that of its sources, a merge starts its own (its own stage name); the input
    dataset's is the empty string. `goal` is a fraction from 0 to 1: the share of keys whose
    success is enough.
    """

    name: str
    kind: StageKind
    step: StepSpec
    links: tuple[Link, ...]
    fixed: tuple[FixedLink, ...]
    resources: Resources
    descent: str
    device: str = "CPU"
    retry: int = 2
    rank: int = 0
    goal: float = 1.0
    max_pilots: int | None = None
    barrier: bool = False
    files_per_job: int | None = None
    is_output: tuple[str, ...] = ()
    """Output ports that the workflow's own outputs name (stored on the `output` storage)."""

    @property
    def upstreams(self) -> tuple[str, ...]:
        """Names of the stages that feed this one, each once, in link order."""
        names = (source.stage for link in self.links for source in link.sources)
        return tuple(dict.fromkeys(name for name in names if name is not None))

    @property
    def image(self) -> str | None:
        """The image that its payloads run in, by its DockerRequirement; None: they need none."""
        if self.step.tool.get("class") != "CommandLineTool":
            return None
        for entry in self.step.tool.get("requirements") or ():
            if entry["class"] == "DockerRequirement":
                return image_of(entry).name
        return None

    @property
    def pool(self) -> str:
        """The work pool whose nodes can run it."""
        return "gpu" if self.device == "GPU" else "cpu"


@dataclass(frozen=True)
class FixedInput:
    """A workflow input other than the dataset: the same for every job.

    `type` is CWL's type in JSON form; `default` a CWL value, in which a File's `location` is
    absolute at compile time.
    """

    name: str
    type: Any
    required: bool
    default: Any = None
    doc: str | None = None


@dataclass(frozen=True)
class Companion:
    """A secondary file that the dataset's files have beside them; `pattern` is CWL's."""

    pattern: str
    required: bool = True

    @property
    def suffix(self) -> str:
        """What the names of such files end in."""
        return self.pattern.lstrip("^")

    def of(self, name: str) -> str:
        """The name of the one that belongs to the file `name` of a dataset."""
        folder, slash, basename = name.rpartition("/")
        return folder + slash + secondary_name(basename, self.pattern)

    def owner(self, name: str) -> str | None:
        """The name of the file that one of this name would belong to; None: the pattern can't say.

        Raises `ValueError` for a name that no such file has.
        """
        basename = name.rpartition("/")[2]
        if not basename.endswith(self.suffix) or basename == self.suffix:
            raise ValueError(name)
        return None if self.pattern.startswith("^") else name.removesuffix(self.suffix)


@dataclass(frozen=True)
class Plan:
    """A compiled template. `stages` are in topological order; `dataset_input` is the `File[]`."""

    dataset_input: str
    stages: tuple[Stage, ...]
    fixed: tuple[FixedInput, ...] = ()
    rank: int = 0
    mask: str | None = None
    derived: bool = False
    label: str | None = None
    doc: str | None = None
    companions: tuple[Companion, ...] = ()
    """Secondary files of the dataset's files, which are no files to be worked on themselves."""

    def stage(self, name: str) -> Stage:
        """The stage of that name."""
        return next(stage for stage in self.stages if stage.name == name)


_PLAN = TypeAdapter(Plan)


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """The plan as JSON values, for the catalog."""
    value: dict[str, Any] = _PLAN.dump_python(plan, mode="json")
    return value


def plan_from_json(value: Any) -> Plan:
    """The plan that `plan_to_json` gave."""
    return _PLAN.validate_python(value)
