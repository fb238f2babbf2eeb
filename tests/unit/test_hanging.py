"""A mount that hangs is away within a time limit: nothing is concluded, and the rest goes on."""

import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from catalog import answering, datasets, deletion, deletionfaults, files, siting, standing, storages
from catalog.datasets import Member
from catalog.db import Catalog
from catalog.drivers import driver_for
from catalog.errors import ErrorCode, StorageError
from catalog.filling import fills
from catalog.models import StorageKind, StorageRole
from catalog.overlaps import overlaps
from catalog.refs import StorageInfo
from catalog.standing import Standing
from catalog.states import DatasetState
from tests.servers.disks import hanging
from tests.unit.conftest import row_of

SAID = r"doesn't answer within 1 s; check its mount or server"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "LIMIT_S", 1.0)


@pytest.fixture
def place(catalog: Catalog, tmp_path: Path) -> Callable[..., StorageInfo]:
    def add(name: str, role: str = "output") -> StorageInfo:
        with catalog.write() as session:
            made = storages.add(session, name, "local", role, str(tmp_path / name))
        return standing.mark(catalog, made.id).storage

    return add


def dataset(
    catalog: Catalog, storage: StorageInfo, name: str, *, folder: str = "", in_place: bool = False
) -> int:
    """A dataset of two files in a folder of a storage, that is to go."""
    rows = [row_of(f"{folder}{name}-{part}", scope=storage.name) for part in ("a", "b")]
    for row in rows:
        Path(storage.url, row.path).write_text(row.name)
    with catalog.write() as session:
        made = datasets.create(session, name)
        ids = files.register(session, storage.id, rows, in_place=in_place)
        datasets.attach(session, made, [*map(Member, ids, (row.name for row in rows))])
        datasets.close(session, made)
        deletion.mark(session, made, "a test")
    return made


def state_of(catalog: Catalog, dataset_id: int) -> DatasetState:
    with catalog.read() as session:
        return datasets.get(session, dataset_id).state


def askers() -> int:
    return len([thread for thread in threading.enumerate() if thread.name == "answering"])


@pytest.mark.parametrize("in_place", [False, True])
def test_what_lies_on_a_mount_that_hangs_stays_and_the_rest_goes(
    catalog: Catalog, place: Callable[..., StorageInfo], *, in_place: bool
) -> None:
    away, well = place("away"), place("well")
    stays = dataset(catalog, away, "stays", in_place=in_place)
    goes = dataset(catalog, well, "goes")
    with hanging(Path(away.url)):
        done = deletion.remove(catalog, stays)
        assert (done.copies, done.detached, len(done.faults)) == (0, 0, 2)
        assert state_of(catalog, stays) is DatasetState.DELETING
        with catalog.read() as session:
            (fault,) = deletionfaults.of_dataset(session, stays)
        assert (fault.storage, fault.files) == ("away", 2)
        assert "doesn't answer within 1 s" in fault.reason
        assert deletion.remove(catalog, goes).copies == 2
        assert state_of(catalog, goes) is DatasetState.DELETED
        assert askers() == 1, "no second one joins who is stuck"
    assert len([*Path(away.url).glob("stays-*")]) == 2
    deletion.remove(catalog, stays)
    assert state_of(catalog, stays) is DatasetState.DELETED


@pytest.mark.parametrize("leads_to", ["well/aside", "away"])
def test_what_is_behind_a_link_stays_while_a_storage_does_not_answer(
    catalog: Catalog, place: Callable[..., StorageInfo], tmp_path: Path, leads_to: str
) -> None:
    away, well = place("away"), place("well")
    Path(well.url, "aside").mkdir()
    Path(well.url, "linked").symlink_to(tmp_path / leads_to)
    made = dataset(catalog, well, "goes", folder="linked/")
    with hanging(Path(away.url)):
        (fault, _) = deletion.remove(catalog, made).faults
        assert "storage away may have it, and hangs" in fault
    assert deletion.remove(catalog, made).copies == (2 if leads_to == "well/aside" else 0)


