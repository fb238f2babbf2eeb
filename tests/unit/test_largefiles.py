"""Large files: read once, written at most once, and not at all where the file system helps."""

import hashlib
import os
import subprocess
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from catalog import intake
from catalog.checksums import BLOCK_BYTES, read_blocks
from catalog.drivers import filecopy
from catalog.drivers.local import LocalDriver
from catalog.drivers.posix import LARGE_BYTES
from catalog.errors import BadInput, ErrorCode
from catalog.intake import Expected
from catalog.models import StorageKind, StorageRole
from catalog.refs import FileRef, ReplicaRef
from catalog.storages import StorageInfo
from cli.copies import Reader, Wanted
from tests.servers.disks import mounted
from workers.cwl.layout import _copy as copy_writable
from workers.node import Node
from workers.orphans import PayloadLedger
from workers.slots import Capacity, Slots
from workers.stagein import StageIn, StageInError

SIZE = LARGE_BYTES + 12_345
CONTENT = os.urandom(1 << 20) * (SIZE >> 20) + os.urandom(SIZE % (1 << 20))
ADLER = f"adler32:{zlib.adler32(CONTENT):08x}"
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


def traffic(call: Callable[[], Any]) -> tuple[float, float]:
    """Bytes that this process reads and writes by system calls meanwhile, in files of `SIZE`."""

    def now() -> tuple[int, int]:
        lines = Path("/proc/self/io").read_text().splitlines()
        return int(lines[0].split()[1]), int(lines[1].split()[1])

    before = now()
    call()
    after = now()
    return round((after[0] - before[0]) / SIZE, 2), round((after[1] - before[1]) / SIZE, 2)


@pytest.fixture(params=["plain", "sharing"])
def sharing(request: pytest.FixtureRequest) -> bool:
    """Whether the file system of this test's disk shares blocks between files."""
    return request.param == "sharing"


@pytest.fixture
def disk(sharing: bool, tmp_path: Path) -> Iterator[Path]:
    """A file system of this test's own."""
    with mounted(tmp_path / "disk", "xfs" if sharing else "tmpfs") as folder:
        yield folder


@pytest.fixture
def root(disk: Path) -> Path:
    (disk / "storage").mkdir()
    return disk / "storage"


@pytest.fixture
def driver(root: Path) -> LocalDriver:
    return LocalDriver("disk", root)


@pytest.fixture
def source(disk: Path) -> Path:
    (disk / "source").write_bytes(CONTENT)
    return disk / "source"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """The same bytes on another file system."""
    (tmp_path / "elsewhere").write_bytes(CONTENT)
    return tmp_path / "elsewhere"


def test_what_is_moved_within_a_file_system_is_read_once_and_not_written(
    driver: LocalDriver, root: Path, source: Path
) -> None:
    stored: list[Any] = []
    cost = traffic(lambda: stored.append(driver.put(source, "x", checksum="adler32", move=True)))
    assert cost == (1.0, 0.0)
    assert (stored[0].size_bytes, stored[0].checksum) == (SIZE, ADLER)
    assert (root / "x").read_bytes() == CONTENT


def test_what_is_moved_to_another_file_system_is_read_once_and_written_once(
    driver: LocalDriver, root: Path, elsewhere: Path
) -> None:
    stored: list[Any] = []
    cost = traffic(lambda: stored.append(driver.put(elsewhere, "x", checksum="md5", move=True)))
    assert cost == (1.0, 1.0)
    assert stored[0].checksum == MD5
    assert (root / "x").read_bytes() == CONTENT
    assert not elsewhere.exists()


def test_a_copy_shares_blocks_where_the_file_system_can(
    driver: LocalDriver, root: Path, source: Path, sharing: bool
) -> None:
    stored: list[Any] = []
    cost = traffic(lambda: stored.append(driver.put(source, "x", checksum="adler32")))
    assert cost == (1.0, 0.0 if sharing else 1.0)
    assert (stored[0].size_bytes, stored[0].checksum) == (SIZE, ADLER)
    source.write_bytes(b"the source's blocks are its own to change")
    assert (root / "x").read_bytes() == CONTENT
    assert (root / "x").stat().st_mode & 0o777 == 0o444


def test_a_copy_without_a_checksum_is_not_read_where_blocks_are_shared(
    driver: LocalDriver, root: Path, source: Path, sharing: bool
) -> None:
    cost = traffic(lambda: driver.put(source, "x"))
    assert cost == ((0.0, 0.0) if sharing else (1.0, 1.0))
    assert (root / "x").read_bytes() == CONTENT


