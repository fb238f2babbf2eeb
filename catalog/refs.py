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


class RefusalKind(StrEnum):
    """Why something that a rule's look saw wasn't taken."""

    LINK = "LINK"
    """A symbolic link, or another thing that is no regular file."""
    NAME = "NAME"
    """A name that can't be used."""
    DATE = "DATE"
    """A date that is none."""
    UNREADABLE = "UNREADABLE"
    """A folder or a file that can't be looked at."""
    LATE = "LATE"
    """It came after its dataset was closed."""
    CHANGED = "CHANGED"
    """It changed after it was registered."""
    VANISHED = "VANISHED"
    """It was registered, and isn't there any more."""
    REFUSED = "REFUSED"
    """Its request was answered with ERROR, or it couldn't be asked for."""
    EMPTY_RUN = "EMPTY_RUN"
    """A marker of a run without files."""
    DETACHED = "DETACHED"
    """It stayed when the dataset that had it was deleted, and is as it was left."""


HOLDING = frozenset(RefusalKind) - {
    RefusalKind.LATE,
    RefusalKind.EMPTY_RUN,
    RefusalKind.DETACHED,
}
"""What keeps a dataset from being closed by itself."""


class Settlement(StrEnum):
    """How a refusal came to its end."""

    REGISTERED = "REGISTERED"
    GONE = "GONE"
    DISMISSED = "DISMISSED"
    UNFOLLOWED = "UNFOLLOWED"
    """Its rule was removed: nobody looks there for it."""


class SourceEnd(StrEnum):
    """What ended a source of a dataset."""

    MARKER = "MARKER"
    COUNT = "COUNT"
    QUIET = "QUIET"
    """Noted as the dataset is closed: until then more may come."""
    WORD = "WORD"
    """Whoever closed the dataset, or the sender itself, said so."""
    OTHER = "OTHER"
    """The marker of a rule that ends all sources."""
    NOTHING = "NOTHING"
    """It had no file, and all others had ended a while ago."""


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


class Originals(StrEnum):
    """By what bytes go with a dataset that were registered where they lay."""

    BY_WORD = "by-word"
    """A person said so, of this dataset."""
    BY_RULE = "by-rule"
    """The lifetime of its intake rule is over: those that the rule is for."""


class StorageRole(StrEnum):
    """What a storage is for."""

    INPUT = "input"
    INTERNAL = "internal"
    OUTPUT = "output"


@dataclass(frozen=True)
class StorageInfo:
    """A storage as its row stood.

    `url` of a local one is its absolute directory, of an S3 one `http(s)://host:port/bucket/prefix`.
    `identity` is what its marker says; `marked` once that was seen there.
    """

    id: int
    name: str
    kind: StorageKind
    role: StorageRole
    url: str
    identity: str | None = None
    marked: bool = False


@dataclass(frozen=True)
class ReplicaRef:
    """One copy of a file: the storage's id and the path on it, and the time of its stamp."""

    storage_id: int
    path: str
    mtime_us: int | None = field(default=None, compare=False)


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
    LOST = "LOST"
    """A process of ours died, and the attempt with it."""
    STOPPED = "STOPPED"
    """Killed by us because the lease was gone: nothing is to be registered."""


@dataclass(frozen=True)
class NewFile:
    """A file that an attempt made: uploaded already, to be registered with its end.

    `index` orders the files of a port; `secondary_of` is the `name` of the primary file, and
    `also_of` are those of further ones.
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
    mtime_us: int | None = None
    """Its stamp's time, where the storage has told it."""
    also_of: tuple[str, ...] = ()


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
    bad_inputs: tuple[ReplicaRef, ...] = ()
    """Copies of inputs that proved bad when they were read: those, and no other copy."""
    stamped: tuple[ReplicaRef, ...] = ()
    """Copies of inputs that were read and are whole, with their new stamps."""
    storage_id: int | None = None
    """The storage that an error is about."""
    needed_bytes: int = 0
    """Size of the file that a storage had no room for."""
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True)
class StorageTrouble:
    """A storage that is out, as a node met it; `writing` says whether while storing something."""

    code: ErrorCode
    message: str
    storage_id: int
    writing: bool
    needed_bytes: int = 0
