"""Empty folders: only those of outputs go, a day old, and none of an input storage."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from catalog import clock, datasets, deletion, files, standing, storages
from catalog.datasets import Member
from catalog.db import Catalog
from catalog.drivers.sweeping import sweep
from catalog.files import NewFileRow
from catalog.inspection.settle import settle
from catalog.ownpaths import is_own_folder
from catalog.refs import Originals, StorageInfo

DAY_S = 86400.0
OURS = (
    "run-1.x/000000",
    "run-1.x/000001/7.a1",
    "run-1.x/000001/7.g2.a1/deep/er",
    "run-1.x/000001/8.a12.folder/in",
)
OTHERS = (
    "run-1.x",
    "thesis/plots",
    "stream1",
    "run-1.x/2026",
    "run-1.x/000003/notes",
    "run-1.x/000003/7.b1",
    "other/run-1.x/000001",
)
Add = Callable[[str], StorageInfo]


@pytest.fixture
def add(catalog: Catalog, tmp_path: Path) -> Add:
    """A storage of a role, with its marker."""

    def made(role: str) -> StorageInfo:
        with catalog.write() as session:
            info = storages.add(session, role, "local", role, str(tmp_path / role))
        return standing.mark(catalog, info.id).storage

    return made


def make(root: Path, *paths: str, age_s: float = 2 * DAY_S) -> None:
    for path in paths:
        (root / path).mkdir(parents=True)
    grow_old(root, age_s)


def grow_old(root: Path, age_s: float = 2 * DAY_S) -> None:
    then = time.time() - age_s
    for folder in root.rglob("*"):
        if folder.is_dir() and not folder.is_symlink():
            os.utime(folder, (then, then))


def folders(root: Path) -> set[str]:
    return {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_dir()}


@pytest.mark.parametrize("role", ["output", "internal"])
def test_old_empty_folders_of_outputs_go_and_no_others(
    catalog: Catalog, add: Add, role: str
) -> None:
    info = add(role)
    root = Path(info.url)
    make(root, *OTHERS[1:], *OURS)
    settle(catalog, info.id)
    left = folders(root)
    assert not left & set(OURS)
    assert left == {*OTHERS, "thesis", "run-1.x/000003", "other", "other/run-1.x"}


def test_none_goes_of_an_input_storage(catalog: Catalog, add: Add) -> None:
    """Whoever made them goes on to write there."""
    info = add("input")
    make(Path(info.url), *OURS)
    before = folders(Path(info.url))
    settle(catalog, info.id)
    assert folders(Path(info.url)) == before


def test_a_folder_that_is_young_or_holds_anything_stays(tmp_path: Path) -> None:
    make(tmp_path, "d/000000", "d/000001")
    (tmp_path / "d/000001/7.a1.out").write_text("x")
    (tmp_path / "d/000002").symlink_to(tmp_path / "d/000000")
    root = os.open(tmp_path, os.O_RDONLY)
    grow_old(tmp_path, DAY_S / 2)
    assert sweep(root, is_own_folder, time.time() - DAY_S) == 0
    grow_old(tmp_path)
    assert sweep(root, is_own_folder, time.time() - DAY_S) == 1
    os.close(root)
    assert folders(tmp_path) == {"d", "d/000001"} and (tmp_path / "d/000002").is_symlink()


def test_the_folders_of_the_acquisition_stay_when_its_files_go(catalog: Catalog, add: Add) -> None:
    """It made them at its start, and renames the next run's files into place there."""
    info = add("input")
    root = Path(info.url)
    (root / "stream1").mkdir()
    (root / "stream1/run1.raw").write_text("run1")
    row = NewFileRow("raw", "stream1/run1.raw", "stream1/run1.raw", 4, "adler32:04380187")
    with catalog.write() as session:
        made = datasets.create(session, "run1")
        ids = files.register(session, info.id, [row])
        datasets.attach(session, made, [Member(ids[0], "run1.raw")])
        datasets.close(session, made)
        deletion.mark(session, made, "a test", by=Originals.BY_WORD, by_person=True)
    assert deletion.remove(catalog, made).copies == 1
    clock.shift_clock(2 * DAY_S)
    grow_old(root)
    settle(catalog, info.id)
    assert folders(root) == {"stream1"} and not list((root / "stream1").iterdir())
