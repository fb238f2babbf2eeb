"""How storages have filled: drawn from samples, and shown on Prefect's page."""

import base64
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    temporary_settings,
)

from catalog import storages, usage
from catalog.db import Catalog
from catalog.filling import Fill
from catalog.models import StorageKind, StorageRole, StorageSample
from flows import growth
from flows.server import Server

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.fixture
def client(prefect_server: Server) -> Iterator[SyncPrefectClient]:
    with SyncPrefectClient(prefect_server.api_url, auth_string=prefect_server.auth) as client:
        yield client


def history(count: int, size_bytes: int = 10**9) -> list[tuple[datetime, int]]:
    """One point a minute, of a storage that grows."""
    return [(NOW + timedelta(minutes=i), (i + 1) * size_bytes) for i in range(count)]


def texts(drawn: str) -> list[str]:
    return [node.text or "" for node in ET.fromstring(drawn).iter() if node.tag.endswith("text")]


def test_a_plot_tells_storage_unit_and_quota() -> None:
    fill = Fill(1, "input", "input", 3, 5 * 10**9, 20 * 10**9, True, False, 1e6)
    drawn = growth.draw(fill, history(5))
    assert texts(drawn)[0] == "input, GB (UTC)"
    assert {"used", "quota", "20"} <= set(texts(drawn))
    free = growth.draw(
        Fill(1, "disk", "output", 3, 5000, 10**12, False, False, None), history(5, 1000)
    )
    assert texts(free)[0] == "disk, kB (UTC)" and "quota" not in texts(free)


def test_an_empty_storage_is_drawn_too() -> None:
    fill = Fill(1, "input", "input", 0, 0, None, False, False, 0.0)
    assert "input, B (UTC)" in texts(growth.draw(fill, history(3, 0)))


@pytest.mark.parametrize("count", [0, 1, 119, 120, 121, 10_000])
def test_a_plot_has_as_many_points_as_it_can_show(count: int) -> None:
    points = history(count)
    thin = growth.thinned(points)
    assert len(thin) <= 120 and thin == sorted(thin) and set(thin) <= set(points)
    assert thin[-1:] == points[-1:]
    assert count <= 120 or len(thin) > 60


def shown(catalog: Catalog, server: Server) -> bool:
    """Whether a flow run leaves the page."""

    @flow
    def show() -> bool:
        return growth.leave_page(catalog)

    address = {PREFECT_API_URL: server.api_url, PREFECT_API_AUTH_STRING: server.auth}
    with temporary_settings(address):
        return show()


def test_the_page_has_all_storages_and_plots_of_those_with_a_history(
    catalog: Catalog, client: SyncPrefectClient, prefect_server: Server, tmp_path: Path
) -> None:
    with catalog.write() as session:
        ids = {
            name: storages.add(
                session, name, StorageKind.LOCAL, StorageRole.INPUT, str(tmp_path / name)
            ).id
            for name in ("grown", "new", "unused")
        }
        usage.set_quota(session, ids["grown"], 10**7, 90, 80)
        usage.note(session, ids["grown"], 2, 4 * 10**6)
        usage.fold(session)
        for minutes in (30, 10, 5):
            for name, size_bytes in (("grown", (40 - minutes) * 10**5), ("unused", 0)):
                at = datetime.now(UTC) - timedelta(minutes=minutes)
                row = {"storage_id": ids[name], "at": at, "files": 1, "size_bytes": size_bytes}
                session.execute(sa.insert(StorageSample).values(**row))
    assert shown(catalog, prefect_server)
    body = {"artifacts": {"key": {"any_": [growth.KEY]}}, "limit": 1, "sort": "ID_DESC"}
    (artifact,) = client.request("POST", "/artifacts/filter", json=body).json()
    assert artifact["type"] == "markdown"
    assert artifact["description"] == "input buffer grown full in 1 h"
    assert "| grown | input | 2 | 4.0 MB | 10.0 MB | 1.7 kB | 1 h |" in artifact["data"]
    assert "| new | input | 0 | 0 B |" in artifact["data"]
    ((name, content),) = re.findall(
        r"!\[(.*)\]\(data:image/svg\+xml;base64,(.*)\)", artifact["data"]
    )
    assert name == "grown" and "quota" in texts(base64.b64decode(content).decode())


def test_a_server_that_is_away_is_survived(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise httpx.ConnectError("the server is away")

    monkeypatch.setattr(growth, "create_markdown_artifact", refuse)
    assert not growth.leave_page(catalog)
