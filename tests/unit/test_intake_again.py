"""Paths that the intake meets again after the deletion of what was registered there."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from catalog import causes, datasets, deletion, detached, files, intakerules, manifests, requests
from catalog.db import Catalog
from catalog.intakerules import Rule
from catalog.refs import Originals
from catalog.states import DatasetState, RequestState
from catalog.storages import StorageInfo
from flows.intake.watch import Watch
from tests.processing import close_due, do_all

RUN = r"(?P<run>run-\d+)"


@pytest.fixture
def look(catalog: Catalog, storage: StorageInfo) -> Callable[[], None]:
    """Look twice, as a marker needs, and have all requests done."""
    with catalog.write() as session:
        rule = intakerules.add(
            session,
            Rule(
                "daq", storage.name, RUN + r"/.*\.raw", "{run}",
                end_pattern=RUN + "/END", stable_s=0.0,
            ),
        )  # fmt: skip
    watch = Watch(rule, catalog)

    def turn() -> None:
        for _ in range(2):
            watch.turn()
            do_all(catalog)
            close_due(catalog)

    return turn


def write(storage: StorageInfo, name: str, content: str, mtime: float | None = None) -> None:
    path = Path(storage.url, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(content)
    if mtime is not None:
        os.utime(path, (mtime, mtime))


def delete(catalog: Catalog, name: str, by: Originals | None = None) -> int:
    with catalog.write() as session:
        made = datasets.by_name(session, name).id
        deletion.mark(session, made, "a test", by=by)
    deletion.remove(catalog, made)
    return made


def content(catalog: Catalog, name: str) -> tuple[DatasetState, list[tuple[str, int]]]:
    with catalog.read() as session:
        info = datasets.by_name(session, name)
        members = manifests.all_members(session, info.id)
        return info.state, sorted((m.name, m.size_bytes) for m in members)


def test_a_repeated_run_is_taken_again_under_its_name(
    catalog: Catalog, storage: StorageInfo, look: Callable[[], None]
) -> None:
    write(storage, "run-1/a.raw", "old")
    write(storage, "run-1/END", "")
    look()
    first = delete(catalog, "run-1")
    Path(storage.url, "run-1/END").unlink()
    write(storage, "run-1/a.raw", "new data of another run")
    write(storage, "run-1/b.raw", "b")
    look()
    write(storage, "run-1/END", "")
    look()
    expected = [("run-1/a.raw", 23), ("run-1/b.raw", 1)]
    assert content(catalog, "run-1") == (DatasetState.CLOSED, expected)
    assert content(catalog, f"run-1#{first}") == (
        DatasetState.DELETED,
        [("run-1/a.raw", 3)],
    )
    with catalog.read() as session:
        found = requests.list_requests(session)
        assert {info.state for info in found} == {RequestState.DONE}
        assert files.find(session, "raw:run-1/a.raw").size_bytes == 23
        info = datasets.by_name(session, "run-1")
        assert "CLOSED" in causes.why_dataset(session, info)[0].fact


def test_what_was_detached_is_left_alone_until_a_rescan(
    catalog: Catalog, storage: StorageInfo, look: Callable[[], None]
) -> None:
    write(storage, "run-1/a.raw", "a")
    write(storage, "run-1/END", "")
    look()
    delete(catalog, "run-1")
    look()
    assert content(catalog, "run-1")[0] is DatasetState.DELETED
    with catalog.write() as session:
        before = files.find(session, "raw:run-1/a.raw").id
        assert detached.rescan(session) == 1
    look()
    look()
    assert content(catalog, "run-1") == (DatasetState.CLOSED, [("run-1/a.raw", 1)])
    with catalog.read() as session:
        assert files.find(session, "raw:run-1/a.raw").id == before, "the same bytes"


def test_the_same_bytes_of_the_same_time_come_back_after_they_went(
    catalog: Catalog, storage: StorageInfo, look: Callable[[], None]
) -> None:
    """As a transfer that keeps times brings them once more."""
    for _ in range(3):
        write(storage, "run-1/a.raw", "a", mtime=1e9)
        write(storage, "run-1/END", "")
        look()
        look()
        assert content(catalog, "run-1") == (DatasetState.CLOSED, [("run-1/a.raw", 1)])
        delete(catalog, "run-1", Originals.BY_WORD)
        assert not Path(storage.url, "run-1/a.raw").exists()


def test_a_touched_file_that_was_detached_is_taken_as_new(
    catalog: Catalog, storage: StorageInfo, look: Callable[[], None]
) -> None:
    write(storage, "run-1/a.raw", "a", mtime=1e9)
    write(storage, "run-1/END", "")
    look()
    delete(catalog, "run-1")
    write(storage, "run-1/a.raw", "b", mtime=1e9 + 1)
    look()
    look()
    assert content(catalog, "run-1") == (DatasetState.CLOSED, [("run-1/a.raw", 1)])
