"""Fixtures of all tests: catalogs, on SQLite and PostgreSQL, copied from one that is migrated."""

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

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

SITES = ("site", "whole_site", "s3_server", "prefect_server")
"""Fixtures of services that use the machine, if little, as long as they are up."""


_USERS = pytest.StashKey[dict[Path, dict[str, Any]]]()
"""By module the definitions of these fixtures that its tests need, by name."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Have modules that need the same services follow each other, before all others."""
    users = config.stash[_USERS] = {item.path: {} for item in items}
    for item in items:
        known = getattr(item, "_fixtureinfo", None)
        definitions = {} if known is None else known.name2fixturedefs
        for name in SITES:
            # Others, of a test's own, may have that name.
            if name in definitions and definitions[name][-1].scope == "session":
                users[item.path][name] = definitions[name][-1]

    def place(item: pytest.Item) -> tuple[int, int]:
        needed = [n for n, name in enumerate(SITES) if name in users[item.path]]
        return (min(needed), max(needed)) if needed else (len(SITES), 0)

    items.sort(key=place)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: Any, nextitem: pytest.Item | None) -> Iterator[None]:
    """End services at once where the module that comes next has no test that needs them.

    Where what comes next is no test, all stay up: mutants share them.
    """
    yield
    users = item.config.stash[_USERS]
    for name, fixture in users[item.path].items():
        if nextitem is None or name not in users.get(nextitem.path, (name,)):
            fixture.finish(item._request)


@pytest.fixture(scope="session", autouse=True)
def _statements_compiled_once() -> Iterator[None]:
    """Engines of one kind share what they have compiled, which else is a sixth of the time.

    Each test opens a catalog of its own, and an engine keeps its statements for itself.
    """
    create = sa.create_engine
    known: dict[tuple[Any, ...], sa.Engine] = {}

    def shared(*args: Any, **options: Any) -> sa.Engine:
        engine = create(*args, **options)
        kind = engine.dialect.name, engine.dialect.driver, options.get("json_serializer")
        first = known.setdefault(kind, engine)
        if getattr(first.dialect, "server_version_info", None) is None:
            # Nobody has connected yet, so that its dialect doesn't know its server.
            known[kind] = engine
        elif first is not engine:
            engine.dialect = engine.pool._dialect = first.dialect
            engine._compiled_cache = first._compiled_cache
        return engine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sa, "create_engine", shared)
        yield


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
    clock.set_clock(0.0)


def _migrate(url: str) -> None:
    opened = Catalog(url)
    schema.upgrade(opened)
    opened.close()


def _administer(server: Cluster, statement: str) -> None:
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(statement.encode())
