"""The local driver: whole files or none, never over another, and errors with their codes."""

import errno
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from catalog import drivers
from catalog.drivers import Drivers, StorageDriver, driver_for, local, posix
from catalog.drivers.filecopy import write_all
from catalog.drivers.local import LocalDriver
from catalog.drivers.storing import can_take
from catalog.errors import BadInput, BadName, ErrorCode, OtherBytes, StorageError
from catalog.models import StorageKind, StorageRole
from catalog.places import Place, place_of
from catalog.settings import Settings
from catalog.storages import StorageInfo


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def driver(root: Path) -> StorageDriver:
    return driver_for(StorageInfo(1, "disk", StorageKind.LOCAL, StorageRole.OUTPUT, str(root)))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.bin"
    path.write_bytes(b"spin" * 700_000)
    return path


def opened(descriptor: int) -> Path:
    """What a descriptor of this process is of."""
    return Path(f"/proc/self/fd/{descriptor}").readlink()


def code_of(call: Any) -> ErrorCode:
    with pytest.raises(StorageError) as caught:
        call()
    return caught.value.code


def everything_in(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


def test_a_file_taken_over_may_stay_to_be_read(
    driver: StorageDriver, root: Path, source: Path
) -> None:
    driver.put(source, "a/x", move=True, keep=True)
    assert source.exists() and (root / "a/x").stat().st_ino == source.stat().st_ino
    assert (root / "a/x").stat().st_mode & 0o777 == 0o444


def test_what_was_put_is_put_again_without_a_copy_and_goes_alone(
    driver: StorageDriver, root: Path, source: Path
) -> None:
    driver.put(source, "a/x")
    assert driver.put_again("a/x", "b/c/y")
    assert (root / "b/c/y").stat().st_ino == (root / "a/x").stat().st_ino
    driver.delete("a/x")
    assert (root / "b/c/y").read_bytes() == source.read_bytes()


def test_nothing_is_put_again_over_another_nor_of_what_is_not_there(
    driver: StorageDriver, root: Path, source: Path
) -> None:
    driver.put(source, "a/x")
    (root / "a/y").write_text("another's")
    assert code_of(lambda: driver.put_again("a/x", "a/y")) is ErrorCode.OUTPUT_EXISTS
    assert (root / "a/y").read_text() == "another's"
    assert not driver.put_again("a/none", "b/y")
    assert not (root / "b").exists()


@pytest.mark.parametrize("move", [False, True])
def test_put_stores_the_bytes_read_only_with_their_checksum(
    driver: StorageDriver, root: Path, source: Path, move: bool
) -> None:
    content = source.read_bytes()
    stored = driver.put(source, "a/b/c.bin", checksum="adler32", move=move)
    final = root / "a/b/c.bin"
    assert final.read_bytes() == content
    assert stat.S_IMODE(final.stat().st_mode) == 0o444
    assert (stored.size_bytes, stored.checksum) == (
        len(content), f"adler32:{zlib.adler32(content):08x}",
    )  # fmt: skip
    assert source.exists() is not move
    assert everything_in(root) == ["a/b/c.bin"]


def test_put_without_a_checksum_reads_none(driver: StorageDriver, source: Path) -> None:
    assert driver.put(source, "x").checksum is None


def test_a_moved_file_is_not_copied(driver: StorageDriver, root: Path, source: Path) -> None:
    inode = source.stat().st_ino
    driver.put(source, "x", move=True)
    assert (root / "x").stat().st_ino == inode


def test_a_moved_file_with_another_name_is_copied(
    driver: StorageDriver, root: Path, source: Path, tmp_path: Path
) -> None:
    (tmp_path / "input").hardlink_to(source)
    driver.put(source, "x", move=True)
    assert (root / "x").stat().st_ino != (tmp_path / "input").stat().st_ino
    assert (tmp_path / "input").stat().st_mode & 0o200
    assert not source.exists()


def test_a_moved_link_leaves_what_it_points_to(
    driver: StorageDriver, root: Path, source: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(source)
    driver.put(link, "x", move=True)
    assert (root / "x").read_bytes() == source.read_bytes()
    assert not (root / "x").is_symlink()
    assert not link.is_symlink()


@pytest.mark.parametrize("move", [False, True])
def test_put_never_overwrites(driver: StorageDriver, root: Path, source: Path, move: bool) -> None:
    (root / "x").write_bytes(b"first")
    assert code_of(lambda: driver.put(source, "x", move=move)) is ErrorCode.OUTPUT_EXISTS
    assert (root / "x").read_bytes() == b"first"
    assert source.exists()
    assert everything_in(root) == ["x"]


def test_of_many_puts_at_once_one_wins_whole(
    driver: StorageDriver, root: Path, tmp_path: Path
) -> None:
    sources = []
    for index in range(8):
        path = tmp_path / f"s{index}"
        path.write_bytes(bytes([index]) * 200_000)
        sources.append(path)
    start = threading.Barrier(len(sources))
    won: list[int] = []
    lost: list[ErrorCode] = []

    def put(index: int) -> None:
        start.wait()
        try:
            driver.put(sources[index], "same")
            won.append(index)
        except StorageError as error:
            lost.append(error.code)

    threads = [threading.Thread(target=put, args=(i,)) for i in range(len(sources))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert lost == [ErrorCode.OUTPUT_EXISTS] * 7
    assert (root / "same").read_bytes() == sources[won[0]].read_bytes()
    assert everything_in(root) == ["same"]


def test_publish_without_hard_links_still_never_overwrites(
    root: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    shutil.copy(source, root / "one")
    posix.publish(root / "one", root / "final")
    assert (root / "final").read_bytes() == source.read_bytes()
    (root / "two").write_bytes(b"two")
    with pytest.raises(FileExistsError):
        posix.publish(root / "two", root / "final")
    assert (root / "final").read_bytes() == source.read_bytes()


def test_a_kill_in_mid_put_leaves_nothing_under_the_final_name(
    driver: StorageDriver, root: Path, tmp_path: Path
) -> None:
    fifo_fed = tmp_path / "big"
    fifo_fed.write_bytes(b"x" * (3 << 20))
    program = f"""
import os, pathlib, signal
from catalog.drivers import filecopy
from catalog.drivers.local import LocalDriver
write = filecopy.write_all
def write_and_die(*args):
    write(*args)
    os.kill(os.getpid(), signal.SIGKILL)
filecopy.write_all = write_and_die
LocalDriver("disk", pathlib.Path({str(root)!r})).put(pathlib.Path({str(fifo_fed)!r}), "run/x")
"""
    done = subprocess.run([sys.executable, "-c", program], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (root / "run/x").exists()
    (left,) = [found.path for found in driver.list("run/")]
    assert left.startswith("run/.spdf-")
    assert driver.put(fifo_fed, "run/x").size_bytes == 3 << 20
    assert driver.delete(left)


def test_a_failing_put_leaves_nothing(
    driver: StorageDriver, root: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("catalog.drivers.filecopy.write_all", full)
    assert code_of(lambda: driver.put(source, "x")) is ErrorCode.STORAGE_FULL
    assert everything_in(root) == []


def test_a_full_disk_is_told_from_a_full_storage(
    driver: StorageDriver, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.put(source, "x")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("catalog.drivers.filecopy.write_all", full)
    target = tmp_path / "target"
    assert code_of(lambda: driver.get("x", target)) is ErrorCode.NODE_DISK_FULL
    assert not target.exists()


def test_get_copies_or_links(
    driver: StorageDriver, root: Path, source: Path, tmp_path: Path
) -> None:
    driver.put(source, "a/x")
    driver.get("a/x", tmp_path / "copy")
    driver.get("a/x", tmp_path / "link", link=True)
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()
    assert not (tmp_path / "copy").is_symlink()
    assert (tmp_path / "link").readlink() == root / "a/x"
    with driver.open("a/x") as file:
        assert file.read() == source.read_bytes()
    with pytest.raises(FileExistsError):
        driver.get("a/x", tmp_path / "copy")


@pytest.mark.parametrize("link", [False, True])
def test_missing_bytes_have_their_code(
    driver: StorageDriver, root: Path, tmp_path: Path, link: bool
) -> None:
    (root / "folder").mkdir()
    target = tmp_path / "target"
    for path in ("nothing", "no/folder/x", "folder"):
        with pytest.raises(StorageError) as caught:
            driver.get(path, target, link=link)
        assert caught.value.code is ErrorCode.INPUT_MISSING
        with pytest.raises(StorageError) as caught:
            driver.stat(path)
        assert caught.value.code is ErrorCode.INPUT_MISSING
        assert not target.is_symlink() and not target.exists()
    assert code_of(lambda: driver.open("nothing")) is ErrorCode.INPUT_MISSING
    assert code_of(lambda: driver.checksum("nothing", "md5")) is ErrorCode.INPUT_MISSING


def test_a_missing_root_is_an_unavailable_storage(
    driver: StorageDriver, root: Path, source: Path, tmp_path: Path
) -> None:
    root.rmdir()
    for call in (
        lambda: driver.put(source, "x"),
        lambda: driver.get("x", tmp_path / "t"),
        lambda: driver.delete("x"),
        lambda: driver.stat("x"),
        lambda: list(driver.list()),
    ):
        assert code_of(call) is ErrorCode.STORAGE_UNAVAILABLE
    assert not root.exists()


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOTCONN, errno.ESTALE])
def test_a_sick_file_system_is_an_unavailable_storage(
    driver: StorageDriver, source: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    driver.put(source, "x")

    def sick(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "open", sick)
    assert code_of(lambda: driver.open("x")) is ErrorCode.STORAGE_UNAVAILABLE


def test_delete_is_idempotent_and_leaves_no_empty_folder(
    driver: StorageDriver, root: Path, source: Path
) -> None:
    driver.put(source, "a/b/x")
    driver.put(source, "a/y")
    assert driver.delete("a/b/x")
    assert not driver.delete("a/b/x")
    assert not (root / "a/b").exists()
    assert driver.delete("a/y")
    assert root.is_dir() and list(root.iterdir()) == []


def test_many_are_deleted_with_one_sync_of_each_folder(
    driver: StorageDriver, root: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = ["a/b/x", "a/b/y", "c/z", "kept"]
    for path in paths:
        driver.put(source, path)
    synced: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(opened(descriptor)))
    assert driver.delete_many([*paths[:3], "a/b/not there"]) == {}
    assert sorted(synced) == [root / "a/b", root / "c"]
    assert [path.name for path in root.iterdir()] == ["kept"]
    root.rename(root.with_name("elsewhere"))
    faults = driver.delete_many(["kept"])
    assert {path: error.code for path, error in faults.items()} == {
        "kept": ErrorCode.STORAGE_UNAVAILABLE
    }


def test_removals_are_synced_though_another_takes_the_folder_meanwhile(
    driver: StorageDriver, root: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.put(source, "a/x")
    synced: list[str] = []
    unlink = os.unlink

    def meanwhile(name: str, **where: Any) -> None:
        unlink(name, **where)
        (root / "a").rmdir()

    monkeypatch.setattr(os, "unlink", meanwhile)
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(str(opened(descriptor))))
    assert driver.delete_many(["a/x"]) == {}
    assert synced == [f"{root / 'a'} (deleted)"]


def test_the_disk_begins_with_all_files_before_one_is_waited_for(
    driver: StorageDriver, root: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = ["a/x", "a/y", "b/z"]
    for path in paths:
        driver.put(source, path, sync=False)
    done: list[str] = []

    def begin(descriptor: int, offset: int, count: int) -> None:
        assert (offset, count) == (0, 0)
        done.append(f"begin {opened(descriptor).relative_to(root)}")

    def wait(descriptor: int) -> None:
        done.append(f"wait {opened(descriptor).relative_to(root)}")

    monkeypatch.setattr(local, "start_writeback", begin)
    monkeypatch.setattr(os, "fsync", wait)
    assert driver.sync([*paths, "a/x"]) == {}
    begun, waited = [f"begin {path}" for path in paths], [f"wait {path}" for path in paths]
    assert done == [*begun, *waited, "wait a", "wait b"]


@pytest.mark.parametrize("step", ["fsync", "close"])
def test_a_file_that_can_not_be_synced_is_told_and_the_others_are(
    driver: StorageDriver, source: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some network file systems tell at the close."""
    for path in ("a/x", "a/sick"):
        driver.put(source, path, sync=False)
    whole = getattr(os, step)

    def sick(descriptor: int) -> None:
        bad = opened(descriptor).name == "sick"
        whole(descriptor)
        if bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, step, sick)
    faults = driver.sync(["a/x", "a/sick", "a/gone"])
    assert {path: fault.code for path, fault in faults.items()} == {
        "a/sick": ErrorCode.STORAGE_FAILED,
        "a/gone": ErrorCode.STORAGE_UNAVAILABLE,
    }


def test_what_can_not_be_deleted_is_told_and_the_others_go(
    driver: StorageDriver, root: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("a/x", "b/y", "c/z"):
        driver.put(source, path)
    (root / "b/y").unlink()
    (root / "b/y").mkdir()

    def sick(descriptor: int) -> None:
        if opened(descriptor).name == "c":
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", sick)
    faults = driver.delete_many(["a/x", "b/y", "c/z"])
    assert sorted(faults) == ["b/y", "c/z"]
    assert not (root / "a").exists() and (root / "b/y").is_dir()


def test_puts_and_deletes_in_one_folder_do_not_disturb_each_other(
    driver: StorageDriver, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.write_bytes(b"s")
    errors: list[Exception] = []

    def churn(name: str) -> None:
        try:
            for index in range(60):
                driver.put(small, f"a/b/{name}-{index}")
                assert driver.delete(f"a/b/{name}-{index}")
        except (StorageError, AssertionError) as error:
            errors.append(error)

    threads = [threading.Thread(target=churn, args=(name,)) for name in "pqr"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_list_streams_what_begins_with_the_prefix(
    driver: StorageDriver, root: Path, source: Path
) -> None:
    for path in ("run-1/a", "run-1/deep/er/b", "run-10/c", "other/d", "run"):
        driver.put(source, path)
    (root / "run-1" / "link").symlink_to(source)

    def listed(prefix: str) -> list[str]:
        return sorted(found.path for found in driver.list(prefix))

    assert listed("") == ["other/d", "run", "run-1/a", "run-1/deep/er/b", "run-10/c"]
    assert listed("run-1") == ["run-1/a", "run-1/deep/er/b", "run-10/c"]
    assert listed("run-1/") == ["run-1/a", "run-1/deep/er/b"]
    assert listed("run-1/de") == ["run-1/deep/er/b"]
    assert listed("nothing/at/all") == []
    found = next(iter(driver.list("other/")))
    assert (found, found.size_bytes) == (driver.stat("other/d"), source.stat().st_size)
    assert iter(driver.list()) is not None and not isinstance(driver.list(), list)


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "", "a\nb"])
def test_paths_cannot_leave_the_root(driver: StorageDriver, source: Path, path: str) -> None:
    for call in (
        lambda: driver.put(source, path),
        lambda: driver.stat(path),
        lambda: driver.delete(path),
        lambda: driver.local_path(path),
    ):
        with pytest.raises(BadName):
            call()
    if path:
        with pytest.raises(BadName):
            list(driver.list(f"{path}/"))


def test_checksum_is_of_the_bytes_as_they_are(
    driver: StorageDriver, root: Path, source: Path
) -> None:
    driver.put(source, "x")
    assert driver.checksum("x", "md5") == f"md5:{hashlib.md5(source.read_bytes()).hexdigest()}"
    (root / "x").chmod(0o644)
    (root / "x").write_bytes(b"rot")
    assert driver.checksum("x", "sha256") == f"sha256:{hashlib.sha256(b'rot').hexdigest()}"


def test_what_is_no_regular_file_is_not_stored(
    driver: StorageDriver, root: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match="no regular file"):
        driver.put(tmp_path, "x")
    assert code_of(lambda: driver.put(tmp_path / "nothing", "x")) is ErrorCode.INPUT_MISSING
    assert everything_in(root) == []


def test_every_driver_offers_the_protocol() -> None:
    offered: StorageDriver = LocalDriver("disk", Path("/"))
    methods = [name for name in vars(drivers.StorageDriver) if not name.startswith("_")]
    assert len(methods) == 16 and all(callable(getattr(offered, name)) for name in methods)


def test_a_bucket_without_a_login_is_refused_by_name(tmp_path: Path) -> None:
    far = StorageInfo(1, "far", StorageKind.S3, StorageRole.OUTPUT, "http://127.0.0.1:1/bucket")
    with pytest.raises(StorageError, match="'far'") as caught:
        driver_for(far, Settings(_env_file=None, home=tmp_path))
    assert caught.value.code is ErrorCode.STORAGE_DENIED


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://me:secret@here:9000/bucket", "holds a login"),
        ("http://here:9000", "no S3 storage"),
        ("s3://bucket/prefix", "no S3 storage"),
        ("http://here:port/bucket", "no S3 storage"),
        ("http://here:99999/bucket", "no S3 storage"),
        ("http://[here/bucket", "no S3 storage"),
        ("http://here:9000/bucket?x=1", "leave the rest out"),
        ("http://here:9000/bucket/../other", "leave the rest out"),
    ],
)
def test_an_address_that_is_no_bucket_is_refused_without_showing_a_login(
    url: str, why: str
) -> None:
    with pytest.raises(BadInput, match=why) as caught:
        place_of(url)
    assert "secret" not in str(caught.value)


def test_an_address_has_host_bucket_and_prefix() -> None:
    assert place_of("https://here/bucket") == Place("here", True, "bucket", "")
    assert place_of("http://here:9000/b/p/q/") == Place("here:9000", False, "b", "p/q/")


def test_a_storage_without_a_login_holds_up_no_other(
    root: Path, source: Path, tmp_path: Path
) -> None:
    near = StorageInfo(1, "disk", StorageKind.LOCAL, StorageRole.OUTPUT, str(root))
    far = StorageInfo(2, "far", StorageKind.S3, StorageRole.OUTPUT, "http://127.0.0.1:1/bucket")
    known = Drivers([near, far], Settings(_env_file=None, home=tmp_path))
    assert known[1].put(source, "x").size_bytes == 2_800_000
    for storage_id, code in ((2, ErrorCode.STORAGE_DENIED), (3, ErrorCode.STORAGE_UNAVAILABLE)):
        with pytest.raises(StorageError) as caught:
            known[storage_id]
        assert caught.value.code is code
    more = known.also(0, known[1])
    assert (list(more), len(more), more[0]) == ([1, 2, 0], 3, known[1])
    assert list(known) == [1, 2]


def test_each_storage_gets_the_driver_of_its_kind_and_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(
        home=tmp_path, s3_access_key=SecretStr("key"), s3_secret_key=SecretStr("secret"),
        s3_region="elsewhere",
    )  # fmt: skip
    disk = StorageInfo(1, "disk", StorageKind.LOCAL, StorageRole.OUTPUT, str(tmp_path), "abc", True)
    tape = StorageInfo(2, "tape", StorageKind.S3, StorageRole.OUTPUT, "http://127.0.0.1:1/tape/p")
    known = Drivers([disk, tape], settings)
    assert (list(known), len(known)) == ([1, 2], 2)
    assert known[1].name == "disk" and known[1] is known[1]
    assert known[1].local_path("x") == tmp_path / "x"
    with pytest.raises(StorageError, match="is not what it was"):
        known[1].check()
    # What is asked of a server, of which there is none here.
    monkeypatch.setattr(known[2], "stat", lambda _path: None)
    url = known[2].link("a", 60.0)
    assert url.startswith("http://127.0.0.1:1/tape/p/a?") and "elsewhere" in url
    assert not known[1].shared and not known[2].shared


def test_what_lies_where_a_folder_was_is_no_file_to_be_removed(
    driver: StorageDriver, root: Path
) -> None:
    (root / "a").write_text("a file now")
    assert driver.delete("a/b") is False
    assert driver.delete_many(["a/b", "a/c/d"]) == {}
    assert everything_in(root) == ["a"]


def test_folders_that_a_removal_leaves_empty_go_and_the_file_s_own_is_synced(
    driver: StorageDriver, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "a/b/c").mkdir(parents=True)
    (root / "a/b/c/d").touch()
    (root / "a/e").touch()
    told: list[Path] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (told.append(opened(fd)), real(fd)))
    monkeypatch.chdir(root.parent)
    assert driver.delete("a/b/c/d") is True
    assert told == [root / "a/b/c"]
    assert everything_in(root) == ["a/e"] and not (root / "a/b").exists()


def test_a_file_that_came_while_a_removal_waited_stays(
    driver: StorageDriver, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each try looks anew: what was seen before the first one is another's by the second."""
    for name in ("x", "y"):
        (root / name).write_text("old")
    seen = {name: driver.stat(name) for name in ("x", "y")}
    unlink, asked = os.unlink, []

    def falters(path: str, **how: Any) -> None:
        asked.append(path)
        if asked.count(path) > 1:
            unlink(path, **how)
            return
        if path == "x":
            unlink(path, **how)
            (root / path).write_text("newer")
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "unlink", falters)
    faults = driver.delete_many(["x", "y"], seen)
    assert list(faults) == ["x"] and isinstance(faults["x"], OtherBytes)
    assert (root / "x").read_text() == "newer"
    assert not (root / "y").exists() and asked == ["x", "y", "y"]


def test_of_what_was_seen_only_that_is_removed(driver: StorageDriver, root: Path) -> None:
    for name in ("same", "other"):
        (root / name).write_text(name)
    seen = {name: driver.stat(name) for name in ("same", "other")}
    (root / "new").write_text("other")
    (root / "new").rename(root / "other")
    (root / "folder").mkdir()
    (root / "link").symlink_to("other")
    faults = driver.delete_many(["same", "other", "folder", "link"], seen)
    assert {path: str(fault) for path, fault in faults.items()} == {
        path: f"storage 'disk': {path!r} is not removed: {what}; look at it."
        for path, what in {
            "other": "other bytes lie under its path now",
            "folder": "a folder has its path now",
            "link": "a symbolic link has its path now",
        }.items()
    }
    assert sorted(path.name for path in root.iterdir()) == ["folder", "link", "other"]


def test_a_listing_whose_root_can_not_be_read_any_more_is_at_no_end(
    driver: StorageDriver, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: str) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "scandir", refuse)
    told: list[str] = []
    with pytest.raises(StorageError, match="Permission denied") as caught:
        list(driver.list(unread=lambda path, _why: told.append(path)))
    assert told == [] and caught.value.of_path


@pytest.mark.parametrize(("uid", "takes"), [(0, True), (4321, True), (4322, False)])
def test_only_ones_own_file_is_taken_but_by_root(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uid: int, takes: bool
) -> None:
    if os.geteuid() != 0:
        pytest.skip("to give a file to somebody takes root")
    os.chown(source, 4321, -1)
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    assert can_take(source, tmp_path) is takes
    os.link(source, tmp_path / "second")
    assert not can_take(source, tmp_path), "it has another name"


def test_a_block_is_written_whole_however_little_goes_at_once() -> None:
    taken: list[bytes] = []

    def write(block: memoryview) -> int | None:
        if len(taken) == 1:
            taken.append(b"")
            return None
        taken.append(bytes(block[:3]))
        return len(taken[-1])

    assert write_all(write, memoryview(b"abcdefg")) == 7
    assert taken == [b"abc", b"", b"def", b"g"]
