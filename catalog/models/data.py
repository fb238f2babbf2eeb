"""Tables of data: where bytes may lie, files and their copies, and sets of files."""

from datetime import datetime

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from catalog.clock import UtcTime
from catalog.columns import (
    BigInt,
    Json,
    added,
    created,
    moment,
    reference,
    row_id,
    rows_where,
    state_word,
)
from catalog.refs import (
    FindingKind,
    Originals,
    RefusalKind,
    Retention,
    Settlement,
    SourceEnd,
    StorageKind,
    StorageRole,
)
from catalog.states import DatasetState, FindingState, InspectionState, ReplicaState, UploadState


class Storage(SQLModel, table=True):
    """A place that holds bytes."""

    id: int = row_id()
    name: str = Field(unique=True)
    kind: StorageKind = Field(sa_type=state_word(StorageKind))
    role: StorageRole = Field(sa_type=state_word(StorageRole))
    url: str
    quota_bytes: int | None = Field(default=None, sa_type=BigInt)
    high_percent: int = added(90, description="Of the quota: producing stages pause.")
    low_percent: int = added(80, description="Of the quota: they go on.")
    pressed_at: datetime | None = moment()
    identity: str | None = Field(default=None, description="The id that its marker has.")
    marked_at: datetime | None = moment()
    created_at: datetime = created()


class IntakeRule(SQLModel, table=True):
    """Files that arrive on a storage, and the datasets that they belong to."""

    __tablename__ = "intake_rule"

    id: int = row_id()
    name: str = Field(unique=True)
    storage_id: int = reference("storage.id")
    prefix: str = Field(description="Of the paths that are looked at.")
    pattern: str = Field(description="Regular expression of a file's whole path.")
    dataset: str = Field(description="Name of its dataset, with the pattern's groups: `run-{run}`.")
    end_pattern: str | None = Field(default=None, description="Of the marker that ends a dataset.")
    close_count: int | None = Field(default=None, sa_type=BigInt, description="Files that end it.")
    quiet_s: float | None = Field(default=None, description="Time without files that ends it.")
    stable_s: float = Field(description="Time that a file must not have changed.")
    lifetime_s: float | None = Field(default=None, description="Of its datasets, from their close.")
    active: bool = Field(default=True)
    either: bool | None = Field(
        default=None,
        nullable=True,
        description="Of marker and count one is enough; None: of a program that knew no other.",
    )
    close_empty: bool = added(False, description="A marker without files makes an empty dataset.")
    version: int = added(1, description="Raised by each update.")
    end_for_all: bool = added(False, description="Its marker ends the other sources, too.")
    refused_after_s: float | None = Field(
        default=None, description="Time after which what was refused holds no close; None: never."
    )
    with_storage: bool = added(False, description="Names in datasets begin with the storage's.")
    created_at: datetime = created()


class IntakeLook(SQLModel, table=True):
    """How the looks for a rule go: the last good one, and what goes wrong since."""

    __tablename__ = "intake_look"

    rule_id: int = Field(foreign_key="intake_rule.id", primary_key=True, sa_type=BigInt)
    looked_at: datetime | None = moment()
    files: int = Field(default=0, sa_type=BigInt, description="Of the rule, at the last good look.")
    refused: int = Field(default=0, sa_type=BigInt, description="That were seen and not taken.")
    error: str | None = Field(default=None, description="Why there is no good look since.")
    error_at: datetime | None = moment()


class Refusal(SQLModel, table=True):
    """Something that a rule's look saw and that wasn't taken; settled once that is over."""

    __table_args__ = (
        sa.Index(
            "uq_refusal_open", "rule_id", "path", unique=True, **rows_where("settled_at IS NULL")
        ),
        sa.Index("ix_refusal_dataset", "dataset"),
        sa.Index("ix_refusal_rule_id", "rule_id", "id"),
        sa.Index("ix_refusal_dismissed", "rule_id", **rows_where("settled_by = 'DISMISSED'")),
    )

    id: int = row_id()
    rule_id: int = reference("intake_rule.id")
    storage_id: int = reference("storage.id")
    dataset: str | None = Field(default=None, description="Its name; it may not exist.")
    path: str = Field(description="What is no UTF-8 is escaped.")
    kind: RefusalKind = Field(sa_type=state_word(RefusalKind))
    reason: str
    size_bytes: int | None = Field(default=None, sa_type=BigInt, description="As it was seen.")
    mtime_us: int | None = Field(default=None, sa_type=BigInt, description="As it was seen.")
    found_at: datetime = created()
    settled_at: datetime | None = moment()
    settled_by: Settlement | None = Field(
        default=None, sa_type=state_word(Settlement), nullable=True
    )


