"""Fixtures of all tests: catalogs, on SQLite and PostgreSQL, copied from one that is migrated."""

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from catalog import clock, schema
from catalog.db import Catalog
from flows.services.postgres import Cluster
from tests.servers.pgbouncer import pooler as pooler
from tests.servers.postgres import postgres_server as postgres_server

SQLITE, POSTGRESQL, POOLED = "sqlite", "postgresql", "pooled"
EVERY_WAY = pytest.mark.parametrize(
    "backend", [SQLITE, POSTGRESQL, POOLED], indirect=True, scope="session"
)
"""For tests that shall run on PostgreSQL through a pooler, too."""


@pytest.fixture(scope="session", params=[SQLITE, POSTGRESQL])
def backend(request: pytest.FixtureRequest) -> str:
    """The databases that every test of the catalog runs on, one after the other."""
    return str(request.param)


@pytest.fixture(scope="session")
def migrated(
    backend: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A catalog with the schema and no rows: an SQLite file's path or a PostgreSQL database."""
    if backend == SQLITE:
        path = tmp_path_factory.mktemp("migrated") / "catalog.db"
        _migrate(f"sqlite:///{path}")
        yield str(path)
        return
    server: Cluster = request.getfixturevalue("postgres_server")
    name = f"spdf_template_{secrets.token_hex(4)}"
    server.create_database(name)
    _migrate(server.url(name))
    yield name


@pytest.fixture
def catalog_url(migrated: str, backend: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty catalog of this test's own."""
    if backend == SQLITE:
        tmp_path: Path = request.getfixturevalue("tmp_path")
        path = tmp_path / "catalog" / "catalog.db"
        path.parent.mkdir()
        shutil.copy(migrated, path)
        yield f"sqlite:///{path}"
        return
    server: Cluster = request.getfixturevalue("postgres_server")
    name = f"spdf_test_{secrets.token_hex(4)}"
    _administer(server, f'CREATE DATABASE "{name}" TEMPLATE "{migrated}" STRATEGY file_copy')
    yield server.url(name)
    _administer(server, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def bare_url(backend: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a database of this test's own, without tables."""
    if backend == SQLITE:
        tmp_path: Path = request.getfixturevalue("tmp_path")
        yield f"sqlite:///{tmp_path / 'bare' / 'catalog.db'}"
        return
    server: Cluster = request.getfixturevalue("postgres_server")
    name = f"spdf_bare_{secrets.token_hex(4)}"
    server.create_database(name)
    yield server.url(name)
    _administer(server, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def catalog(catalog_url: str, backend: str, request: pytest.FixtureRequest) -> Iterator[Catalog]:
    """An empty catalog of this test's own."""
    way = request.getfixturevalue("pooler") if backend == POOLED else ""
    opened = Catalog(catalog_url, pooler=way)
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


def _administer(server: Cluster, statement: str) -> None:
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(statement.encode())