def test_a_place_inside_of_one_that_hangs_is_the_others_still(
    catalog: Catalog, place: Callable[..., StorageInfo]
) -> None:
    """As its mount may answer again between the look and the removal."""
    away = place("away")
    with hanging(Path(away.url)):
        inner = StorageInfo(0, "new", StorageKind.LOCAL, StorageRole.OUTPUT, f"{away.url}/inner")
        assert [found.inside for found in overlaps([away, inner])] == ["inner"]


def test_what_is_done_to_a_storage_that_hangs_is_refused(
    catalog: Catalog, place: Callable[..., StorageInfo], tmp_path: Path
) -> None:
    away, well = place("away"), place("well")
    new = StorageInfo(0, "new", StorageKind.LOCAL, StorageRole.OUTPUT, f"{away.url}/new")
    with hanging(Path(away.url)):
        for call in (
            lambda: standing.mark(catalog, away.id),
            lambda: standing.mark(catalog, away.id, by_word=True),
            lambda: siting.move(catalog, "well", away.url),
            lambda: siting.refuse_taken(catalog, new),
            lambda: siting.refuse_taken(
                catalog,
                StorageInfo(0, "new", StorageKind.LOCAL, StorageRole.OUTPUT, str(tmp_path / "new")),
            ),
            lambda: storages.place_for(StorageKind.LOCAL, "new", new.url),
            lambda: driver_for(away).check(),
        ):
            with pytest.raises(StorageError, match=SAID):
                call()
        assert standing.adopt(catalog, away.id) == away
        found = standing.look_all([away, well], limit_s=60)
        assert [one.standing for one in found] == [Standing.AWAY, Standing.ITSELF]
        assert standing.mark(catalog, well.id).standing is Standing.ITSELF
        assert askers() <= 2, "one for each place that was asked"
    assert standing.look(away).standing is Standing.ITSELF


def test_how_full_storages_are_is_told_without_one_that_hangs(
    catalog: Catalog, place: Callable[..., StorageInfo]
) -> None:
    away, _ = place("away"), place("well")
    with hanging(Path(away.url)):
        found = {fill.storage: fill for fill in fills(catalog)}
        assert re.search(SAID, found["away"].warning or "")
        assert found["away"].capacity_bytes is None
        assert found["well"].capacity_bytes and found["well"].warning is None
    assert all(fill.warning is None and fill.capacity_bytes for fill in fills(catalog))


def test_a_process_that_may_start_no_thread_asks_without_one(
    place: Callable[..., StorageInfo], monkeypatch: pytest.MonkeyPatch
) -> None:
    info = place("tape")

    def no_more(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", no_more)
        driver_for(info).check(marked=True)
        with pytest.raises(StorageError, match="the bytes are not there"):
            driver_for(info).stat("nothing")


def test_files_that_are_absent_are_told_so_with_few_questions_whether_the_storage_answers(
    place: Callable[..., StorageInfo], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request may name thousands, and each question is a thread."""
    asked: list[str] = []
    ask = answering._ask
    monkeypatch.setattr(answering, "_ask", lambda place: asked.append(place) or ask(place))
    storage = place("well")
    driver = driver_for(storage)
    asked.clear()
    monkeypatch.setattr(answering, "LATELY_S", 3600.0)
    for number in range(20):
        with pytest.raises(StorageError, match="the bytes are not there") as caught:
            driver.stat(f"none-{number}")
        assert caught.value.code is ErrorCode.INPUT_MISSING
    assert len(asked) <= 1
    driver.check()
    assert len(asked) <= 2, "who asks about the storage itself asks anew"
    monkeypatch.setattr(answering, "LATELY_S", 0.0)
    before = len(asked)
    with pytest.raises(StorageError, match="the bytes are not there"):
        driver.stat("none")
    assert len(asked) == before + 1
