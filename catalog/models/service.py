"""Tables of what is asked for, of what happened, and of the catalog itself."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from catalog.columns import BigInt, Json, added, created, moment, row_id, rows_where, state_word
from catalog.states import RequestState


class Request(SQLModel, table=True):
    """Something to be done to data later, and its reply."""

    __table_args__ = (
        sa.Index("ix_request_state_id", "state", "id"),
        sa.Index(
            "ix_request_begun", "lane", **rows_where("state = 'QUEUED' AND begun_at IS NOT NULL")
        ),
    )

    id: int = row_id()
    kind: str
    key: str = Field(unique=True)
    lane: str = added("", description="The dataset's name: within one, order is kept.")
    payload: dict[str, Any] = Field(sa_type=Json)
    files: int = added(0, description="Files that it names.")
    state: RequestState = Field(default=RequestState.QUEUED, sa_type=state_word(RequestState))
    reply: dict[str, Any] | None = Field(default=None, sa_type=Json)
    created_at: datetime = created()
    begun_at: datetime | None = moment()
    ended_at: datetime | None = moment()


class Event(SQLModel, table=True):
    """A state change of a coarse entity, written in the transaction that made it."""

    __table_args__ = (sa.Index("ix_event_entity", "entity", "entity_id"),)

    id: int = row_id()
    at: datetime = created()
    entity: str
    entity_id: int = Field(sa_type=BigInt)
    before: str | None = None
    after: str
    message: str | None = None


class Trouble(SQLModel, table=True):
    """What a service (`source`) can't do for one item, while that is so."""

    __table_args__ = (sa.Index("ix_trouble_entity", "entity", "entity_id"),)

    source: str = Field(primary_key=True)
    entity: str = Field(primary_key=True)
    entity_id: int = Field(primary_key=True, sa_type=BigInt)
    name: str
    error: str
    since: datetime = created()
    seen_at: datetime = created()


class Singleton(SQLModel, table=True):
    """Who does what only one process may do at a time (such as the recorder)."""

    name: str = Field(primary_key=True)
    owner: str | None = None
    epoch: int = Field(default=0)
    lease_until: datetime | None = moment()
    holder: str | None = Field(
        default=None, description="The file that its process keeps locked: see `catalog.flocks`."
    )


class SchemaInfo(SQLModel, table=True):
    """What the schema says of itself, in its only row."""

    __tablename__ = "schema_info"

    id: int = Field(default=1, primary_key=True)
    oldest_program: str = Field(description="Schema of the oldest program that can work with it.")


class CatalogInfo(SQLModel, table=True):
    """Who the catalog is to others, in its only row."""

    __tablename__ = "catalog_info"

    id: int = Field(default=1, primary_key=True)
    catalog: str = Field(description="Its id: a restored copy has the same.")
    instance: str = Field(description="Of the copy of it that is at work.")
    beat: int = added(
        0, sa_type=BigInt, description="Only grows: claims on storages have had no later one."
    )


class CatalogClock(SQLModel, table=True):
    """How far the database's clock is off the catalog's time, and its last sample, in one row.

    Lengths are seconds, `wall_s` is since 1970: numbers, as every transaction reads them.
    """

    __tablename__ = "catalog_clock"

    id: int = Field(default=1, primary_key=True)
    skew_s: float = Field(default=0.0, description="Taken from the database's time.")
    wall_s: float = Field(default=0.0, description="What the database's clock said.")
    boot_s: float = Field(default=0.0, description="What CLOCK_BOOTTIME said at that moment.")
    boot: str = Field(default="", description="Whose that was; empty: there is no sample.")
    beats: int = Field(default=0, sa_type=BigInt, description="Samples so far.")
    waits_s: float = Field(default=0.0, description="Left of a wait of removals after a start.")
    since: datetime | None = moment()
    back_at: datetime | None = moment()
    most_s: float = Field(default=0.0, description="The skew at its largest since then.")


class Restore(SQLModel, table=True):
    """When the catalog became what it had been earlier; the id is the generation that began.

    A restore makes this table in a catalog of any schema: a migration that adds a column to it
    looks first whether it is there.
    """

    id: int = Field(primary_key=True, sa_type=BigInt, sa_column_kwargs={"autoincrement": False})
    at: datetime = created()
    how: str
    aside: str | None = Field(default=None, description="Where the catalog of before is kept.")
    accepted_at: datetime | None = moment()