class StorageTotal(SQLModel, table=True):
    """Files and bytes that the catalog has on a storage, but for what `StorageDelta` has yet."""

    __tablename__ = "storage_total"

    storage_id: int = Field(foreign_key="storage.id", primary_key=True, sa_type=BigInt)
    files: int = Field(default=0, sa_type=BigInt)
    size_bytes: int = Field(default=0, sa_type=BigInt)


class StorageDelta(SQLModel, table=True):
    """What a transaction put on a storage, or took away; folded into the total soon."""

    __tablename__ = "storage_delta"

    id: int = row_id()
    storage_id: int = reference("storage.id")
    files: int = Field(sa_type=BigInt)
    size_bytes: int = Field(sa_type=BigInt)


class StorageSample(SQLModel, table=True):
    """What was on a storage at a time, to see how it grows."""

    __tablename__ = "storage_sample"

    storage_id: int = Field(foreign_key="storage.id", primary_key=True, sa_type=BigInt)
    at: datetime = Field(primary_key=True, sa_type=UtcTime)
    files: int = Field(sa_type=BigInt)
    size_bytes: int = Field(sa_type=BigInt)


class Upload(SQLModel, table=True):
    """A CLOSED dataset on its way to another storage."""

    __table_args__ = (
        sa.Index(
            "uq_upload_going",
            "dataset_id",
            "storage_id",
            unique=True,
            **rows_where("state IN ('QUEUED', 'RUNNING')"),
        ),
        sa.Index("ix_upload_state", "state"),
    )

    id: int = row_id()
    dataset_id: int = reference("dataset.id", index=True)
    storage_id: int = reference("storage.id")
    state: UploadState = Field(default=UploadState.QUEUED, sa_type=state_word(UploadState))
    reason: str | None = None
    files: int = Field(sa_type=BigInt)
    size_bytes: int = Field(sa_type=BigInt)
    files_done: int = Field(default=0, sa_type=BigInt)
    bytes_done: int = Field(default=0, sa_type=BigInt)
    after_id: int = Field(default=0, sa_type=BigInt, description="Files up to this id are there.")
    flow_run_id: str | None = None
    created_at: datetime = created()
    started_at: datetime | None = moment()
    ended_at: datetime | None = moment()


class Inspection(SQLModel, table=True):
    """A comparison of a storage with the catalog, in both directions."""

    id: int = row_id()
    storage_id: int = reference("storage.id")
    state: InspectionState = Field(
        default=InspectionState.RUNNING, sa_type=state_word(InspectionState)
    )
    reason: str | None = None
    sample_percent: float = Field(description="Of the files whose bytes are read.")
    replicas: int = Field(default=0, sa_type=BigInt, description="That were looked at.")
    objects: int = Field(default=0, sa_type=BigInt, description="That the storage listed.")
    missing: int = Field(default=0, sa_type=BigInt)
    corrupt: int = Field(default=0, sa_type=BigInt)
    dark: int = Field(default=0, sa_type=BigInt)
    detached: int = added("0", sa_type=BigInt)
    created_at: datetime = created()
    ended_at: datetime | None = moment()