def test_the_checksum_is_of_the_copy_though_the_source_changes(
    driver: LocalDriver, root: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = filecopy._clone

    def clone_then_change(*files: Any) -> bool:
        shared = clone(*files)
        if shared:
            source.write_bytes(b"other")
        return shared

    monkeypatch.setattr(filecopy, "_clone", clone_then_change)
    assert driver.put(source, "x", checksum="adler32").checksum == ADLER
    assert (root / "x").read_bytes() == CONTENT


def test_bytes_are_got_and_hashed_in_one_read(
    driver: LocalDriver, source: Path, disk: Path, tmp_path: Path, sharing: bool
) -> None:
    driver.put(source, "x", move=True)
    for target, writes in ((disk / "t", 0.0 if sharing else 1.0), (tmp_path / "t", 1.0)):
        found: list[Any] = []
        cost = traffic(lambda t=target, f=found: f.append(driver.get("x", t, checksum="md5")))
        assert cost == (1.0, writes)
        assert found == [MD5]
        assert target.read_bytes() == CONTENT
        assert target.stat().st_mode & 0o200


def test_a_copy_that_the_payload_may_change_shares_blocks(
    source: Path, disk: Path, sharing: bool
) -> None:
    source.chmod(0o444)
    if sharing:
        assert traffic(lambda: copy_writable(str(source), str(disk / "c"))) == (0.0, 0.0)
    else:
        copy_writable(str(source), str(disk / "c"))
    assert (disk / "c").read_bytes() == CONTENT
    assert (disk / "c").stat().st_mode & 0o600 == 0o600


def storage_at(root: Path) -> StorageInfo:
    return StorageInfo(1, "disk", StorageKind.LOCAL, StorageRole.INPUT, str(root))


def test_files_are_copied_in_and_measured_in_one_read(root: Path, elsewhere: Path) -> None:
    expected = {elsewhere: Expected(SIZE, MD5)}
    measured: list[Any] = []
    cost = traffic(
        lambda: measured.extend(
            intake.copy_in([elsewhere], storage_at(root), "run", expected=expected)
        )
    )
    assert cost == (1.0, 1.0)
    assert (measured[0].row.size_bytes, measured[0].row.checksum) == (SIZE, MD5)


def test_a_file_that_changes_while_it_is_copied_in_is_refused(
    root: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_file = filecopy.copy_file

    def copy_then_change(*args: Any, **options: Any) -> Any:
        done = copy_file(*args, **options)
        elsewhere.write_bytes(b"other")
        return done

    monkeypatch.setattr("catalog.drivers.storing.copy_file", copy_then_change)
    with pytest.raises(BadInput, match="changed while it was read"):
        intake.copy_in([elsewhere], storage_at(root), "run")
    assert not [path for path in root.rglob("*") if path.is_file()]


class Far(LocalDriver):
    """A storage whose bytes must be fetched."""

    def local_path(self, path: str) -> Path | None:  # type: ignore[override]
        return None


def stage_in(driver: LocalDriver, tmp_path: Path, *, verify: bool = False) -> StageIn:
    ledger, slots = PayloadLedger(tmp_path / "node", 1), Slots(tmp_path / "slots", Capacity(1, 64))
    node = Node("node", ledger, slots, {1: driver}, verify_linked=verify)
    return StageIn(node, tmp_path / "in")


def ref_of(checksum: str) -> FileRef:
    return FileRef(7, "x", SIZE, checksum, (ReplicaRef(1, "x"),))


@pytest.mark.parametrize(("verify", "reads"), [(False, 0.0), (True, 1.0)])
def test_a_linked_input_costs_no_copy(
    driver: LocalDriver, source: Path, tmp_path: Path, verify: bool, reads: float
) -> None:
    driver.put(source, "x", move=True)
    stage = stage_in(driver, tmp_path, verify=verify)
    assert traffic(lambda: stage.cwl_file(ref_of(ADLER))) == (reads, 0.0)


def test_a_fetched_input_is_verified_as_it_comes(
    root: Path, elsewhere: Path, tmp_path: Path
) -> None:
    far = Far("far", root)
    far.put(elsewhere, "x", move=True)
    stage = stage_in(far, tmp_path)
    assert traffic(lambda: stage.cwl_file(ref_of(MD5))) == (1.0, 1.0)
    assert stage.staged[7].path.read_bytes() == CONTENT
    with pytest.raises(StageInError) as caught:
        stage_in(far, tmp_path / "other").cwl_file(ref_of("adler32:00000001"))
    assert caught.value.code is ErrorCode.INPUT_CORRUPT
    assert not [path for path in (tmp_path / "other" / "in").rglob("*") if path.is_file()]


def test_a_user_gets_a_verified_file_in_one_read(
    catalog: Any, root: Path, elsewhere: Path, tmp_path: Path
) -> None:
    from catalog import storages

    with catalog.write() as session:
        place = storages.add(session, "disk", "local", "output", str(root))
    LocalDriver("disk", root).put(elsewhere, "x")
    wanted = Wanted("x", SIZE, MD5, (ReplicaRef(place.id, "x"),))
    reader = Reader(catalog)
    assert traffic(lambda: reader.fetch(wanted, tmp_path / "mine")) == (1.0, 1.0)
    assert (tmp_path / "mine").read_bytes() == CONTENT


@dataclass(frozen=True)
class Mounts:
    """Two mounts of one file system, as the volumes of a container are."""

    work: Path
    storage: Path


@pytest.fixture
def mounts(disk: Path, tmp_path: Path) -> Iterator[Mounts]:
    made = Mounts(tmp_path / "work", tmp_path / "volume")
    for inner, outer in (("work", made.work), ("root", made.storage)):
        (disk / inner).mkdir()
        outer.mkdir()
        subprocess.run(["mount", "--bind", disk / inner, outer], check=True)
    yield made
    for outer in (made.work, made.storage):
        subprocess.run(["umount", outer], check=True)


def test_between_two_mounts_of_one_file_system_files_are_copied(
    mounts: Mounts, sharing: bool
) -> None:
    assert mounts.work.stat().st_dev == mounts.storage.stat().st_dev
    driver = LocalDriver("volume", mounts.storage)
    for name in ("a", "b"):
        (mounts.work / name).write_bytes(CONTENT)
        stored: list[Any] = []
        cost = traffic(
            lambda n=name, s=stored: s.append(
                driver.put(mounts.work / n, n, checksum="adler32", move=True)
            )
        )
        assert stored[0].checksum == ADLER
        assert (mounts.storage / name).read_bytes() == CONTENT
        assert not (mounts.work / name).exists()
    assert cost == (1.0, 0.0 if sharing else 1.0), "it was learnt that nothing can be moved"


@pytest.mark.parametrize("size", [10, SIZE])
@pytest.mark.parametrize("move", [False, True])
def test_bytes_are_on_the_disk_before_they_have_their_name(
    driver: LocalDriver, source: Path, monkeypatch: pytest.MonkeyPatch, move: bool, size: int
) -> None:
    os.truncate(source, size)
    done: list[str] = []
    sync, link = os.fsync, os.link

    def synced(descriptor: int) -> None:
        kind = "bytes" if Path(f"/proc/self/fd/{descriptor}").is_file() else "folder"
        sync(descriptor)
        done.append(kind)

    def linked(*args: Any, **options: Any) -> None:
        link(*args, **options)
        done.append("name")

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "link", linked)
    driver.put(source, "x", checksum="adler32", move=move)
    assert done == ["bytes", "name", "folder"]


def test_blocks_grow_with_the_file_and_stay_bounded() -> None:
    lengths: list[int] = []

    def read_into(buffer: memoryview) -> int:
        lengths.append(len(buffer))
        return len(buffer) if sum(lengths) < 10 * BLOCK_BYTES else 0

    for _ in read_blocks(read_into):
        pass
    assert max(lengths) == BLOCK_BYTES
    assert lengths[0] <= 1 << 16, "a small file needs a small buffer"
    assert all(size <= lengths[0] + sum(lengths[:i]) for i, size in enumerate(lengths))


def test_a_block_is_written_whole_in_small_pieces() -> None:
    block, written = memoryview(CONTENT), bytearray()

    def write(piece: memoryview) -> int:
        assert len(piece) <= 1 << 18, "larger ones cost the kernel several times as much"
        taken = max(1, len(piece) - 7)
        written.extend(piece[:taken])
        return taken

    assert filecopy.write_all(write, block) == len(CONTENT)
    assert written == CONTENT
