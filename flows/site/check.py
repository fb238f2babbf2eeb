"""Whether every part of a site is right: each is tried out, and each fault names its mend."""

import secrets
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from catalog import nodes, schema, standing, storages
from catalog.checksums import DEFAULT, file_checksum
from catalog.db import get_catalog
from catalog.drivers import driver_for, undo
from catalog.errors import SpdfError, Unavailable
from catalog.overlaps import overlaps
from catalog.settings import Settings
from catalog.standing import Standing
from catalog.storages import StorageInfo
from flows.queues import CONTROL, CONTROL_QUEUES, CPU, POOLS
from flows.server import ask, client_env

NEEDED = frozenset({CONTROL, CPU})
"""Pools that a site can't do without a worker of."""
_PROBE_BYTES = 64 * 1024


@dataclass(frozen=True)
class Finding:
    """One part of a site: `mend` says what to do where it isn't right."""

    part: str
    name: str
    right: bool
    what: str
    mend: str = ""


def check_site(settings: Settings) -> list[Finding]:
    """Try out the database, the server, its pools and workers, and every storage."""
    return [*_database(settings), *_server(settings), *_storages()]


def _database(settings: Settings) -> Iterator[Finding]:
    catalog = get_catalog()
    where = catalog.where
    if catalog.is_missing:
        yield Finding("database", where, False, "is not there", "`spdf up` makes it")
        return
    try:
        found = schema.check(catalog).found
        with catalog.read() as session:
            session.execute(sa.text("SELECT 1"))
    except SpdfError as error:
        named = "SPDF_DB_POOLER and SPDF_CATALOG_URL" if settings.db_pooler else "SPDF_CATALOG_URL"
        yield _wrong("database", where, error, f"check {named}; `spdf catalog show`")
    else:
        yield Finding("database", where, True, f"schema {found}")


def _server(settings: Settings) -> Iterator[Finding]:
    try:
        env = client_env(settings)
    except SpdfError as error:
        yield _wrong("server", "Prefect", error, "name it in SPDF_API_URL, or run `spdf up`")
        return
    url, login = env.get("PREFECT_API_URL", ""), env.get("PREFECT_API_AUTH_STRING", "")
    try:
        version = ask(url, login, "GET", "/admin/version")
    except Unavailable as error:
        yield _wrong("server", url, error, "check SPDF_API_URL, SPDF_API_AUTH and that it runs")
        return
    yield Finding("server", url, True, f"Prefect {version}")
    yield _locked(url)
    for pool in POOLS:
        yield from _pool(url, login, pool)


def _locked(url: str) -> Finding:
    """A server must refuse whoever has no login."""
    try:
        ask(url, "", "GET", "/admin/version")
    except Unavailable:
        return Finding("login", url, True, "asked for")
    return Finding(
        "login", url, False, "the server answers anybody", "set PREFECT_SERVER_API_AUTH_STRING"
    )


def _pool(url: str, login: str, pool: str) -> Iterator[Finding]:
    needed = pool in NEEDED
    try:
        found = ask(url, login, "GET", f"/work_pools/{pool}")
        online = ask(
            url, login, "POST", f"/work_pools/{pool}/workers/filter",
            {"workers": {"status": {"any_": ["ONLINE"]}}},
        )  # fmt: skip
    except Unavailable as error:
        yield _wrong("pool", pool, error, "see the server's log")
        return
    if found is None:
        if needed:
            yield Finding("pool", pool, False, "is not there", "`spdf site setup` makes it")
        return
    yield Finding("pool", pool, True, f"type {found['type']}")
    left = _left(pool)
    if pool == CONTROL:
        yield from _queues(url, login)
    count = sum(not _has_left(worker, left) for worker in online)
    if count or needed:
        yield Finding(
            "workers", pool, bool(count), f"{count} online",
            "" if count else f"start one: `spdf worker start --pool {pool}`",
        )  # fmt: skip


def _queues(url: str, login: str) -> Iterator[Finding]:
    """Those of `control`: a worker of several gets no runs while one of them is missing."""
    try:
        found = ask(url, login, "POST", f"/work_pools/{CONTROL}/queues/filter", {})
    except Unavailable as error:
        yield _wrong("queues", CONTROL, error, "see the server's log")
        return
    for name in sorted(set(CONTROL_QUEUES) - {queue["name"] for queue in found or ()}):
        yield Finding("queue", name, False, "is not there", "`spdf site setup` makes it")


def _left(pool: str) -> dict[str, datetime]:
    """When the nodes went that are OFFLINE by the catalog, by name; it hears of that at once."""
    if get_catalog().is_missing:
        return {}
    try:
        with get_catalog().read() as session:
            known = nodes.list_nodes(session)
    except (SpdfError, sa.exc.SQLAlchemyError):
        return {}
    return {node.name: node.ended_at for node in known if node.pool == pool and node.ended_at}


def _has_left(worker: Mapping[str, Any], left: Mapping[str, datetime]) -> bool:
    """Whether Prefect shows a worker online only because it waits for more heartbeats to miss."""
    gone = left.get(worker["name"].partition("@")[2])
    return gone is not None and datetime.fromisoformat(worker["last_heartbeat_time"]) <= gone


def _storages() -> Iterator[Finding]:
    if get_catalog().is_missing:
        return
    try:
        with get_catalog().read() as session:
            known = storages.list_all(session)
    except (SpdfError, sa.exc.SQLAlchemyError):
        return
    if not known:
        yield Finding("storage", "–", False, "there is none", "`spdf site setup` adds the defaults")
    standing.adopt_all(get_catalog())
    with get_catalog().read() as session:
        known = storages.list_all(session)
    for found in standing.look_all(known):
        if found.standing is Standing.ITSELF:
            yield _storage(found.storage)
        else:
            yield Finding("storage", found.storage.name, False, found.why)
    for told in standing.told_overlaps(overlaps(known, resolve=True)):
        yield Finding("storages", "that share a place", False, told)


def _storage(storage: StorageInfo) -> Finding:
    """Write, read back, delete."""
    path = f".spdf-check/{secrets.token_hex(8)}"
    try:
        driver = driver_for(storage)
        with tempfile.TemporaryDirectory(prefix="spdf-check-") as scratch:
            source, target = Path(scratch, "written"), Path(scratch, "read")
            source.write_bytes(secrets.token_bytes(_PROBE_BYTES))
            driver.put(source, path)
            try:
                driver.get(path, target)
                same = file_checksum(target, DEFAULT) == file_checksum(source, DEFAULT)
            finally:
                undo(driver, [path])
    except SpdfError as error:
        return _wrong("storage", storage.name, error, f"see what is at {storage.url}")
    if not same:
        return Finding(
            "storage", storage.name, False, "gives back other bytes than it got",
            f"use nothing of {storage.url} before that is understood",
        )  # fmt: skip
    return Finding("storage", storage.name, True, "written, read back, deleted")


def _wrong(part: str, name: str, error: Exception, mend: str) -> Finding:
    return Finding(part, name, False, str(error), mend)
