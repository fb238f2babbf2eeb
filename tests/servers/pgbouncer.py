"""A PgBouncer before the tests' PostgreSQL, with the configuration that a site gets."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import pooler as bouncer
from flows.services.postgres import Cluster
from tests.servers.install import need

SERVER_CONNECTIONS = 2


@pytest.fixture(scope="session")
def pooler(postgres_server: Cluster) -> Iterator[str]:
    """Its address, host:port. It shares two connections to each database among all clients."""
    need(bouncer.program, bouncer.PACKAGE)
    with (
        tempfile.TemporaryDirectory(prefix="spdf-pgbouncer-") as directory,
        bouncer.pooler(
            Path(directory, "pooler"),
            postgres_server,
            any_database=True,
            default_pool_size=SERVER_CONNECTIONS,
        ) as (address, _),
    ):
        yield address
