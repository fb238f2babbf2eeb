"""Storages know themselves again: nothing is concluded about one that isn't what it was."""

import json
import os
import subprocess
import threading
import time
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlmodel import col

from catalog import datasets, deletion, files, lookback, standing, storages, verification
from catalog.datasets import Member
from catalog.db import Catalog
from catalog.drivers import StorageDriver, driver_for
from catalog.errors import Conflict, ErrorCode, StorageError
from catalog.files import NewFileRow
from catalog.inspection.scan import Options, inspect
from catalog.inspection.settle import settle
from catalog.models import Dataset, Replica, Storage
from catalog.names import MARKER
from catalog.problems import problems
from catalog.refs import StorageInfo
from catalog.standing import NotPlain, Standing
from catalog.states import DatasetState, InspectionState, ReplicaState
from tests.privileges import modes_hold
from tests.servers.disks import mounted

NAMES = ("a", "sub/b", "sub/c")
RAW = f"adler32:{zlib.adler32(b'raw'):08x}"
FULL = Options(sample_percent=100.0, grace_s=0.0)


@pytest.fixture
def disk(catalog: Catalog, tmp_path: Path) -> StorageInfo:
    """An output storage that has no marker, as one of an earlier version."""
    with catalog.write() as session:
        return storages.add(session, "disk", "local", "output", str(tmp_path / "disk"))


