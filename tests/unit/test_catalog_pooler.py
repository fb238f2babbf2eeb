"""The catalog behind PgBouncer, which lends a connection for one transaction at a time."""

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydantic import ValidationError

from benchmarks import pooler as bouncer
from catalog import backup, datasets, schema
from catalog.db import Catalog
from catalog.settings import Settings
from flows.services.postgres import Cluster
from tests.servers.postgres import free_port

pooled = pytest.mark.parametrize("backend", ["pooled"], indirect=True, scope="session")

BACKEND_PID = sa.text("SELECT pg_backend_pid()")


@pytest.fixture
def other(catalog_url: str, pooler: str) -> Iterator[Catalog]:
    """Another client of the same catalog."""
    opened = Catalog(catalog_url, pooler=pooler)
    yield opened
    opened.close()


def _pid(catalog: Catalog) -> int:
    # A transaction that is rolled back makes the driver forget what it has prepared.
    with catalog.write() as session:
        return int(session.execute(BACKEND_PID).scalar_one())


@pooled
def test_clients_share_the_servers_connections(catalog: Catalog, other: Catalog) -> None:
    assert _pid(catalog) == _pid(other)


@pooled
def test_a_statement_run_often_works_on_another_connection(
    catalog: Catalog, other: Catalog
) -> None:
    first = {_pid(catalog) for _ in range(12)}
    with other.write() as session:
        taken = session.execute(BACKEND_PID).scalar_one()
        second = _pid(catalog)
    assert taken in first and second not in first


@pooled
def test_more_clients_than_connections_wait_for_each_other(catalog: Catalog) -> None:
    names = [f"run-{number}" for number in range(24)]

    def make(mine: list[str]) -> None:
        for name in mine:
            with catalog.write() as session:
                datasets.create(session, name)

    threads = [threading.Thread(target=make, args=(names[i::8],)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with catalog.read() as session:
        assert sorted(d.name for d in datasets.list_datasets(session)) == sorted(names)


def test_a_migration_goes_past_the_pooler(postgres_server: Cluster) -> None:
    name = "spdf_past_pooler"
    postgres_server.create_database(name)
    nowhere = f"127.0.0.1:{free_port()}"
    opened = Catalog(postgres_server.url(name), pooler=nowhere)
    assert schema.upgrade(opened).found is None
    with pytest.raises(sa.exc.OperationalError):
        schema.require(opened)


def test_a_backup_goes_past_the_pooler(postgres_server: Cluster, tmp_path: Path) -> None:
    name = "spdf_backed_up"
    postgres_server.create_database(name)
    with (
        tempfile.TemporaryDirectory(prefix="spdf-pgbouncer-") as directory,
        bouncer.pooler(
            Path(directory, "one"), postgres_server, any_database=True, max_client_conn=1
        ) as (address, _),
    ):
        opened = Catalog(postgres_server.url(name), pooler=address)
        schema.upgrade(opened)
        schema.require(opened)
        assert backup.back_up(opened, tmp_path / "catalog.backup").path.exists()
        opened.close()


@pytest.mark.parametrize("given", ["db.site", "db.site:", ":6432", "postgresql://db.site:6432"])
def test_a_pooler_is_named_by_host_and_port(given: str) -> None:
    with pytest.raises(ValidationError):
        Settings(db_pooler=given, _env_file=None)
