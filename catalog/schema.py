"""The database schema: made and brought up to date by the migrations, and checked at the start."""

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from catalog.db import Catalog
from catalog.errors import SpdfError, Unavailable

HEAD = "0002"
"""The newest revision in `migrations/versions`; revisions are numbered, so they compare."""

_ADVISORY_LOCK = 0x73706466


class SchemaMismatch(SpdfError):
    """The catalog's schema is not the one this program was written for."""

    def __init__(self, catalog: Catalog, found: str | None, why: str) -> None:
        self.found, self.expected = found, HEAD
        where = catalog.url.render_as_string(hide_password=True)
        super().__init__(f"the catalog {where} {why}.")


def migrations() -> Path:
    """The folder of the migrations, inside this package wherever it is installed."""
    return Path(__file__).resolve().parent / "migrations"


def upgrade(catalog: Catalog) -> None:
    """Bring the schema to this program's revision, in one transaction.

    Does nothing where it is there already; callers at the same time wait for each other. Raises
    `SchemaMismatch` for a catalog that a newer program made.
    """
    config = Config()
    config.set_main_option("script_location", str(migrations()).replace("%", "%%"))
    with catalog.lock(), catalog.engine.begin() as connection:
        if not catalog.is_sqlite:
            connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
        found = _revision(connection)
        if found == HEAD:
            return
        if found is not None and found > HEAD:
            raise _newer(catalog, found)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def check(catalog: Catalog) -> None:
    """Raise `SchemaMismatch` unless the schema is exactly this program's."""
    try:
        with catalog.read() as session:
            found = _revision(session.connection())
    except sa.exc.OperationalError as error:
        where = catalog.url.render_as_string(hide_password=True)
        raise Unavailable(
            f"the catalog {where} can't be reached ({error.orig}); "
            "check SPDF_CATALOG_URL and that the database runs."
        ) from error
    if found == HEAD:
        return
    if found is None:
        raise SchemaMismatch(catalog, None, "is empty; `spdf up` makes its tables")
    if found > HEAD:
        raise _newer(catalog, found)
    raise SchemaMismatch(
        catalog,
        found,
        f"has the schema {found}, older than this program's {HEAD}; `spdf up` brings it up to date",
    )


def _newer(catalog: Catalog, found: str) -> SchemaMismatch:
    return SchemaMismatch(
        catalog,
        found,
        f"has the schema {found}, newer than this program's {HEAD}; install a newer spdf",
    )


def _revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
