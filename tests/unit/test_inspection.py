"""A large storage with planted faults: all and only those are found, and settled by one command."""

import os
import random
import time
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlmodel import col

from catalog import datasets, files, intakerules, standing, storages
from catalog.datasets import Member
from catalog.db import Catalog
from catalog.errors import Conflict, ErrorCode, StorageError
from catalog.files import NewFileRow
from catalog.inspection import findings
from catalog.inspection import settle as settling
from catalog.inspection.scan import Options, inspect
from catalog.inspection.settle import Settled, settle
from catalog.models import Replica, StorageKind, StorageRole
from catalog.names import MARKER
from catalog.refs import FindingKind
from catalog.rule import Rule
from catalog.states import FindingState, InspectionState, ReplicaState
from flows import inspection as flow
from tests.privileges import modes_hold

COUNT, EACH = 10_000, 100
SOME = 200
LOOK = Options(sample_percent=100.0, grace_s=0.0)


@pytest.fixture
def large(catalog: Catalog, tmp_path: Path) -> tuple[int, Path]:
    """Id and directory of a storage of `COUNT` registered files."""
    return registered(catalog, tmp_path, COUNT)


@pytest.fixture
def some(catalog: Catalog, tmp_path: Path) -> tuple[int, Path]:
    """Id and directory of a storage of `SOME` registered files."""
    return registered(catalog, tmp_path, SOME)


def registered(catalog: Catalog, tmp_path: Path, count: int) -> tuple[int, Path]:
    """Id and directory of a new storage of so many registered files."""
    root = tmp_path / "large"
    rows = []
    for i in range(count):
        path = root / f"run-{i % 10}" / f"slice-{i:05}.raw"
        if i < 10:
            path.parent.mkdir(parents=True)
        content = f"content of {i:05}".encode()
        path.write_bytes(content)
        name = path.relative_to(root).as_posix()
        checksum = f"adler32:{zlib.adler32(content):08x}"
        rows.append(NewFileRow("large", name, name, len(content), checksum))
    with catalog.write() as session:
        place = storages.add(
            session, "large", StorageKind.LOCAL, StorageRole.INTERNAL, str(root)
        ).id
        ids = files.register(session, place, rows)
        dataset = datasets.create(session, "large-1")
        members = [Member(i, row.name) for i, row in zip(ids, rows, strict=True)]
        datasets.attach(session, dataset, members)
    standing.mark(catalog, place)
    return place, root


def test_planted_faults_are_found_all_and_only_those(
    catalog: Catalog, large: tuple[int, Path]
) -> None:
    place, root = large
    paths = sorted(root.glob("*/*"))
    chosen = random.Random(1).sample(paths, 3 * EACH)
    missing, short, flipped = chosen[:EACH], chosen[EACH : 2 * EACH], chosen[2 * EACH :]
    for path in missing:
        path.unlink()
    for path in short:
        os.truncate(path, 5)
    for n, path in enumerate(flipped):
        content = bytearray(path.read_bytes())
        content[n % len(content)] ^= 1 << n % 8
        path.write_bytes(content)
    dark = [root / f"run-{n % 12}" / f"dark-{n}" for n in range(EACH)]
    for path in dark:
        path.parent.mkdir(exist_ok=True)
        path.write_text("nobody knows me")

    info = inspect(catalog, place, LOOK)
    assert info.state is InspectionState.DONE
    assert (info.replicas, info.objects) == (COUNT, COUNT)
    assert (info.missing, info.corrupt, info.dark) == (EACH, 2 * EACH, EACH)
    with catalog.read() as session:
        found = findings.findings(session, storage_id=place, limit=COUNT)
    kinds = {kind: {f.path for f in found if f.kind is kind} for kind in FindingKind}
    assert kinds == {
        FindingKind.MISSING: names(root, missing),
        FindingKind.CORRUPT: names(root, short + flipped),
        FindingKind.DARK: names(root, dark),
    }

    assert settle(catalog, place, remove_dark=True) == Settled(
        marked=3 * EACH, quarantined=EACH, removed=EACH
    )
    assert states(catalog) == {
        ReplicaState.AVAILABLE: COUNT - 3 * EACH,
        ReplicaState.MISSING: EACH,
        ReplicaState.BAD: 2 * EACH,
    }
    assert names(root, root.glob("*/*")) == names(root, set(paths) - set(missing))
    again = inspect(catalog, place, LOOK)
    assert (again.missing, again.corrupt, again.dark) == (0, 0, 0)


