"""Stage-in on a storage that isn't itself: an outage, and no fault of a file."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from catalog import standing, storages
from catalog.checksums import file_checksum
from catalog.db import Catalog
from catalog.drivers.identity import Identity
from catalog.drivers.local import LocalDriver
from catalog.errors import ErrorCode
from catalog.names import MARKER
from catalog.refs import FileRef, ReplicaRef
from workers.node import Node
from workers.orphans import PayloadLedger
from workers.slots import Capacity, Slots
from workers.stagein import StageIn, StageInError


class Far(LocalDriver):
    """A storage whose bytes must be fetched."""

    def local_path(self, path: str) -> Path | None:  # type: ignore[override]
        return None


def empty_mount_point(root: Path) -> None:
    root.rename(root.with_name("away"))
    root.mkdir()


def another_disk(root: Path) -> None:
    empty_mount_point(root)
    (root / MARKER).write_text(json.dumps({"format": 1, "storage": "theirs", "claims": []}))
    (root / "x").write_text("other bytes")


@pytest.fixture
def root(catalog: Catalog, tmp_path: Path) -> tuple[Path, str]:
    """The directory of a marked storage with one file, and its id."""
    with catalog.write() as session:
        made = storages.add(session, "disk", "local", "input", str(tmp_path / "disk"))
    (tmp_path / "disk" / "x").write_text("raw")
    identity = standing.mark(catalog, made.id).storage.identity
    assert identity is not None
    return tmp_path / "disk", identity


def stage_in(driver: LocalDriver, tmp_path: Path) -> StageIn:
    ledger, slots = PayloadLedger(tmp_path / "node", 1), Slots(tmp_path / "slots", Capacity(1, 64))
    return StageIn(Node("node", ledger, slots, {1: driver}, verify_linked=True), tmp_path / "in")


@pytest.mark.parametrize("kind", [LocalDriver, Far])
@pytest.mark.parametrize("leave", [empty_mount_point, another_disk])
def test_an_input_of_a_storage_that_is_away_is_neither_missing_nor_corrupt(
    root: tuple[Path, str],
    tmp_path: Path,
    kind: type[LocalDriver],
    leave: Callable[[Path], None],
) -> None:
    place, identity = root
    ref = FileRef(7, "x", 3, file_checksum(place / "x", "adler32"), (ReplicaRef(1, "x"),))
    driver = kind("disk", place, Identity(identity, marked=True))
    assert stage_in(driver, tmp_path).cwl_file(ref)["size"] == 3
    leave(place)
    with pytest.raises(StageInError) as caught:
        stage_in(driver, tmp_path / "again").cwl_file(ref)
    assert caught.value.code is ErrorCode.STORAGE_UNAVAILABLE and not caught.value.bad


@pytest.mark.parametrize("kind", [LocalDriver, Far])
def test_an_input_that_is_really_gone_is_missing(
    root: tuple[Path, str], tmp_path: Path, kind: type[LocalDriver]
) -> None:
    place, identity = root
    ref = FileRef(7, "x", 3, file_checksum(place / "x", "adler32"), (ReplicaRef(1, "x"),))
    (place / "x").unlink()
    driver = kind("disk", place, Identity(identity, marked=True))
    with pytest.raises(StageInError) as caught:
        stage_in(driver, tmp_path).cwl_file(ref)
    assert caught.value.code is ErrorCode.INPUT_MISSING
