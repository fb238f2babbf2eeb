"""The real servers of a site on one machine: PostgreSQL, and S3 where the settings name it.

`python -m flows.services.backends` waits for them and makes what a site keeps there; it is the
step between their start and that of the Prefect server.
"""

import sys
from collections.abc import Mapping
from urllib.parse import urlsplit

import sqlalchemy as sa

from catalog.settings import Settings, get_settings
from flows.logs import log_to_stderr
from flows.services.postgres import Cluster
from flows.services.rgw import ObjectStore
from flows.site.setup import set_up_data

READY_S = 90.0
"""How long the servers may take until they answer."""


def cluster(settings: Settings) -> Cluster:
    """The PostgreSQL cluster that the settings' catalog URL names."""
    url = sa.make_url(settings.catalog_url)
    assert url.port and url.username and url.password
    return Cluster(
        directory=settings.home / "postgres",
        port=url.port,
        user=url.username,
        password=str(url.password),
    )


def object_store(settings: Settings) -> ObjectStore | None:
    """The S3 server that the settings' `s3_url` names; None where storages are directories."""
    if not settings.s3_url:
        return None
    port = urlsplit(settings.s3_url).port
    assert port
    return ObjectStore(
        directory=settings.home / "s3",
        port=port,
        access_key=settings.s3_access_key.get_secret_value(),
        secret_key=settings.s3_secret_key.get_secret_value(),
    )


def prepare(settings: Settings) -> None:
    """Lay down the servers' data; raises `Unavailable` where a program is missing."""
    cluster(settings).prepare()
    if (store := object_store(settings)) is not None:
        store.prepare()


def commands(settings: Settings) -> Mapping[str, tuple[str, ...]]:
    """The servers' command lines by name, in the order in which they are started."""
    found = {"postgres": tuple(cluster(settings).command())}
    if (store := object_store(settings)) is not None:
        found |= {f"s3-{name}": tuple(line) for name, line in store.commands().items()}
    return found


def set_up(settings: Settings) -> None:
    """Wait until they answer, then make databases, schema, buckets and storages."""
    database = cluster(settings)
    database.wait_ready(READY_S)
    for url in (settings.catalog_url, settings.server_database_url.get_secret_value()):
        name = sa.make_url(url).database
        assert name
        database.create_database(name)
    if (store := object_store(settings)) is not None:
        store.wait_ready(READY_S)
    set_up_data(settings)


def main() -> int:
    """Set up the servers of this SPDF_HOME."""
    settings = get_settings()
    log_to_stderr(settings)
    set_up(settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
