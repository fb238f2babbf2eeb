"""Setting a site up: schema, storages, pools, deployments. Safe to be run again at any time."""

import sys

from catalog import schema
from catalog.db import get_catalog
from catalog.settings import Settings, get_settings
from flows.defaults import add_default_storages
from flows.logs import log_to_stderr
from flows.server import configure_client


def set_up_data(settings: Settings) -> list[str]:
    """Bring the catalog's schema up to date and add the default storages; gives the new ones.

    Raises `Unavailable`, `SchemaMismatch`.
    """
    catalog = get_catalog()
    schema.upgrade(catalog)
    return [info.name for info in add_default_storages(catalog, settings)]


def set_up_server(settings: Settings) -> None:
    """Lay down pools, deployments and templates on the site's server; raises `Unavailable`."""
    configure_client(settings)
    from flows import deployments

    deployments.lay_down(settings, gpu=True)


def main() -> int:
    """Set up the data of this SPDF_HOME's site, before its server starts."""
    settings = get_settings()
    log_to_stderr(settings)
    set_up_data(settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
