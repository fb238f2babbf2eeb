"""What a compute node is told about a job, and what it answers: plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from catalog.refs import FileRef, JobResult, NewFile, Outcome, ReplicaRef, Usage

__all__ = [
    "FileRef",
    "JobResult",
    "JobSpec",
    "NewFile",
    "Outcome",
    "OutputPort",
    "OutputTarget",
    "ReplicaRef",
    "Resources",
    "StepInput",
    "StepSpec",
    "TaskSpec",
    "ToolOutcome",
    "ToolRun",
    "Usage",
]


@dataclass(frozen=True)
class StepInput:
    """How one input of a step's tool gets its value on the node.

    `gather`: the names under which a job is given the values of several sources, of which it makes
    the input's: a list of them, or (`flattened`) one list of what they hold; of that `pick`, which
    is CWL's `pickValue`. `format` is that of the Files that come in, which stored files don't carry
    themselves.
    """

    port: str
    default: Any = None
    value_from: str | None = None
    load_contents: bool = False
    gather: tuple[str, ...] = ()
    flattened: bool = False
    pick: str | None = None
    format: str | None = None


@dataclass(frozen=True)
class OutputPort:
    """What a step gives on one port. `kind` is `File`, `File[]` or `value`."""

    name: str
    kind: str
    optional: bool = False


@dataclass(frozen=True)
class StepSpec:
    """A step as a node runs it. `tool` is a packed, self-contained CWL process.

    `tool` is a `CommandLineTool` or `ExpressionTool` in CWL v1.2's JSON form in which
    requirements and hints of the workflow and the step are merged into the tool's own, `$import`s
    and `SchemaDefRequirement` types are resolved, and identifiers are bare names (no `#`, no
    paths).
    """

    tool: Mapping[str, Any]
    inputs: tuple[StepInput, ...]
    outputs: tuple[OutputPort, ...]
    when: str | None = None


@dataclass(frozen=True)
class Resources:
    """What one job reserves on a node. Fractions of a core count as CWL says."""

    cores: float = 1.0
    ram_mib: int = 256
    devices: int = 0
    jobs_per_device: int = 1
    tmpdir_mib: int = 1024
    outdir_mib: int = 1024


@dataclass(frozen=True)
class OutputTarget:
    """Where a port's files go: bytes to the storage, rows into the dataset."""

    dataset_id: int
    dataset_name: str
    storage_id: int


@dataclass(frozen=True)
class TaskSpec:
    """What all jobs of one task share; loaded once by a pilot."""

    task_id: int
    stage: str
    workflow_id: int
    step: StepSpec
    resources: Resources
    retry: int
    tool_digest: str
    fixed: Mapping[str, Any]
    """Values of the workflow's fixed inputs by step port.

    A File in it, or in the tool's or step's defaults, is `{"class": "File", "file_id": n}`."""
    refs: Mapping[int, FileRef]
    """The files that `fixed` and the defaults name, by id."""
    targets: Mapping[str, OutputTarget]
    """By output port, and `log`."""
    lists: frozenset[str] = frozenset()
    """Ports that take a list of files: of a merge, or one that a job before made."""


@dataclass(frozen=True)
class JobSpec:
    """One attempt of one job."""

    job_id: int
    attempt_id: int
    task_id: int
    key: str
    ordinal: int
    number: int
    files: Mapping[str, tuple[FileRef, ...]]
    values: Mapping[str, Any] = field(default_factory=dict)
    generation: int = 0
    """Of the catalog: after a restore another job may have the same id."""


@dataclass(frozen=True)
class ToolRun:
    """One execution of a CWL tool, in directories that the caller owns, named by real paths.

    `inputs` is a CWL job object whose Files have a local `path`; `outdir` is where the payload
    runs and writes, `tmpdir` its `$TMPDIR`, `stagedir` where inputs are linked. The log gets
    stdout and stderr where the tool doesn't redirect them.
    """

    inputs: Mapping[str, Any]
    outdir: Path | str
    tmpdir: Path | str
    stagedir: Path | str
    log: Path | str
    cores: float = 1.0
    ram_mib: int = 256
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added by us for every payload, under the tool's own."""
    devices: tuple[int, ...] = ()
    """Numbers of the GPUs that the payload may use."""
    keep: tuple[int, ...] = ()
    """Descriptors that the payload inherits: the tokens that it holds."""
    time_limit_s: float | None = None
    """A limit of ours, on top of the tool's own ToolTimeLimit; the smaller one counts."""


@dataclass(frozen=True)
class ToolOutcome:
    """What a tool gave: `outputs` is a CWL output object with local paths."""

    outputs: Mapping[str, Any]
    exit_code: int | None
    cpu_s: float
    peak_rss_bytes: int