@pytest.fixture
def dataset(catalog: Catalog, disk: StorageInfo) -> int:
    """A closed dataset of three files there."""
    rows = []
    for name in NAMES:
        path = Path(disk.url, name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
        checksum = f"adler32:{zlib.adler32(name.encode()):08x}"
        rows.append(NewFileRow("disk", name, name, len(name), checksum))
    with catalog.write() as session:
        made = datasets.create(session, "run-1")
        ids = files.register(session, disk.id, rows, in_place=False)
        datasets.attach(session, made, [*map(Member, ids, NAMES)])
        datasets.close(session, made)
    return made


def now(catalog: Catalog, info: StorageInfo) -> StorageInfo:
    with catalog.read() as session:
        return storages.get(session, info.id)


def marker_of(info: StorageInfo) -> dict[str, object]:
    found: dict[str, object] = json.loads(Path(info.url, MARKER).read_text())
    return found


def replica_states(catalog: Catalog) -> set[ReplicaState]:
    with catalog.read() as session:
        return set(session.scalars(sa.select(col(Replica.state))))


def empty_mount_point(root: Path) -> None:
    root.rename(root.with_name("away"))
    root.mkdir()


def nothing_at_all(root: Path) -> None:
    root.rename(root.with_name("away"))


def another_disk(root: Path) -> None:
    empty_mount_point(root)
    (root / MARKER).write_text(json.dumps({"format": 1, "storage": "another", "claims": []}))
    (root / "a").write_text("of another")


def a_link_elsewhere(root: Path) -> None:
    root.rename(root.with_name("away"))
    root.with_name("elsewhere").mkdir()
    root.symlink_to(root.with_name("elsewhere"))


def a_damaged_marker(root: Path) -> None:
    (root / MARKER).write_text("\x00")
    for name in NAMES:
        (root / name).unlink(missing_ok=True)


AWAY = pytest.mark.parametrize(
    "leave", [empty_mount_point, nothing_at_all, another_disk, a_link_elsewhere, a_damaged_marker]
)


def test_the_marker_is_of_format_1_with_an_id_and_our_claim(
    catalog: Catalog, disk: StorageInfo
) -> None:
    found = standing.mark(catalog, disk.id)
    assert found.standing is Standing.ITSELF
    written = marker_of(disk)
    assert (written["format"], written["storage"]) == (1, found.storage.identity)
    (claim,) = written["claims"]  # type: ignore[misc]
    assert set(claim) == {"catalog", "instance", "may", "beat"}
    assert (claim["may"], claim["beat"]) == ("removes", 0)
    assert now(catalog, disk).marked
    before = Path(disk.url, MARKER).read_bytes()
    assert standing.mark(catalog, disk.id).standing is Standing.ITSELF
    assert Path(disk.url, MARKER).read_bytes() == before


@AWAY
def test_nothing_is_concluded_about_a_storage_that_is_not_itself(
    catalog: Catalog, disk: StorageInfo, dataset: int, leave: Callable[[Path], None]
) -> None:
    standing.mark(catalog, disk.id)
    leave(Path(disk.url))
    found = standing.look(now(catalog, disk))
    assert found.standing is Standing.AWAY and found.why

    info = inspect(catalog, disk.id, FULL)
    assert info.state is InspectionState.FAILED and info.reason and "disk" in info.reason
    assert (info.missing, info.corrupt, info.dark) == (0, 0, 0)
    with pytest.raises(StorageError):
        settle(catalog, disk.id, remove_dark=True)
    with catalog.read() as session:
        first = files.by_ids(session, [1])[1]
    with pytest.raises(StorageError):
        verification.verify(catalog, first)
    assert replica_states(catalog) == {ReplicaState.AVAILABLE}

    with catalog.write() as session:
        deletion.mark(session, dataset, "a test")
    done = deletion.remove(catalog, dataset)
    assert done.copies == 0 and len(done.faults) == 3
    assert all("storage 'disk'" in fault for fault in done.faults)
    with catalog.read() as session:
        assert datasets.get(session, dataset).state is DatasetState.DELETING
    assert replica_states(catalog) == {ReplicaState.DELETING}


def put_original(catalog: Catalog, disk: StorageInfo) -> int:
    """A dataset of one file that was registered where it lay."""
    Path(disk.url, "a").write_text("raw")
    row = NewFileRow("disk", "a", "a", 3, RAW)
    with catalog.write() as session:
        made = datasets.create(session, "raw-1")
        (first,) = files.register(session, disk.id, [row])
        datasets.attach(session, made, [Member(first, "a")])
    return made


@AWAY
def test_originals_are_not_taken_for_gone_on_a_storage_that_is_not_itself(
    catalog: Catalog, disk: StorageInfo, leave: Callable[[Path], None]
) -> None:
    made = put_original(catalog, disk)
    standing.mark(catalog, disk.id)
    leave(Path(disk.url))
    done = deletion_of(catalog, made)
    assert (done.detached, done.left, len(done.faults)) == (0, 0, 1)
    with catalog.read() as session:
        assert datasets.get(session, made).state is DatasetState.DELETING


def another_size(root: Path) -> None:
    empty_mount_point(root)
    (root / "a").write_text("of another disk")


def other_bytes(root: Path) -> None:
    empty_mount_point(root)
    (root / "a").write_text("RAW")
    os.utime(root / "a", (time.time() + 3600, time.time() + 3600))


@pytest.mark.parametrize("leave", [empty_mount_point, another_size, other_bytes])
def test_nothing_is_said_of_an_original_on_a_storage_that_never_had_a_marker(
    catalog: Catalog, disk: StorageInfo, leave: Callable[[Path], None]
) -> None:
    put_original(catalog, disk)
    driver = driver_for(now(catalog, disk))
    registered = datetime.now(UTC)
    seen = lookback.look(driver, "a", 3, RAW, registered)
    assert seen.kind is lookback.AS_REGISTERED
    leave(Path(disk.url))
    with pytest.raises(StorageError, match="has no marker"):
        lookback.look(driver, "a", 3, RAW, registered)


def test_a_storage_is_not_known_again_by_a_file_of_another_size(
    catalog: Catalog, disk: StorageInfo
) -> None:
    """Another disk, where other files have the same names: what is ours stays on it, too."""
    made = put_original(catalog, disk)
    another_size(Path(disk.url))
    done = deletion_of(catalog, made)
    assert (done.copies, done.detached, done.left, len(done.faults)) == (0, 0, 0, 1)
    assert not now(catalog, disk).marked
    with pytest.raises(NotPlain, match="with its size"):
        standing.mark(catalog, disk.id)
    assert not Path(disk.url, MARKER).exists()


def test_originals_are_not_taken_for_gone_on_a_storage_that_has_no_marker(
    catalog: Catalog, disk: StorageInfo
) -> None:
    made = put_original(catalog, disk)
    empty_mount_point(Path(disk.url))
    done = deletion_of(catalog, made)
    assert (done.copies, done.detached, len(done.faults)) == (0, 0, 1)
    assert "has no marker" in done.faults[0]


@AWAY
def test_nothing_is_written_to_a_storage_that_is_not_itself(
    catalog: Catalog, disk: StorageInfo, tmp_path: Path, leave: Callable[[Path], None]
) -> None:
    for name in NAMES:
        Path(disk.url, name).parent.mkdir(exist_ok=True)
        Path(disk.url, name).write_text(name)
    standing.mark(catalog, disk.id)
    driver = driver_for(now(catalog, disk))
    source = tmp_path / "source"
    source.write_text("x")
    driver.put(source, "before")
    leave(Path(disk.url))
    for fresh in (driver, driver_for(now(catalog, disk))):
        if leave is a_damaged_marker and fresh is driver:
            continue  # The same directory still: who writes to it looks at that alone.
        with pytest.raises(StorageError) as caught:
            fresh.put(source, "run/after")
        assert caught.value.code is ErrorCode.STORAGE_UNAVAILABLE
        with pytest.raises(StorageError) as caught:
            list(fresh.list())
        assert caught.value.code is ErrorCode.STORAGE_UNAVAILABLE
    assert not Path(disk.url, "run").exists()


def test_a_listing_whose_storage_goes_in_the_middle_is_not_at_its_end(
    catalog: Catalog, disk: StorageInfo
) -> None:
    for name in NAMES:
        Path(disk.url, name).parent.mkdir(exist_ok=True)
        Path(disk.url, name).write_text(name)
    standing.mark(catalog, disk.id)
    listed = driver_for(now(catalog, disk)).list()
    next(listed)
    empty_mount_point(Path(disk.url))
    with pytest.raises(StorageError) as caught:
        list(listed)
    assert caught.value.code is ErrorCode.STORAGE_UNAVAILABLE


def test_bytes_that_are_really_gone_are_told_on_a_storage_that_is_itself(
    catalog: Catalog, disk: StorageInfo, dataset: int
) -> None:
    standing.mark(catalog, disk.id)
    Path(disk.url, "a").unlink()
    assert inspect(catalog, disk.id, FULL).missing == 1
    assert settle(catalog, disk.id).marked == 1
    with catalog.write() as session:
        deletion.mark(session, dataset, "a test")
    assert deletion.remove(catalog, dataset).copies == 3


def test_a_disk_mounted_over_it_is_seen_by_one_who_wrote_before(
    catalog: Catalog, disk: StorageInfo, tmp_path: Path
) -> None:
    standing.mark(catalog, disk.id)
    driver = driver_for(now(catalog, disk))
    source = tmp_path / "source"
    source.write_text("x")
    driver.put(source, "before")
    root = Path(disk.url)
    with mounted(tmp_path / "tmpfs", "tmpfs") as other:
        subprocess.run(["mount", "--bind", other, root], check=True)
        try:
            with pytest.raises(StorageError) as caught:
                driver.put(source, "after")
            assert caught.value.code is ErrorCode.STORAGE_UNAVAILABLE
            with pytest.raises(StorageError) as caught:
                driver.stat("before")
            assert caught.value.code is ErrorCode.STORAGE_UNAVAILABLE
            assert list(other.iterdir()) == []
        finally:
            subprocess.run(["umount", root], check=True)
    driver.put(source, "after")
    assert driver.stat("before").size_bytes == 1


def test_a_storage_that_stands_already_is_marked_once_its_files_are_seen(
    catalog: Catalog, disk: StorageInfo, dataset: int
) -> None:
    assert not disk.marked and not Path(disk.url, MARKER).exists()
    assert inspect(catalog, disk.id, FULL).state is InspectionState.DONE
    assert now(catalog, disk).marked
    assert marker_of(disk)["storage"] == now(catalog, disk).identity


def test_an_empty_mount_point_never_gets_a_marker(
    catalog: Catalog, disk: StorageInfo, dataset: int
) -> None:
    empty_mount_point(Path(disk.url))
    with pytest.raises(NotPlain, match="none of 3 files"):
        standing.mark(catalog, disk.id)
    info = inspect(catalog, disk.id, FULL)
    assert (info.state, info.missing) == (InspectionState.DONE, 0)
    assert info.reason and "3 rows without bytes there, not called missing" in info.reason
    with catalog.write() as session:
        deletion.mark(session, dataset, "a test")
    done = deletion.remove(catalog, dataset)
    assert done.copies == 0 and "has no marker" in done.faults[0]
    assert list(Path(disk.url).iterdir()) == []
    assert standing.look(now(catalog, disk)).standing is Standing.UNMARKED

    Path(disk.url).rmdir()
    Path(disk.url).with_name("away").rename(disk.url)
    assert deletion.remove(catalog, dataset).copies == 3


@pytest.mark.parametrize("removed", [0, 1, len(NAMES)])
def test_nothing_counts_as_removed_from_an_empty_mount_point_however_often_it_is_tried(
    catalog: Catalog, disk: StorageInfo, dataset: int, removed: int
) -> None:
    """As an earlier program left it: some of the copies are DELETED, the others DELETING."""
    with catalog.write() as session:
        deletion.mark(session, dataset, "a test")
        session.execute(sa.update(Replica).values(state=ReplicaState.DELETING))
        ids = sorted(session.scalars(sa.select(col(Replica.id))))[:removed]
        session.execute(
            sa.update(Replica).where(col(Replica.id).in_(ids)).values(state=ReplicaState.DELETED)
        )
    for name in NAMES[:removed]:
        Path(disk.url, name).unlink()
    empty_mount_point(Path(disk.url))
    for _ in range(3):
        assert deletion.remove(catalog, dataset).copies == 0
        inspect(catalog, disk.id, FULL)
        standing.adopt(catalog, disk.id, first=True)
    assert not now(catalog, disk).marked and list(Path(disk.url).iterdir()) == []
    with catalog.read() as session:
        left = sa.select(sa.func.count()).where(col(Replica.state) == ReplicaState.DELETING)
        assert session.scalar(left) == len(NAMES) - removed

    Path(disk.url).rmdir()
    Path(disk.url).with_name("away").rename(disk.url)
    with catalog.write() as session:
        session.execute(sa.update(Dataset).values(state=DatasetState.DELETING))
    assert deletion.remove(catalog, dataset).copies == len(NAMES) - removed


@pytest.mark.parametrize("state", [ReplicaState.COPYING, ReplicaState.DELETING])
def test_copies_that_come_or_go_are_looked_for_too(
    catalog: Catalog, disk: StorageInfo, dataset: int, state: ReplicaState
) -> None:
    with catalog.write() as session:
        session.execute(sa.update(Replica).values(state=state))
    empty_mount_point(Path(disk.url))
    with pytest.raises(NotPlain, match="none of 3 files"):
        standing.mark(catalog, disk.id)
    Path(disk.url).rmdir()
    Path(disk.url).with_name("away").rename(disk.url)
    assert standing.adopt(catalog, disk.id).marked


def test_a_storage_without_files_is_marked_by_who_names_it_or_first_writes_there(
    catalog: Catalog, disk: StorageInfo, tmp_path: Path
) -> None:
    standing.adopt_all(catalog)
    inspect(catalog, disk.id, FULL)
    assert not now(catalog, disk).marked, "it may be an empty mount point"
    assert standing.mark(catalog, disk.id).storage.marked
    with catalog.write() as session:
        other = storages.add(session, "other", "local", "output", str(tmp_path / "other"))
    assert standing.adopt(catalog, other.id, first=True).marked


def test_a_person_says_that_a_new_disk_is_the_storage(
    catalog: Catalog, disk: StorageInfo, dataset: int
) -> None:
    identity = standing.mark(catalog, disk.id).storage.identity
    empty_mount_point(Path(disk.url))
    with pytest.raises(StorageError, match="is not what it was"):
        standing.mark(catalog, disk.id)
    assert standing.mark(catalog, disk.id, by_word=True).standing is Standing.ITSELF
    assert marker_of(disk)["storage"] == identity
    assert inspect(catalog, disk.id, FULL).missing == 3


def test_a_marker_that_is_there_is_taken_up_with_the_claims_of_others(
    catalog: Catalog, disk: StorageInfo
) -> None:
    theirs = {"catalog": "c", "instance": "i", "may": "removes", "beat": 7, "later": [1]}
    text = {"format": 1, "storage": "5eaf", "claims": [theirs], "more": {"x": 1}}
    Path(disk.url, MARKER).write_text(json.dumps(text))
    assert standing.mark(catalog, disk.id).storage.identity == "5eaf"
    written = marker_of(disk)
    assert written["storage"] == "5eaf" and written["more"] == {"x": 1}
    first, ours = written["claims"]  # type: ignore[misc]
    assert first == theirs
    assert ours["may"] == "reads", "only one may remove"


def test_a_marker_of_a_later_format_is_believed_and_left_alone(
    catalog: Catalog, disk: StorageInfo
) -> None:
    text = json.dumps({"format": 2, "storage": "5eaf", "claims": []})
    Path(disk.url, MARKER).write_text(text)
    assert standing.mark(catalog, disk.id).storage.identity == "5eaf"
    assert Path(disk.url, MARKER).read_text() == text


def test_two_storages_never_have_one_marker(
    catalog: Catalog, disk: StorageInfo, tmp_path: Path
) -> None:
    standing.mark(catalog, disk.id)
    with catalog.write() as session:
        other = storages.add(session, "other", "local", "output", str(tmp_path / "other"))
    Path(other.url, MARKER).write_bytes(Path(disk.url, MARKER).read_bytes())
    with pytest.raises(Conflict, match="by its marker it is storage 'disk' already"):
        standing.mark(catalog, other.id)
    assert not now(catalog, other).marked


def test_where_we_may_not_write_the_owner_places_the_marker(
    catalog: Catalog, disk: StorageInfo, dataset: int
) -> None:
    root = Path(disk.url)
    root.chmod(0o555)
    with modes_hold():
        found = standing.mark(catalog, disk.id)
        again = standing.mark(catalog, disk.id)
    assert found.standing is Standing.UNMARKED
    assert "have .spdf-storage placed" in found.why
    assert again.to_place == found.to_place, "the id stays the same"
    with modes_hold():
        assert deletion_of(catalog, dataset).copies == 0
    root.chmod(0o755)
    (root / MARKER).write_text(found.to_place)
    assert standing.look(now(catalog, disk)).standing is Standing.ITSELF
    root.chmod(0o555)
    with modes_hold():
        assert standing.mark(catalog, disk.id).standing is Standing.ITSELF
    assert now(catalog, disk).marked


def deletion_of(catalog: Catalog, dataset: int) -> deletion.Removed:
    with catalog.write() as session:
        deletion.mark(session, dataset, "a test")
    return deletion.remove(catalog, dataset)


def test_two_who_mark_at_once_agree(catalog: Catalog, disk: StorageInfo) -> None:
    bare = driver_for(disk)
    write = bare.write_marker
    written: list[bytes] = []

    class Slow:
        """Another catalog comes between a look and the write."""

        def __getattr__(self, name: str) -> object:
            return getattr(bare, name)

        def write_marker(self, text: bytes, *, before: bytes | None = None) -> None:
            if not written:
                written.append(b'{"format": 1, "storage": "theirs", "claims": []}')
                write(written[0])
            write(text, before=before)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(standing, "driver_for", lambda _info: Slow())
        assert standing.mark(catalog, disk.id).storage.identity == "theirs"
    assert marker_of(disk)["storage"] == "theirs"
    assert len(marker_of(disk)["claims"]) == 1  # type: ignore[arg-type]


def test_the_marker_is_no_file(catalog: Catalog, disk: StorageInfo, dataset: int) -> None:
    standing.mark(catalog, disk.id)
    assert sorted(info.path for info in driver_for(disk).list()) == sorted(NAMES)
    assert inspect(catalog, disk.id, FULL).dark == 0
    with pytest.raises(Exception, match="the name of a storage's marker"), catalog.write() as s:
        files.register(s, disk.id, [NewFileRow("disk", MARKER, MARKER, 1, "adler32:00000001")])
    with pytest.raises(Exception, match="the name of a storage's marker"):
        driver_for(disk).delete(MARKER)
    assert Path(disk.url, MARKER).exists()


def test_a_storage_of_an_earlier_program_has_no_identity(
    catalog: Catalog, disk: StorageInfo
) -> None:
    with catalog.read() as session:
        row = session.execute(sa.select(col(Storage.identity), col(Storage.marked_at))).one()
    assert tuple(row) == (None, None)
    assert disk.identity is None and not disk.marked


def test_a_storage_that_does_not_answer_is_away_and_holds_up_no_other(
    catalog: Catalog, disk: StorageInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with catalog.write() as session:
        hangs = storages.add(session, "hangs", "local", "input", str(tmp_path / "hangs"))
    known = [standing.mark(catalog, info.id).storage for info in (disk, hangs)]
    over = threading.Event()
    real = standing.driver_for

    def slow(info: StorageInfo) -> StorageDriver:
        if info.name == "hangs":
            over.wait(60)
        return real(info)

    monkeypatch.setattr(standing, "driver_for", slow)
    first, second = standing.look_all(known, limit_s=0.5)
    over.set()
    assert (first.standing, second.standing) == (Standing.ITSELF, Standing.AWAY)
    assert "doesn't answer within 0.5 s" in second.why


def test_status_is_told_of_storages_that_are_not_themselves(
    catalog: Catalog, disk: StorageInfo
) -> None:
    with catalog.read() as session:
        (found,) = [item for item in problems(session) if item.source == "storages"]
    assert "has no marker" in found.message
    standing.mark(catalog, disk.id)
    with catalog.read() as session:
        assert not [item for item in problems(session) if item.source == "storages"]
    empty_mount_point(Path(disk.url))
    with catalog.read() as session:
        (found,) = [item for item in problems(session) if item.source == "storages"]
    assert "is not what it was" in found.message
