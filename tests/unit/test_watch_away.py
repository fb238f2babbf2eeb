"""Watching a storage that is away: nothing is taken, gone, or closed by what isn't seen there."""

import json
from pathlib import Path

import pytest

from catalog import standing, storages
from catalog.db import Catalog
from catalog.errors import ErrorCode, StorageError
from catalog.names import MARKER
from catalog.states import DatasetState
from catalog.storages import StorageInfo
from tests.unit.watched import Buffer


@pytest.fixture
def buffer(catalog: Catalog, storage: StorageInfo) -> Buffer:
    return Buffer(catalog, storage)


@pytest.mark.parametrize("another", [False, True])
def test_nothing_is_concluded_from_what_is_not_seen_on_a_storage_that_is_away(
    buffer: Buffer, another: bool
) -> None:
    watch = buffer.follow(quiet_s=0.0, stable_s=3600.0)
    buffer.follow("odd", pattern=r"(?P<run>run-\d+)/.*\.odd", quiet_s=None)
    odd = buffer.path("run-1/link.odd")
    buffer.arrive("run-1/a.raw", "run-1/b.odd")
    odd.symlink_to("b.odd")
    buffer.look()
    before = [(item.path, item.kind) for item in buffer.refused("odd")]
    assert before
    root = Path(buffer.storage.url)
    root.rename(root.with_name("away"))
    root.mkdir()
    if another:
        (root / MARKER).write_text(json.dumps({"format": 1, "storage": "theirs", "claims": []}))
        (root / "run-1").mkdir()
        (root / "run-1" / "theirs.raw").write_text("of another detector")
    for item in buffer.watches.values():
        with pytest.raises(StorageError) as caught:
            item.turn()
        assert caught.value.code is ErrorCode.STORAGE_UNAVAILABLE
    assert [(item.path, item.kind) for item in buffer.refused("odd")] == before
    assert not buffer.settled()
    assert watch is buffer.watches["daq"]


def test_a_watch_knows_of_a_marker_that_its_storage_got_since(
    catalog: Catalog, tmp_path: Path
) -> None:
    with catalog.write() as session:
        bare = storages.add(session, "bare", "local", "input", str(tmp_path / "bare"))
    buffer = Buffer(catalog, bare)
    watch = buffer.follow()
    buffer.arrive("run-1/a.raw")
    buffer.look()
    assert buffer.names("run-1") == ["run-1/a.raw"]
    assert buffer.state("run-1") is DatasetState.OPEN
    identity = standing.mark(catalog, bare.id).storage.identity
    assert identity is not None
    watch.turn()
    assert watch._storage.identity == identity
