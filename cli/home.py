"""Where commands work: the settings, the catalog and the server, opened when they are needed."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from catalog.errors import BadInput, Unavailable

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

    from catalog.db import Catalog
    from catalog.settings import Settings

SERVER_DOWN = "the server is not up; `spdf up` starts it."


def settings() -> "Settings":
    """The settings of this process; raises `BadInput` for one that can't be used."""
    from pydantic import ValidationError

    from catalog.settings import get_settings

    try:
        return get_settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(str(part) for part in first["loc"]).upper()
        raise BadInput(
            f"the setting SPDF_{name.removeprefix('SPDF_')} is {first['input']!r}: {first['msg']}; "
            "correct it in the environment or in SPDF_HOME/spdf.env."
        ) from error


def open_catalog(*, create: bool = False) -> "Catalog":
    """The catalog, with a schema that this program knows.

    With `create` an embedded one is made where there is none, with its default storages. Raises
    `Unavailable` where there is none or it can't be reached, `SchemaMismatch`.
    """
    from catalog import schema
    from catalog.db import get_catalog

    current = settings()
    path = sqlite_file(current.catalog_url)
    if path is None or path.exists():
        catalog = get_catalog()
        schema.check(catalog)
        return catalog
    if not create:
        raise Unavailable(f"there is no catalog at {path}; `spdf up` makes one.")
    from flows.defaults import add_default_storages

    current.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    catalog = get_catalog()
    schema.upgrade(catalog)
    add_default_storages(catalog, current)
    return catalog


def bare_catalog(*, create: bool = False) -> "Catalog":
    """The catalog, in whatever schema; with `create` an SQLite file may yet have to be made.

    Raises `Unavailable` where there is none.
    """
    from catalog.db import get_catalog

    current = settings()
    path = sqlite_file(current.catalog_url)
    if path is not None and not path.exists():
        if not create:
            raise Unavailable(f"there is no catalog at {path}; `spdf up` makes one.")
        current.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    return get_catalog()


def sqlite_file(url: str) -> Path | None:
    """The file of an SQLite catalog; None for PostgreSQL. Raises `BadInput` for what is neither."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    from catalog.places import sqlite_path

    try:
        parts = make_url(url)
        kind = parts.get_backend_name()
    except ArgumentError:
        kind = ""
    if kind not in ("sqlite", "postgresql"):
        raise BadInput(
            "SPDF_CATALOG_URL is no URL of a database that can be used; write sqlite:///FILE or "
            "postgresql://…"
        )
    if kind == "postgresql":
        return None
    if not parts.database or parts.database == ":memory:":
        raise BadInput("SPDF_CATALOG_URL names an SQLite in memory; give it a file.")
    return sqlite_path(parts.database)


def server_answers() -> bool:
    """Whether there is a server that commands can talk to."""
    try:
        require_server()
    except Unavailable:
        return False
    return True


def require_server() -> None:
    """Raise `Unavailable` unless the server of this SPDF_HOME, or the site's, answers."""
    from flows.server import call_api, read_server

    current = settings()
    server = None if current.api_url else read_server(current)
    if server is not None:
        try:
            call_api(server, "GET", "/admin/version")
        except Unavailable as error:
            raise Unavailable(SERVER_DOWN) from error
        return
    where = current.api_url or os.environ.get("PREFECT_API_URL")
    if not where:
        raise Unavailable(SERVER_DOWN)
    with _client() as client:
        fault = client.api_healthcheck()
    if fault is not None:
        raise Unavailable(f"the server at {where} doesn't answer; check SPDF_API_URL.")


@contextmanager
def server_client() -> Iterator["SyncPrefectClient"]:
    """A client of the server, which answers; raises `Unavailable`."""
    require_server()
    with _client() as client:
        yield client


@contextmanager
def _client() -> Iterator["SyncPrefectClient"]:
    from flows.server import configure_client

    # Prefect reads its settings when it is imported.
    configure_client(settings())
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        yield client


def ui_address(flow_run_id: str | None) -> str | None:
    """Where the web page shows a flow run."""
    from flows.server import read_server

    current = settings()
    server = read_server(current)
    base = current.api_url.removesuffix("/api") or (server.ui_url if server else None)
    if base is None or flow_run_id is None:
        return None
    return f"{base}/runs/flow-run/{flow_run_id}"


def add_own_programs() -> None:
    """Put the folder of this interpreter on the PATH, first, unless it is there: as pilots do.

    Payloads that say `python3` then get the Python, and the packages, that spdf runs on.
    """
    folder = str(Path(sys.executable).parent)
    known = os.environ.get("PATH", os.defpath)
    if folder not in known.split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join([folder, known])