class Finding(SQLModel, table=True):
    """Something on a storage that isn't as the catalog has it, and what became of it."""

    __table_args__ = (
        sa.Index(
            "uq_finding_open",
            "storage_id",
            "path",
            "kind",
            unique=True,
            **rows_where("state IN ('FOUND', 'MARKED', 'QUARANTINED')"),
        ),
    )

    id: int = row_id()
    inspection_id: int = reference("inspection.id", index=True)
    storage_id: int = reference("storage.id")
    kind: FindingKind = Field(sa_type=state_word(FindingKind))
    state: FindingState = Field(default=FindingState.FOUND, sa_type=state_word(FindingState))
    path: str
    replica_id: int | None = reference("replica.id", null=True)
    size_bytes: int = Field(sa_type=BigInt, description="Of the bytes that are there, or should.")
    message: str
    found_at: datetime = created()
    settled_at: datetime | None = moment()


class Dataset(SQLModel, table=True):
    """A named, ordered set of files; immutable once CLOSED."""

    __table_args__ = (
        sa.Index("ix_dataset_expires_at", "expires_at", **rows_where("state = 'CLOSED'")),
        sa.Index("ix_dataset_unmatched", "state", "closed_at", **rows_where("matched_at IS NULL")),
        sa.Index("ix_dataset_rule_id", "rule_id", **rows_where("state = 'OPEN'")),
        sa.Index(
            "ix_dataset_retained", "id", **rows_where("state = 'CLOSED' AND retention IS NOT NULL")
        ),
        sa.Index("ix_dataset_deleting", "id", **rows_where("state = 'DELETING'")),
        sa.Index(
            "ix_dataset_grace",
            "grace_until",
            **rows_where("state = 'DELETING' AND grace_until IS NOT NULL"),
        ),
    )

    id: int = row_id()
    name: str = Field(unique=True)
    state: DatasetState = Field(default=DatasetState.OPEN, sa_type=state_word(DatasetState))
    derived: bool = Field(default=False, description="Made by a workflow.")
    task_id: int | None = reference("task.id", index=True, null=True)
    port: str | None = Field(default=None, description="Output port of the task, or `log`.")
    storage_id: int | None = reference("storage.id", null=True)
    next_position: int = Field(default=0, sa_type=BigInt)
    file_count: int | None = Field(default=None, sa_type=BigInt, description="Set at close.")
    size_bytes: int | None = Field(default=None, sa_type=BigInt, description="Set at close.")
    digest: str | None = Field(default=None, description="Manifest digest, set at close.")
    rule_id: int | None = reference("intake_rule.id", null=True)
    lifetime_s: float | None = Field(default=None, description="From its close to its deletion.")
    retention: Retention | None = Field(
        default=None, sa_type=state_word(Retention), nullable=True, description="None: it is kept."
    )
    readers: list[str] | None = Field(
        default=None, sa_type=Json, description="Stages of its workflow that read it."
    )
    pin: str | None = Field(default=None, description="Why it must stay; None: it is not pinned.")
    created_at: datetime = created()
    filled_at: datetime | None = moment()
    closed_at: datetime | None = moment()
    matched_at: datetime | None = moment()
    expires_at: datetime | None = moment()
    deleting_at: datetime | None = moment()
    grace_until: datetime | None = moment()
    originals: Originals | None = Field(
        default=None,
        sa_type=state_word(Originals),
        nullable=True,
        description="By what its originals go with it; None: they stay.",
    )


class Source(SQLModel, table=True):
    """Who fills a dataset from outside, a rule or a sender, and whether that has ended."""

    __table_args__ = (
        sa.UniqueConstraint("dataset_id", "rule_id"),
        sa.UniqueConstraint("dataset_id", "sender"),
        sa.Index("ix_source_rule_id", "rule_id", **rows_where("ended_by IS NULL")),
    )

    id: int = row_id()
    dataset_id: int = reference("dataset.id")
    rule_id: int | None = reference("intake_rule.id", null=True)
    sender: str | None = Field(default=None, description="Of requests; None: it is a rule.")
    files: int = added("0", sa_type=BigInt, description="Of the rule, that are in the dataset.")
    late: int = added("0", sa_type=BigInt, description="Of these what came after its end.")
    quiet_for_s: float = added("0", description="Without a new file, as far as was looked.")
    expects: int | None = Field(default=None, sa_type=BigInt, description="Files announced.")
    until: datetime | None = moment()
    told: bool = added(False, description="That the announced can't be so any more.")
    ended_by: SourceEnd | None = Field(default=None, sa_type=state_word(SourceEnd), nullable=True)
    ended_at: datetime | None = moment()
    created_at: datetime = created()


