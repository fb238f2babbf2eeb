"""`spdf worker`: the nodes that there are, and what a worker refuses before it serves."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from catalog import nodes
from catalog.db import Catalog
from catalog.nodes import Announcement

Spdf = Callable[..., Any]
GPU = {"number": 0, "name": "H200", "uuid": "GPU-1", "memory_mib": 141_000}
SAID = Announcement("n1", "gpu", 10, 8, 64_000, (GPU,), "docker", "1.0")


@pytest.fixture
def node(home: Path, catalog: Catalog) -> str:
    """A node that serves both pools."""
    with catalog.write() as session:
        nodes.announce(session, SAID)
        nodes.announce(session, replace(SAID, pool="cpu"))
    return SAID.name


def test_nodes_are_listed_and_shown(node: str, ok: Spdf) -> None:
    assert "64000" in ok("worker", "list").out
    assert [one["pool"] for one in ok("worker", "list", "--online", "--json").json] == [
        "cpu",
        "gpu",
    ]
    shown = ok("worker", "show", node, "--pool", "gpu").out
    assert "pool gpu: ONLINE, 8 slots" in shown
    assert "GPU 0: H200, 141000 MiB" in shown
    (worker,) = ok("worker", "show", node, "--pool", "gpu", "--json").json["workers"]
    assert worker["devices"] == [GPU]


def test_a_node_drains_one_pool_or_all(node: str, ok: Spdf, spdf: Spdf) -> None:
    assert ok("worker", "drain", node, "--pool", "gpu", "--json").json["pools"] == ["gpu"]
    assert ok("worker", "drain", node, "--json").json["pools"] == ["cpu"]
    done = spdf("worker", "drain", node)
    assert (done.code, "no worker that is ONLINE (cpu DRAINING" in done.err) == (4, True)


def test_no_nodes(home: Path, ok: Spdf, spdf: Spdf) -> None:
    assert ok("worker", "list").out.startswith("no nodes; `spdf worker start`")
    done = spdf("worker", "show", "n9")
    assert (done.code, "'n9'" in done.err) == (3, True)


def test_a_worker_needs_a_server_that_answers(
    home: Path, spdf: Spdf, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = spdf("worker", "start", "--pool", "cpu")
    assert (done.code, "SPDF_API_URL" in done.err) == (5, True)
    monkeypatch.setenv("SPDF_API_URL", "http://127.0.0.1:9/api")
    from catalog.settings import get_settings

    get_settings.cache_clear()
    done = spdf("worker", "start", "--pool", "cpu")
    assert (done.code, "doesn't answer" in done.err, done.err.count("\n")) == (5, True, 1)
    assert spdf("worker", "start").code == 2
