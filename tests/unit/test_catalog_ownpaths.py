"""What lies dark is removed by itself only where its path says that this program wrote it."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from catalog import clock, datasets, events, standing, storages
from catalog.db import Catalog
from catalog.drivers.posix import partial_name
from catalog.inspection import findings
from catalog.inspection.scan import Options, inspect
from catalog.inspection.settle import settle
from catalog.models import Dataset, Restore, StorageKind, StorageRole
from catalog.ownpaths import generation_of, is_own
from catalog.states import DatasetState
from catalog.storages import StorageInfo
from catalog.transitions import move
from tests.unit.clocks import clock_of_another_boot
from workers.spec import JobSpec
from workers.stageout import place_of

NOW = Options(100.0, grace_s=0.0)
Place = Callable[[StorageRole], StorageInfo]


@pytest.fixture
def place(catalog: Catalog, tmp_path: Path) -> Place:
    """A storage of a role, with its marker."""

    def made(role: StorageRole) -> StorageInfo:
        with catalog.write() as session:
            directory = str(tmp_path / role)
            info = storages.add(session, str(role), StorageKind.LOCAL, role, directory)
        return standing.mark(catalog, info.id).storage

    return made


def look_again(catalog: Catalog, place: StorageInfo) -> None:
    """A day later: what goes by itself was listed twice."""
    clock.shift_clock(86_401.0)
    inspect(catalog, place.id, NOW)


@pytest.mark.parametrize("basename", ["out.root", "a b", "x" * 250])
@pytest.mark.parametrize("job", [7, 1_234_567_890])
def test_an_attempts_output_is_known_by_its_path(basename: str, job: int) -> None:
    for generation in (0, 2, 17):
        spec = JobSpec(job, 0, 1, "key", 0, 3, {}, {}, generation)
        path = place_of("run-1.reco.v1.decode.hits", spec, basename)
        assert is_own(path) and generation_of(path) == generation
        assert (f"/{job}.a3" in path) == (generation == 0), "as ever before a restore"
        assert (f"/{job}.g{generation}.a3" in path) == (generation > 0)


@pytest.mark.parametrize(
    "path",
    ["notes.txt", "run-1/a.raw", "run-1/000001/a.raw", "000001/7.a1.out", "run/000001/7.ab.out",
     "run-1/2026/7.a1.out", ".spdf-storage"],
)  # fmt: skip
def test_other_paths_may_be_anybodys(path: str) -> None:
    assert not is_own(path)


def test_by_itself_only_what_is_ours_goes(catalog: Catalog, place: Place) -> None:
    storage = place(StorageRole.OUTPUT)
    with catalog.write() as session:
        datasets.create(session, "run-1.x", derived=True)
    ours = ["run-1.x/000000/7.a1.out", f"run-1.x/{partial_name()}"]
    for name in (*ours, "thesis/plots.pdf"):
        path = Path(storage.url, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    assert inspect(catalog, storage.id, NOW).dark == 3
    assert settle(catalog, storage.id).quarantined == 3
    with catalog.read() as session:
        told = {item.path: item.state for item in findings.findings(session)}
    assert len(told) == 3
    look_again(catalog, storage)
    with clock_of_another_boot(catalog):
        assert settle(catalog, storage.id, quarantine_s=0.0).removed == 0
    assert settle(catalog, storage.id, quarantine_s=0.0).removed == 2
    left = [path for path in Path(storage.url).rglob("*") if path.is_file()]
    assert sorted(path.name for path in left) == [".spdf-storage", "plots.pdf"]
    assert settle(catalog, storage.id, remove_dark=True).removed == 1


def test_an_output_is_ours_where_a_workflow_of_this_catalog_makes_its_dataset(
    catalog: Catalog, place: Place
) -> None:
    """A safety copy of its folder isn't, nor is a folder of a person's dataset."""
    storage = place(StorageRole.OUTPUT)
    with catalog.write() as session:
        deleted = datasets.create(session, "renamed", derived=True)
        move(session, Dataset, [deleted], DatasetState.DELETING)
        move(session, Dataset, [deleted], DatasetState.DELETED)
        datasets.create(session, "renamed")
        datasets.create(session, "live", derived=True)
        datasets.create(session, "a-persons")
    for folder in ("live", "renamed", "a-persons", "my-safety-copy"):
        path = Path(storage.url, folder, "000000", "7.a1.out")
        path.parent.mkdir(parents=True)
        path.write_text(folder)
    assert inspect(catalog, storage.id, NOW).dark == 4
    settle(catalog, storage.id)
    with catalog.read() as session:
        told = {i.path: events.history(session, "finding", i.id)[-1].message
                for i in findings.findings(session)}  # fmt: skip
    stays = {
        path.partition("/")[0] for path, why in told.items() if "may be somebody's" in str(why)
    }
    assert stays == {"a-persons", "my-safety-copy"}
    look_again(catalog, storage)
    assert settle(catalog, storage.id, quarantine_s=0.0).removed == 2
    left = {path.parts[-3] for path in Path(storage.url).rglob("*.out")}
    assert left == {"a-persons", "my-safety-copy"}


def test_what_looks_like_ours_on_an_input_storage_stays(catalog: Catalog, place: Place) -> None:
    storage = place(StorageRole.INPUT)
    path = Path(storage.url, "run-1.x/000000/7.a1.out")
    path.parent.mkdir(parents=True)
    path.write_text("x")
    assert inspect(catalog, storage.id, NOW).dark == 1
    settle(catalog, storage.id)
    look_again(catalog, storage)
    assert settle(catalog, storage.id, quarantine_s=0.0).removed == 0 and path.exists()


@pytest.mark.parametrize("apart_s, removed", [(0.0, 0), (86_000.0, 0), (86_401.0, 1)])
def test_what_goes_by_itself_was_listed_by_two_looks_a_day_apart(
    catalog: Catalog, place: Place, apart_s: float, removed: int
) -> None:
    """However long it is quarantined, and even a single file."""
    storage = place(StorageRole.OUTPUT)
    with catalog.write() as session:
        datasets.create(session, "run-1.x", derived=True)
    path = Path(storage.url, "run-1.x/000000/7.a1.out")
    path.parent.mkdir(parents=True)
    path.write_text("x")
    inspect(catalog, storage.id, NOW)
    settle(catalog, storage.id)
    clock.shift_clock(30 * 86_400.0)
    assert settle(catalog, storage.id).removed == 0, "nobody has looked again"
    clock.shift_clock(apart_s)
    inspect(catalog, storage.id, NOW)
    clock.shift_clock(30 * 86_400.0)
    assert settle(catalog, storage.id).removed == removed
    assert path.exists() == (not removed)


@pytest.mark.parametrize(
    "name, stays",
    [("7.a1.out", True), ("7.g2.a1.out", True), ("7.g1.a1.out", False)],
)  # fmt: skip
def test_after_a_restore_only_what_was_stored_since_is_ours(
    catalog: Catalog, place: Place, name: str, stays: bool
) -> None:
    """What has the same number may be of a copy of this catalog, or of a later time of it."""
    storage = place(StorageRole.OUTPUT)
    with catalog.write() as session:
        datasets.create(session, "run-1.x", derived=True)
        before = datetime.now(UTC) - timedelta(minutes=1)
        session.add(Restore(id=1, at=before, how="restored", accepted_at=before))
    path = Path(storage.url, "run-1.x/000000", name)
    path.parent.mkdir(parents=True)
    path.write_text("x")
    older = Path(storage.url, "run-1.x/000000/8.g1.a1.out")
    older.write_text("of another time")
    os.utime(older, (1e9, 1e9))
    inspect(catalog, storage.id, NOW)
    settle(catalog, storage.id)
    with catalog.read() as session:
        told = {item.path: item.message for item in findings.findings(session)}
    assert ("made for dataset run-1.x" in told[f"run-1.x/000000/{name}"]) == stays
    assert "made for dataset run-1.x" in told["run-1.x/000000/8.g1.a1.out"]
    look_again(catalog, storage)
    settle(catalog, storage.id, quarantine_s=0.0)
    assert path.exists() == stays and older.exists()