def test_an_emptied_storage_is_asked_about(catalog: Catalog, some: tuple[int, Path]) -> None:
    place, root = some
    for folder in root.glob("run-*"):
        folder.rename(root.parent / f"aside-{folder.name}")
    info = inspect(catalog, place, LOOK)
    assert (info.state, info.missing) == (InspectionState.ASKING, SOME)
    assert states(catalog) == {ReplicaState.AVAILABLE: SOME}


def take_aside(root: Path) -> Path:
    """Take all but the marker away, as if a mount inside of the storage went."""
    aside = root.parent / "aside"
    aside.mkdir()
    for folder in root.glob("run-*"):
        folder.rename(aside / folder.name)
    return aside


def bring_back(aside: Path, root: Path) -> None:
    for folder in aside.iterdir():
        folder.rename(root / folder.name)


@pytest.mark.parametrize("ends", [InspectionState.ASKING, InspectionState.FAILED])
def test_what_an_inspection_found_and_nobody_acted_on_is_looked_at_again(
    catalog: Catalog, some: tuple[int, Path], monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    place, root = some
    flipped = root / "run-1" / "slice-00001.raw"
    kept = flipped.read_bytes()
    flipped.write_bytes(b"x" * len(kept))
    (root / "dark").write_text("nobody knows me")
    assert inspect(catalog, place, LOOK).found == 2
    flipped.write_bytes(kept)
    aside = take_aside(root)
    with monkeypatch.context() as patch:
        if ends == InspectionState.FAILED:
            patch.setattr("catalog.inspection.scan._Scan.look_at_bytes", lambda _scan: 1 / 0)
        assert inspect(catalog, place, LOOK).state == ends
    (root / "dark").unlink()
    bring_back(aside, root)
    again = inspect(catalog, place, Options(sample_percent=0.0))
    assert (again.state, again.found) == (InspectionState.DONE, 0)
    with catalog.read() as session:
        assert findings.findings(session, storage_id=place) == []
    assert settle(catalog, place) == Settled()
    assert states(catalog) == {ReplicaState.AVAILABLE: SOME}


def test_only_what_is_wrong_still_is_marked_and_by_what_is_wrong_now(
    catalog: Catalog, some: tuple[int, Path]
) -> None:
    place, root = some
    paths = [root / f"run-{n}" / f"slice-{n:05}.raw" for n in range(6)]
    kept = {path: path.read_bytes() for path in paths}
    for path in paths[:3]:
        path.unlink()
    for path in paths[3:]:
        path.write_bytes(b"y" * len(kept[path]))
    info = inspect(catalog, place, LOOK)
    assert (info.missing, info.corrupt) == (3, 3)
    for path in (paths[0], paths[3]):
        path.write_bytes(kept[path])
    paths[1].write_bytes(b"short")
    paths[4].unlink()
    assert settle(catalog, place) == Settled(marked=4, cleared=2)
    assert states(catalog) == {
        ReplicaState.AVAILABLE: SOME - 4,
        ReplicaState.MISSING: 2,
        ReplicaState.BAD: 2,
    }
    for path in paths:
        path.write_bytes(kept[path])
    settle(catalog, place)
    assert states(catalog) == {ReplicaState.AVAILABLE: SOME}


def test_a_copy_is_not_marked_while_its_storage_can_not_be_known(
    catalog: Catalog, some: tuple[int, Path]
) -> None:
    place, root = some
    path = root / "run-1" / "slice-00001.raw"
    kept = path.read_bytes()
    path.unlink()
    assert inspect(catalog, place, LOOK).missing == 1
    (root / MARKER).rename(root.parent / "marker")
    with pytest.raises(StorageError):
        settle(catalog, place)
    (root.parent / "marker").rename(root / MARKER)
    path.write_bytes(kept)
    assert settle(catalog, place) == Settled(cleared=1)
    assert states(catalog) == {ReplicaState.AVAILABLE: SOME}


def test_a_folder_that_can_not_be_read_is_named_and_the_rest_goes_on(
    catalog: Catalog, some: tuple[int, Path]
) -> None:
    place, root = some
    (root / "run-1" / "dark").write_text("nobody knows me")
    (root / "lost+found").mkdir(mode=0o000)
    (root / "run-2").chmod(0o000)
    (root / "run-3" / "slice-00003.raw").unlink()
    with modes_hold():
        info = inspect(catalog, place, LOOK)
        assert info.state is InspectionState.DONE
        assert (info.missing, info.corrupt, info.dark) == (1, 0, 1)
        unread = SOME // 10 + 2
        told = f"{unread} of its folders and files could not be looked at"
        assert info.reason and told in info.reason
        assert "'run-2/slice-" in info.reason and "Permission denied" in info.reason
        assert settle(catalog, place).marked == 1
    (root / "run-2").chmod(0o755)
    assert states(catalog) == {ReplicaState.AVAILABLE: SOME - 1, ReplicaState.MISSING: 1}


def test_a_file_of_the_year_11476_holds_up_no_inspection(
    catalog: Catalog, some: tuple[int, Path]
) -> None:
    place, root = some
    for name, seconds in (("odd", 300_000_000_000), ("old", -(2**40))):
        (root / name).write_text("of no time")
        os.utime(root / name, (seconds, seconds))
    os.utime(root / "run-1" / "slice-00001.raw", (300_000_000_000, 300_000_000_000))
    info = inspect(catalog, place, Options(sample_percent=0.0))
    assert (info.state, info.missing, info.dark) == (InspectionState.DONE, 0, 2)
    assert settle(catalog, place, remove_dark=True).removed == 2


def test_dark_bytes_that_were_written_anew_are_no_longer_those_that_were_found(
    catalog: Catalog, some: tuple[int, Path]
) -> None:
    place, root = some
    for name in ("longer", "newer", "same", "gone"):
        (root / name).write_text("nobody knows me")
    assert inspect(catalog, place, LOOK).dark == 4
    (root / "longer").write_text("nobody knows me, and I was written anew")
    os.utime(root / "longer", (1, 1))
    os.utime(root / "newer", (time.time() + 60, time.time() + 60))
    (root / "gone").unlink()
    done = settle(catalog, place, remove_dark=True)
    assert (done.removed, done.cleared) == (2, 2)
    assert {path.name for path in root.iterdir() if path.is_file()} == {
        MARKER, "longer", "newer",
    }  # fmt: skip


def test_dark_bytes_that_are_written_anew_during_the_removal_stay(
    catalog: Catalog, some: tuple[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, root = some
    for name in ("newer", "same"):
        (root / name).write_text("nobody knows me")
    assert inspect(catalog, place, LOOK).dark == 2

    def reach(point: str) -> None:
        if point == "inspection.noted":
            (root / "newer").write_text("SOMEBODY DOES SO")

    monkeypatch.setattr(settling, "reach", reach)
    done = settle(catalog, place, remove_dark=True)
    assert (done.removed, done.stayed) == (1, 1)
    assert (root / "newer").exists()
    with catalog.read() as session:
        (left,) = findings.findings(session)
    assert left.state is FindingState.QUARANTINED, "who wrote it may register it"


def test_nobody_registers_what_is_being_removed(
    catalog: Catalog, some: tuple[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after a kill in the removal, until the next run has ended it."""
    place, root = some
    (root / "dark").write_text("dark")
    assert inspect(catalog, place, LOOK).dark == 1
    row = NewFileRow("large", "dark", "dark", 4, f"adler32:{zlib.adler32(b'dark'):08x}")

    def register() -> None:
        with catalog.write() as session:
            files.register(session, place, [row])

    def reach(point: str) -> None:
        if point == "inspection.noted":
            with pytest.raises(Conflict, match="'dark' on storage 'large' is being removed"):
                register()
            raise KeyboardInterrupt

    monkeypatch.setattr(settling, "reach", reach)
    with pytest.raises(KeyboardInterrupt):
        settle(catalog, place, remove_dark=True)
    with pytest.raises(Conflict, match="is being removed"):
        register()
    assert (root / "dark").exists()
    monkeypatch.undo()
    assert settle(catalog, place).removed == 1
    assert not (root / "dark").exists()
    (root / "dark").write_text("dark")
    register()


def test_a_removal_waits_for_whoever_registers_the_bytes(
    catalog: Catalog, some: tuple[int, Path]
) -> None:
    place, root = some
    (root / "dark").write_text("dark")
    assert inspect(catalog, place, LOOK).dark == 1
    row = NewFileRow("large", "dark", "dark", 4, f"adler32:{zlib.adler32(b'dark'):08x}")
    with ThreadPoolExecutor(1) as pool:
        with catalog.write() as session:
            files.register(session, place, [row])
            settled = pool.submit(settle, catalog, place, remove_dark=True)
            with pytest.raises(TimeoutError):
                settled.result(0.5)
        assert settled.result(10).cleared == 1
    assert (root / "dark").exists()


def test_dark_bytes_that_a_rule_is_for_by_now_stay(
    catalog: Catalog, some: tuple[int, Path]
) -> None:
    place, root = some
    for name in ("END-1", "late.dat", "dark"):
        (root / name).write_text("nobody knows me")
    assert inspect(catalog, place, LOOK).dark == 3
    with catalog.write() as session:
        intakerules.add(
            session,
            Rule("r", "large", r"(?P<n>\w+)\.dat", "d-{n}", end_pattern=r"END-(?P<n>\d+)"),
        )
    done = settle(catalog, place, remove_dark=True)
    assert (done.removed, done.cleared) == (1, 2)
    assert (root / "END-1").exists() and (root / "late.dat").exists()


def test_one_copy_that_can_not_be_read_holds_up_no_other(
    catalog: Catalog, some: tuple[int, Path]
) -> None:
    place, root = some
    first, second = root / "run-1" / "slice-00001.raw", root / "run-2" / "slice-00002.raw"
    kept = {path: path.read_bytes() for path in (first, second)}
    for path in kept:
        path.write_text("other")
    assert inspect(catalog, place, LOOK).corrupt == 2
    assert settle(catalog, place).marked == 2
    for path, content in kept.items():
        path.write_bytes(content)
    first.chmod(0o000)
    with modes_hold():
        assert settle(catalog, place).cleared == 1
    assert states(catalog) == {ReplicaState.AVAILABLE: SOME - 1, ReplicaState.BAD: 1}
    first.chmod(0o644)
    assert settle(catalog, place).cleared == 1


def test_a_storage_that_cannot_be_settled_holds_up_no_other(
    catalog: Catalog, some: tuple[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with catalog.write() as session:
        away = storages.add(session, "away", "local", "internal", str(tmp_path / "away"))
    settled: list[int] = []

    def one(_catalog: Catalog, storage_id: int) -> None:
        settled.append(storage_id)
        if storage_id == away.id:
            raise StorageError(ErrorCode.STORAGE_UNAVAILABLE, "away")

    monkeypatch.setattr(flow, "settle", one)
    monkeypatch.setattr(flow.Board, "show", lambda *_args, **_how: None)
    done = flow.inspect_all(catalog, None, LOOK)
    assert [info.storage for info in done] == ["away", "large"]
    assert settled == [away.id, some[0]]


def names(root: Path, paths: Iterable[Path]) -> set[str]:
    return {path.relative_to(root).as_posix() for path in paths}


def states(catalog: Catalog) -> dict[str, int]:
    query = sa.select(col(Replica.state), sa.func.count().label("count")).group_by(
        col(Replica.state)
    )
    with catalog.read() as session:
        return {row.state: row.count for row in session.execute(query)}
