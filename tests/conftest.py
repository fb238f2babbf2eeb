"""Fixtures of all tests: catalogs that are migrated once and copied for each test."""

import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from catalog import clock, schema
from catalog.db import Catalog

POSTGRES = os.environ.get("SPDF_TEST_POSTGRES", "")
"""URL of a server on which tests may make databases; without it they run on SQLite."""


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A catalog with the schema and no rows: an SQLite file's path or a PostgreSQL database."""
    if not POSTGRES:
        path = tmp_path_factory.mktemp("migrated") / "catalog.db"
        _migrate(f"sqlite:///{path}")
        yield str(path)
        return
    name = f"spdf_template_{secrets.token_hex(4)}"
    _administer(f'CREATE DATABASE "{name}"')
    _migrate(_postgres(name))
    yield name
    _administer(f'DROP DATABASE "{name}"')


@pytest.fixture
def catalog_url(migrated: str, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty catalog of this test's own."""
    if not POSTGRES:
        path = tmp_path / "catalog" / "catalog.db"
        path.parent.mkdir()
        shutil.copy(migrated, path)
        yield f"sqlite:///{path}"
        return
    name = f"spdf_test_{secrets.token_hex(4)}"
    _administer(f'CREATE DATABASE "{name}" TEMPLATE "{migrated}"')
    yield _postgres(name)
    _administer(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[Catalog]:
    """An empty catalog of this test's own."""
    opened = Catalog(catalog_url)
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def _clock_put_right() -> Iterator[None]:
    yield
    clock.shift_clock(0.0)


def _migrate(url: str) -> None:
    opened = Catalog(url)
    schema.upgrade(opened)
    opened.close()


def _postgres(database: str) -> str:
    url = sa.make_url(POSTGRES).set(database=database)
    return url.render_as_string(hide_password=False)


def _administer(statement: str) -> None:
    url = sa.make_url(POSTGRES).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()
