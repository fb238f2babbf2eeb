"""Tables of data: where bytes may lie, files and their copies, and sets of files."""

from datetime import datetime

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from catalog.columns import BigInt, created, moment, reference, row_id, state_word
from catalog.refs import StorageKind, StorageRole
from catalog.states import DatasetState, ReplicaState


class Storage(SQLModel, table=True):
    """A place that holds bytes."""

    id: int = row_id()
    name: str = Field(unique=True)
    kind: StorageKind = Field(sa_type=state_word(StorageKind))
    role: StorageRole = Field(sa_type=state_word(StorageRole))
    url: str
    created_at: datetime = created()


class Dataset(SQLModel, table=True):
    """A named, ordered set of files; immutable once CLOSED."""

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
    created_at: datetime = created()
    closed_at: datetime | None = moment()


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


class Replica(SQLModel, table=True):
    """One copy of a file on one storage; `path` is relative to the storage."""

    __table_args__ = (sa.UniqueConstraint("storage_id", "path"),)

    id: int = row_id()
    file_id: int = reference("file.id", index=True)
    storage_id: int = reference("storage.id")
    path: str
    state: ReplicaState = Field(default=ReplicaState.AVAILABLE, sa_type=state_word(ReplicaState))
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
