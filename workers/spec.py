"""What a compute node is told about a job, and what it answers: plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from catalog.errors import ErrorCode
from catalog.states import Phase


@dataclass(frozen=True)
class StepInput:
    """How one input of a step's tool gets its value on the node."""

    port: str
    default: Any = None
    value_from: str | None = None
    load_contents: bool = False


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
    tmpdir_mib: int = 1024
    outdir_mib: int = 1024


@dataclass(frozen=True)
class ReplicaRef:
    """One copy of a file: the storage's id and the path on it."""

    storage_id: int
    path: str


@dataclass(frozen=True)
class FileRef:
    """A catalog file that a job reads; `name` is its logical name, `basename` the payload's."""

    file_id: int
    name: str
    size_bytes: int
    checksum: str
    replicas: tuple[ReplicaRef, ...]
    secondary: tuple["FileRef", ...] = ()

    @property
    def basename(self) -> str:
        """The last component of the logical name."""
        return self.name.rpartition("/")[2]


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
    """Values of the workflow's fixed inputs by step port; a File is a `FileRef`."""
    targets: Mapping[str, OutputTarget]
    """By output port, and `log`."""
    lists: frozenset[str] = frozenset()
    """Ports that take a list of files (a merge)."""


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


class Outcome(StrEnum):
    """How an attempt ended on the node."""

    FINISHED = "FINISHED"
    SKIPPED = "SKIPPED"
    FAILED = "FAILED"
    STOPPED = "STOPPED"
    """Killed by us: the lease was gone, the pilot drains, or the workflow was cancelled."""


@dataclass(frozen=True)
class NewFile:
    """A file that an attempt made: uploaded already, to be registered with its end.

    `index` orders the files of a port; `secondary_of` is the `name` of the primary file.
    """

    port: str
    index: int
    name: str
    size_bytes: int
    checksum: str
    storage_id: int
    path: str
    dataset_id: int
    secondary_of: str | None = None


@dataclass(frozen=True)
class Usage:
    """What an attempt used. `cpu_s` and `peak_rss_bytes` are of the payload's processes."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_rss_bytes: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


@dataclass(frozen=True)
class JobResult:
    """How an attempt ended, with all that is to be registered."""

    job_id: int
    attempt_id: int
    number: int
    outcome: Outcome
    files: tuple[NewFile, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    error: ErrorCode | None = None
    exit_code: int | None = None
    message: str | None = None
    phase: Phase | None = None
    log_tail: str | None = None
    log: NewFile | None = None
    bad_inputs: tuple[int, ...] = ()
    """Ids of input files whose replica on this node proved bad."""
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True)
class ToolRun:
    """One execution of a CWL tool, in directories that the caller owns.

    `inputs` is a CWL job object whose Files have a local `path`; `outdir` is where the payload
    runs and writes, `tmpdir` its `$TMPDIR`, `stagedir` where inputs are linked. The log gets
    stdout and stderr where the tool doesn't redirect them.
    """

    inputs: Mapping[str, Any]
    outdir: Path
    tmpdir: Path
    stagedir: Path
    log: Path
    cores: float = 1.0
    ram_mib: int = 256
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added by us for every payload (such as CUDA_VISIBLE_DEVICES), under the tool's own."""
    time_limit_s: float | None = None
    """A limit of ours, on top of the tool's own ToolTimeLimit; the smaller one counts."""


@dataclass(frozen=True)
class ToolOutcome:
    """What a tool gave: `outputs` is a CWL output object with local paths."""

    outputs: Mapping[str, Any]
    exit_code: int | None
    cpu_s: float
    peak_rss_bytes: int
