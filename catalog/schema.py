"""The database schema: made and brought up to date by the migrations, and checked at the start."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlmodel import Session

from catalog import fulldisk, pilots
from catalog.db import Catalog
from catalog.errors import Conflict, SpdfError, Unavailable
from catalog.models import SchemaInfo

if TYPE_CHECKING:
    from alembic.config import Config

# Alembic is imported where it is used: every pilot checks the schema, few change it.

HEAD = "0021"
"""The newest revision in `migrations/versions`; revisions are numbered, so they compare."""

_ADVISORY_LOCK = 0x73706466
_LOCK_WAIT = "10s"
_IN_THE_WAY = frozenset({"55P03", "40P01"})
"""What PostgreSQL says where a lock can't be had in time, or two wait for each other's."""


@dataclass(frozen=True)
class SchemaState:
    """The schema that was found (None: no tables) beside what this program expects.

    `oldest_program` is the expectation of the oldest program that can still work with it.
    """

    found: str | None
    oldest_program: str
    expected: str

    @property
    def is_usable(self) -> bool:
        """Whether this program can work with it: it is the same, or newer and only added to."""
        return self.found is not None and self.oldest_program <= self.expected <= self.found


class SchemaMismatch(SpdfError):
    """The catalog's schema is not one that this program can work with."""

    is_outage = True

    def __init__(self, where: str, found: str | None, why: str) -> None:
        self.found, self.expected = found, HEAD
        super().__init__(f"{where} {why}.")


def migrations() -> Path:
    """The folder of the migrations, inside this package wherever it is installed."""
    return Path(__file__).resolve().parent / "migrations"


def upgrade(catalog: Catalog) -> SchemaState:
    """Bring the schema to this program's revision, in one transaction; gives what it was before.

    Does nothing where it is there already, or is a newer one that this program can work with;
    callers at the same time wait for each other. Raises `SchemaMismatch` for any other newer
    schema, `Conflict` while pilots are live that could not work with the new one, and
    `Unavailable` where the tables stay in use for ten seconds.
    """
    try:
        with catalog.lock(), catalog.engine.begin() as connection:
            if not catalog.is_sqlite:
                connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
            before = read_state(connection)
            if before.found != HEAD and not before.is_usable:
                if before.found is not None and before.found > HEAD:
                    raise _mismatch(_name(catalog), before)
                _migrate(catalog, connection, before)
            return before
    except sa.exc.OperationalError as error:
        if getattr(error.orig, "sqlstate", None) not in _IN_THE_WAY:
            raise
        raise Unavailable(
            f"{_name(catalog)} has tables that stay in use (by a backup, perhaps), so its schema "
            "can't be changed now; run it again when that is over."
        ) from error


def _migrate(catalog: Catalog, connection: sa.Connection, before: SchemaState) -> None:
    oldest = oldest_program(HEAD)
    if before.found is not None and oldest > before.oldest_program:
        _refuse_beating_pilots(catalog, connection, oldest)
    if not catalog.is_sqlite:
        # Who waits for a table's lock holds up all who come after, pilots' heartbeats too.
        connection.execute(sa.text(f"SET LOCAL lock_timeout = '{_LOCK_WAIT}'"))
    from alembic import command

    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    connection.execute(sa.update(SchemaInfo).values(oldest_program=oldest))


def _refuse_beating_pilots(catalog: Catalog, connection: sa.Connection, oldest: str) -> None:
    with Session(connection) as session:
        count = pilots.beating(session)
    if count:
        raise Conflict(
            f"{_name(catalog)} has pilots at work ({count}), and programs before the schema "
            f"{oldest} can't work with the new one, {HEAD}; migrate once they have ended: see "
            "`spdf pilot list --live`."
        )


def require(catalog: Catalog) -> SchemaState:
    """The state of a schema that this program can work with; raises `SchemaMismatch`."""
    with catalog.read() as session:
        state = read_state(session.connection())
    if not state.is_usable:
        raise _mismatch(_name(catalog), state)
    return state


def check(catalog: Catalog) -> SchemaState:
    """As `require`, but raises `Unavailable` where the catalog can't be reached."""
    try:
        return require(catalog)
    except sa.exc.OperationalError as error:
        raise Unavailable(
            fulldisk.told(error)
            or f"{_name(catalog)} can't be reached ({error.orig}); "
            "check SPDF_CATALOG_URL and that the database runs."
        ) from error


def refuse_newer(where: str, state: SchemaState) -> None:
    """Raise `SchemaMismatch` for a schema that only a newer program can work with."""
    if state.found is not None and state.found > HEAD and not state.is_usable:
        raise _mismatch(where, state)


def read_state(connection: sa.Connection) -> SchemaState:
    """The schema that is there now, in whatever revision."""
    known = set(sa.inspect(connection).get_table_names())
    found = None
    if "alembic_version" in known:
        found = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    oldest = None
    if SchemaInfo.__tablename__ in known:
        oldest = connection.execute(sa.text("SELECT oldest_program FROM schema_info")).scalar()
    return state_of(found, oldest)


def state_of(found: str | None, oldest: str | None) -> SchemaState:
    """A state from its two rows; a schema that doesn't say is for its own programs alone."""
    if oldest is None and found is not None:
        oldest = oldest_program(found) if found <= HEAD else found
    return SchemaState(found, oldest or HEAD, HEAD)


def oldest_program(revision: str) -> str:
    """The revision of the oldest program that can work with a schema: its migration declares it.

    Revisions that this program has no migration for are for their own programs alone.
    """
    from alembic.script import ScriptDirectory

    for script in ScriptDirectory.from_config(_config()).walk_revisions():
        if script.revision == revision:
            return str(script.module.oldest_program)
    return revision


def _config() -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations()).replace("%", "%%"))
    return config


def _name(catalog: Catalog) -> str:
    return f"the catalog {catalog.where}"


def _mismatch(where: str, state: SchemaState) -> SchemaMismatch:
    found = state.found
    if found is None:
        why = "is empty; `spdf catalog migrate` makes its tables (`spdf up` those of its own)"
    elif found < HEAD:
        why = (
            f"has the schema {found}, older than this program's {HEAD}; `spdf catalog migrate` "
            "brings it up to date (`spdf up` its own)"
        )
    else:
        why = (
            f"has the schema {found}, newer than this program's {HEAD} and not for programs "
            f"before {state.oldest_program}; install a newer spdf"
        )
    return SchemaMismatch(where, found, why)