class File(SQLModel, table=True):
    """A logical file."""

    __table_args__ = (sa.UniqueConstraint("scope", "name"),)

    id: int = row_id()
    scope: str
    name: str
    size_bytes: int = Field(sa_type=BigInt)
    checksum: str = Field(description="`algorithm:hex`")
    primary_id: int | None = reference("file.id", index=True, null=True)
    created_at: datetime = created()


class Companion(SQLModel, table=True):
    """A file that accompanies another one besides the one that its row names."""

    file_id: int = Field(foreign_key="file.id", primary_key=True, sa_type=BigInt)
    primary_id: int = Field(foreign_key="file.id", primary_key=True, sa_type=BigInt, index=True)


class Replica(SQLModel, table=True):
    """One copy of a file on one storage; `path` is relative to the storage."""

    __table_args__ = (sa.UniqueConstraint("storage_id", "path"),)

    id: int = row_id()
    file_id: int = reference("file.id", index=True)
    storage_id: int = reference("storage.id")
    path: str
    state: ReplicaState = Field(default=ReplicaState.AVAILABLE, sa_type=state_word(ReplicaState))
    created_at: datetime = created()
    in_place: bool | None = Field(
        default=None,
        description="Its bytes were there already; None: a program wrote the row that can't tell.",
    )
    mtime_us: int | None = Field(
        default=None,
        sa_type=BigInt,
        description="Its stamp: when its bytes were written, as read or registered.",
    )


class Detached(SQLModel, table=True):
    """Bytes that stayed under a path when their dataset was deleted, as they were found then."""

    __table_args__ = (sa.UniqueConstraint("storage_id", "path"),)

    id: int = row_id()
    storage_id: int = reference("storage.id")
    path: str
    size_bytes: int = Field(sa_type=BigInt)
    mtime_us: int = Field(sa_type=BigInt, description="Since 1970.")
    replica_id: int = reference("replica.id")
    created_at: datetime = created()


class Leftover(SQLModel, table=True):
    """A file that stayed when a dataset of the intake was deleted: not to be taken for its name.

    Nothing is said of other datasets: one of them holds it, or has held it since.
    """

    __table_args__ = (
        sa.UniqueConstraint("storage_id", "path", "dataset"),
        sa.Index("ix_leftover_dataset", "dataset"),
    )

    id: int = row_id()
    storage_id: int = reference("storage.id")
    path: str
    dataset: str = Field(description="The name that it had.")
    size_bytes: int = Field(sa_type=BigInt)
    mtime_us: int | None = Field(
        default=None, sa_type=BigInt, description="Since 1970; None: nobody could tell."
    )
    created_at: datetime = created()


class DeletionFault(SQLModel, table=True):
    """Why bytes of a dataset that is DELETING are there still, as its last run found."""

    __tablename__ = "deletion_fault"

    id: int = row_id()
    dataset_id: int = reference("dataset.id", index=True)
    storage_id: int | None = reference("storage.id", null=True)
    files: int = Field(default=0, sa_type=BigInt)
    path: str | None = Field(default=None, description="One of them.")
    reason: str
    since: datetime = created()
    created_at: datetime = created()


class DatasetFile(SQLModel, table=True):
    """Membership. `key` is the root file's name that the file descends from."""

    __tablename__ = "dataset_file"
    __table_args__ = (
        sa.UniqueConstraint("dataset_id", "name"),
        sa.Index("ix_dataset_file_order", "dataset_id", "position", "name"),
    )

    dataset_id: int = Field(foreign_key="dataset.id", primary_key=True, sa_type=BigInt)
    file_id: int = Field(foreign_key="file.id", primary_key=True, sa_type=BigInt, index=True)
    name: str
    key: str
    position: int = Field(sa_type=BigInt)
