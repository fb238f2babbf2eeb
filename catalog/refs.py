"""Values that cross the catalog's border: what a job reads, what it made, how it ended."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from catalog.errors import ErrorCode
from catalog.states import Phase


class StorageKind(StrEnum):
    """Which driver speaks to a storage."""

    LOCAL = "local"
    S3 = "s3"


class FindingKind(StrEnum):
    """How a storage and the catalog can differ."""

    MISSING = "MISSING"
    """A row without bytes."""
    CORRUPT = "CORRUPT"
    """Bytes whose number or checksum is not the row's."""
    DARK = "DARK"
    """Bytes without a row."""


class RequestKind(StrEnum):
    """What a request may ask for."""

    FILE_INPUT = "file.input"
    FILE_PROCESS = "file.process"
    DATASET_INPUT = "dataset.input"
    DATASET_CLOSE = "dataset.close"
    DATASET_UPLOAD = "dataset.upload"
    DATASET_DELETE = "dataset.delete"


class Retention(StrEnum):
    """How long the files between two stages are kept."""

    KEEP = "keep"
    UPLOADED = "uploaded"
    """Until the workflow's outputs were uploaded."""
    CONSUMED = "consumed"
    """Until the stages that read them are FINISHED."""


class StorageRole(StrEnum):
    """What a storage is for."""

    INPUT = "input"
    INTERNAL = "internal"
    OUTPUT = "output"


@dataclass(frozen=True)
class StorageInfo:
    """A storage as its row stood.

    `url` of a local one is its absolute directory, of an S3 one `http(s)://host:port/bucket/prefix`.
    """

    id: int
    name: str
    kind: StorageKind
    role: StorageRole
    url: str


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


class Outcome(StrEnum):
    """How an attempt ended on the node."""

    FINISHED = "FINISHED"
    SKIPPED = "SKIPPED"
    FAILED = "FAILED"
    STOPPED = "STOPPED"
    """Killed by us because the lease was gone: nothing is to be registered."""


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
    """Ids of input files whose replica proved bad."""
    usage: Usage = field(default_factory=Usage)
