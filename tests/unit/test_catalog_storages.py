"""Storages: adding, finding, usage."""

from collections.abc import Callable
from pathlib import Path

import pytest

from catalog import files, storages
from catalog.db import Catalog
from catalog.errors import BadInput, BadName, Conflict, NotFound
from catalog.files import NewFileRow
from catalog.models import StorageKind, StorageRole
from catalog.states import ReplicaState
from catalog.storages import StorageInfo, StorageUsage


def test_a_local_storage_is_added_once_and_its_directory_made(
    catalog: Catalog, tmp_path: Path
) -> None:
    place = tmp_path / "new" / "place"
    with catalog.write() as session:
        added = storages.add(session, "disk", "local", "output", f"{place}/")
        assert storages.add(session, "disk", "local", "output", str(place)) == added
    assert place.is_dir()
    assert (added.kind, added.role, added.url) == (
        StorageKind.LOCAL, StorageRole.OUTPUT, str(place),
    )  # fmt: skip
    with catalog.read() as session:
        assert storages.get(session, added.id) == storages.by_name(session, "disk") == added
        assert storages.list_all(session) == [added]


def test_a_taken_name_or_place_is_refused(
    catalog: Catalog, storage: StorageInfo, tmp_path: Path
) -> None:
    for name, role, url, word in (
        ("raw", "input", str(tmp_path / "other"), "exists already"),
        ("raw", "output", storage.url, "exists already"),
        ("other", "input", storage.url, "is storage 'raw' already"),
    ):
        with pytest.raises(Conflict, match=word), catalog.write() as session:
            storages.add(session, name, "local", role, url)
    with catalog.read() as session:
        assert storages.list_all(session) == [storage]
    assert not (tmp_path / "other").exists()


def test_what_is_no_directory_is_refused(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for url in ("relative", "", f"{tmp_path}/../x", str(tmp_path / "file"), "/proc/nothing\n"):
        with pytest.raises(BadInput), catalog.write() as session:
            storages.add(session, "disk", "local", "input", url)
    with pytest.raises(BadName), catalog.write() as session:
        storages.add(session, "../x", "local", "input", str(tmp_path))
    with pytest.raises(BadInput, match="kinds are local, s3"), catalog.write() as session:
        storages.add(session, "disk", "tape", "input", str(tmp_path))


def test_the_first_storage_of_a_role_serves_it(
    catalog: Catalog, storage: StorageInfo, tmp_path: Path
) -> None:
    with catalog.write() as session:
        storages.add(session, "another", "local", "input", str(tmp_path / "b"))
        assert storages.default_for(session, StorageRole.INPUT) == storage
        with pytest.raises(NotFound, match="spdf storage add --role output"):
            storages.default_for(session, "output")


def test_usage_counts_files_and_bytes_by_state(
    catalog: Catalog, storage: StorageInfo, new_rows: Callable[..., list[NewFileRow]]
) -> None:
    with catalog.write() as session:
        ids = files.register(session, storage.id, new_rows("a", "bb", "ccc"))
        files.mark_bad(session, ids[2:], storage.id)
    with catalog.read() as session:
        assert storages.usage(session) == [
            StorageUsage("raw", StorageRole.INPUT, ReplicaState.AVAILABLE, 2, 3),
            StorageUsage("raw", StorageRole.INPUT, ReplicaState.BAD, 1, 3),
        ]


def test_an_unknown_storage_is_not_found(catalog: Catalog) -> None:
    with catalog.read() as session:
        with pytest.raises(NotFound, match="no storage 'x'"):
            storages.by_name(session, "x")
        with pytest.raises(NotFound):
            storages.get(session, 99)
