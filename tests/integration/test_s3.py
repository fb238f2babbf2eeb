"""Storages on a real S3 server: whole or not at all, never replaced, and every fault its code."""

import hashlib
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from minio.deleteobjects import DeleteError

from catalog import tries
from catalog.checksums import file_checksum
from catalog.drivers.s3 import S3Driver
from catalog.drivers.s3client import login_of
from catalog.drivers.s3pool import makes_object
from catalog.errors import BadInput, ErrorCode, OtherBytes, StorageError
from catalog.settings import Settings
from tests.servers.postgres import free_port
from tests.servers.rgw import S3Server
from workers.node import Node
from workers.orphans import PayloadLedger
from workers.patience import Twin, patiently, put_patiently
from workers.slots import Capacity, Slots

pytestmark = pytest.mark.xdist_group("s3")

MIB = 2**20


def driver_at(url: str, settings: Settings) -> S3Driver:
    return S3Driver("buffer", url, login_of(settings, "buffer"), settings)


@pytest.fixture
def settings(s3_server: S3Server, tmp_path: Path) -> Settings:
    return s3_server.settings(tmp_path)


@pytest.fixture
def url(s3_server: S3Server, tmp_path: Path) -> str:
    return s3_server.bucket(tmp_path)


@pytest.fixture
def driver(url: str, settings: Settings) -> S3Driver:
    return driver_at(f"{url}/below/here", settings)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, bytes], Path]:
    def make(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return make


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def open_uploads(driver: S3Driver) -> int:
    """Multipart uploads that were begun in the driver's bucket and never ended."""
    found = driver._client._list_multipart_uploads(driver._place.bucket)
    return len(found.uploads)


@pytest.mark.parametrize("size", [0, 1, 5 * MIB, 5 * MIB + 1, 23 * MIB])
def test_bytes_come_back_as_they_went(
    driver: S3Driver, tmp_path: Path, write: Callable[[str, bytes], Path], size: int
) -> None:
    content = os.urandom(size)
    stored = driver.put(write("a", content), "run/a.raw", checksum="sha256")
    assert (stored.size_bytes, stored.checksum) == (size, sha256(content))
    for number, algorithm in enumerate(("adler32", "sha256")):
        target = tmp_path / f"b{number}"
        found = driver.get("run/a.raw", target, checksum=algorithm)
        assert target.read_bytes() == content
        assert found == file_checksum(target, algorithm)
    assert driver.get("run/a.raw", tmp_path / "b") is None
    assert driver.checksum("run/a.raw", "sha256") == sha256(content)
    assert driver.stat("run/a.raw").size_bytes == size


@pytest.mark.parametrize("size", [100, 12 * MIB])
@pytest.mark.parametrize("name", ["1 #%41?x=1&b.raw", "a+b/ ~;=@:,$'(é)/%2F%00", "r?/run#/é"])
def test_a_name_is_a_name_whatever_it_would_be_in_a_url(
    driver: S3Driver, tmp_path: Path, write: Callable[[str, bytes], Path], name: str, size: int
) -> None:
    content = os.urandom(size)
    driver.put(write("a", content), name, checksum="sha256")
    assert [found.path for found in driver.list()] == [name]
    assert driver.stat(name).size_bytes == size
    assert driver.get(name, tmp_path / "b", checksum="sha256") == sha256(content)
    with urllib.request.urlopen(driver.link(name, 60), timeout=20) as answer:
        assert answer.read() == content
    assert not driver.delete_many([name, f"{name}?"])
    assert not list(driver.list())


@pytest.mark.parametrize("size", [100, 12 * MIB])
def test_nothing_is_ever_replaced(
    driver: S3Driver, write: Callable[[str, bytes], Path], size: int
) -> None:
    first, second = os.urandom(size), os.urandom(size)
    driver.put(write("a", first), "x")
    with pytest.raises(StorageError) as caught:
        driver.put(write("b", second), "x", move=True)
    assert caught.value.code is ErrorCode.OUTPUT_EXISTS
    assert driver.checksum("x", "sha256") == sha256(first)
    assert write("a", first).exists()
    assert open_uploads(driver) == 0


def test_of_two_at_once_one_wins(driver: S3Driver, write: Callable[[str, bytes], Path]) -> None:
    contents = [os.urandom(2 * MIB) for _ in range(4)]
    paths = [write(f"f{i}", content) for i, content in enumerate(contents)]
    barrier = threading.Barrier(len(paths))

    def put(path: Path) -> bool:
        barrier.wait()
        try:
            driver.put(path, "same")
        except StorageError as error:
            assert error.code is ErrorCode.OUTPUT_EXISTS
            return False
        return True

    with ThreadPoolExecutor(len(paths)) as pool:
        won = list(pool.map(put, paths))
    assert won.count(True) == 1
    assert driver.checksum("same", "sha256") == sha256(contents[won.index(True)])


def test_a_moved_source_is_gone_only_once_it_is_stored(
    driver: S3Driver, write: Callable[[str, bytes], Path]
) -> None:
    path = write("a", b"content")
    driver.put(path, "x", move=True)
    assert not path.exists()


def test_listing_goes_on_over_pages(driver: S3Driver, write: Callable[[str, bytes], Path]) -> None:
    path = write("a", b"1")
    names = [f"many/{i:04d}" for i in range(1100)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: driver.put(path, name), names))
    assert sorted(found.path for found in driver.list("many/")) == names
    assert [found.path for found in driver.list("many/000")] == names[:10]
    assert driver.delete_many(names[:1050]) == {}
    assert sorted(found.path for found in driver.list()) == names[1050:]


def test_objects_that_a_server_would_not_delete_are_faults(
    driver: S3Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an S3 server answers within a 200: of one object, or of the whole request."""
    monkeypatch.setattr(tries, "REQUEST", replace(tries.REQUEST, first_s=0.001, most_s=0.01))
    of_one = DeleteError("AccessDenied", "no", driver._key("b"), None)
    of_all = DeleteError("SlowDown", "later", None, None)
    for stayed, wanted in (
        ([of_one], {"b": ErrorCode.STORAGE_DENIED}),
        ([of_all], dict.fromkeys("abc", ErrorCode.STORAGE_FAILED)),
    ):
        monkeypatch.setattr(driver._client, "remove_objects", lambda *_, s=stayed: iter(s))
        faults = driver.delete_many("abc")
        assert {path: error.code for path, error in faults.items()} == wanted


def test_of_what_was_seen_only_that_goes(
    driver: S3Driver, write: Callable[[str, bytes], Path]
) -> None:
    for name in "abc":
        driver.put(write(name, b"as it was seen"), name)
    seen = {name: driver.stat(name) for name in "abc"}
    driver.delete("b")
    driver.put(write("b", b"anew"), "b")
    driver.delete("c")
    (kept,) = driver.delete_many("abc", seen).items()
    assert kept[0] == "b" and isinstance(kept[1], OtherBytes)
    assert [found.path for found in driver.list()] == ["b"]


def test_deleting_what_is_not_there_says_so(
    driver: S3Driver, write: Callable[[str, bytes], Path]
) -> None:
    driver.put(write("a", b"1"), "x")
    assert driver.delete("x") is True
    assert driver.delete("x") is False
    with pytest.raises(StorageError) as caught:
        driver.stat("x")
    assert caught.value.code is ErrorCode.INPUT_MISSING


def test_a_link_needs_no_login_and_shows_only_its_file(
    driver: S3Driver, write: Callable[[str, bytes], Path]
) -> None:
    driver.put(write("a", b"for all"), "x")
    driver.put(write("b", b"for us"), "y")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    address = driver.link("x", 60)
    with opener.open(address, timeout=10) as answer:
        assert answer.read() == b"for all"
    with pytest.raises(urllib.error.HTTPError) as caught:
        opener.open(address.replace("/x?", "/y?"), timeout=10)
    caught.value.close()
    assert caught.value.code == 403
    with pytest.raises(BadInput):
        driver.link("x", 8 * 86400)


def test_a_wrong_login_is_denied_and_never_shown(url: str, settings: Settings) -> None:
    wrong = settings.model_copy(update={"s3_logins": Settings(
        _env_file=None, s3_logins={"buffer": f"{settings.s3_access_key.get_secret_value()}:sesame"}
    ).s3_logins})  # fmt: skip
    with pytest.raises(StorageError) as caught:
        next(driver_at(url, wrong).list(), None)
    assert caught.value.code is ErrorCode.STORAGE_DENIED
    assert "sesame" not in f"{caught.value}{caught.value.__context__}{wrong!r}"
    assert settings.s3_access_key.get_secret_value() not in f"{caught.value}{settings!r}"


def test_no_login_at_all_is_said_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="SPDF_S3_ACCESS_KEY") as caught:
        login_of(Settings(_env_file=None, home=tmp_path), "buffer")
    assert caught.value.code is ErrorCode.STORAGE_DENIED


def test_a_server_that_is_not_there_is_unavailable(
    settings: Settings, tmp_path: Path, write: Callable[[str, bytes], Path]
) -> None:
    nowhere = driver_at(f"http://127.0.0.1:{free_port()}/bucket", settings)
    for call in (
        lambda: nowhere.put(write("a", b"1"), "x"),
        lambda: nowhere.get("x", tmp_path / "t"),
        lambda: nowhere.stat("x"),
        lambda: nowhere.delete("x"),
    ):
        with pytest.raises(StorageError) as caught:
            call()
        assert caught.value.code is ErrorCode.STORAGE_UNAVAILABLE
    assert not (tmp_path / "t").exists()


def test_a_bucket_that_vanished_is_told_from_a_missing_file(
    s3_server: S3Server,
    settings: Settings,
    tmp_path: Path,
    write: Callable[[str, bytes], Path],
) -> None:
    url = s3_server.bucket(tmp_path)
    driver = driver_at(url, settings)
    driver._client.remove_bucket(driver._place.bucket)
    for call in (
        lambda: driver.put(write("a", b"1"), "x"),
        lambda: driver.put(write("b", bytes(6 * MIB)), "x"),
        lambda: driver.get("x", tmp_path / "t"),
        lambda: driver.stat("x"),
        lambda: list(driver.list()),
    ):
        with pytest.raises(StorageError) as caught:
            call()
        assert caught.value.code is ErrorCode.STORAGE_GONE


def test_a_storage_without_space_is_full_and_keeps_nothing_of_an_upload(
    s3_server: S3Server, driver: S3Driver, write: Callable[[str, bytes], Path]
) -> None:
    driver.put(write("a", b"first"), "x")
    quota = [*s3_server.store.admin, "quota"]
    scope = ["--quota-scope", "bucket", "--bucket", driver._place.bucket]
    subprocess.run([*quota, "set", *scope, "--max-objects", "1"], check=True, capture_output=True)
    subprocess.run([*quota, "enable", *scope], check=True, capture_output=True)
    for name, content in (("b", b"second"), ("c", bytes(6 * MIB))):
        with pytest.raises(StorageError, match="free some space there") as caught:
            driver.put(write(name, content), name)
        assert caught.value.code is ErrorCode.STORAGE_FULL
    assert [found.path for found in driver.list()] == ["x"]
    assert open_uploads(driver) == 0


def test_a_full_disk_of_the_node_is_no_fault_of_the_storage(
    driver: S3Driver, tmp_path: Path, write: Callable[[str, bytes], Path]
) -> None:
    driver.put(write("a", os.urandom(6 * MIB)), "x")
    volume = tmp_path / "volume"
    volume.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", volume], check=True)
    try:
        with pytest.raises(StorageError) as caught:
            driver.get("x", volume / "t")
        assert caught.value.code is ErrorCode.NODE_DISK_FULL
        assert list(volume.iterdir()) == []
    finally:
        subprocess.run(["umount", volume], check=True)


def test_memory_stays_small_however_large_the_file(
    driver: S3Driver, url: str, settings: Settings, tmp_path: Path
) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(400 * MIB)
    script = tmp_path / "move.py"
    script.write_text(
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from catalog.drivers.s3 import S3Driver\n"
        "from catalog.drivers.s3client import login_of\n"
        "from catalog.settings import Settings\n"
        "settings = Settings(_env_file=None, s3_part_bytes=5 * 2**20)\n"
        "driver = S3Driver('buffer', sys.argv[1], login_of(settings, 'buffer'), settings)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "driver.put(Path(sys.argv[2]), 'big', checksum='adler32')\n"
        "driver.get('big', Path(sys.argv[2] + '.back'))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "SPDF_HOME": str(tmp_path),
        "SPDF_S3_ACCESS_KEY": settings.s3_access_key.get_secret_value(),
        "SPDF_S3_SECRET_KEY": settings.s3_secret_key.get_secret_value(),
    }
    done = subprocess.run(
        [sys.executable, str(script), url, str(big)],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (tmp_path / "big.back").stat().st_size == 400 * MIB
    assert int(done.stdout) < 120 * 1024


@pytest.fixture
def node(driver: S3Driver, tmp_path: Path) -> Iterator[Node]:
    """A node that waits a minute for the storage, which is the first one."""
    ledger = PayloadLedger(tmp_path / "node", 1)
    with closing(ledger), closing(Slots(tmp_path / "slots", Capacity(1, 64))) as slots:
        yield Node("here", ledger, slots, {1: driver}, patience_s=60.0)


def test_one_file_is_uploaded_under_each_of_its_keys(
    driver: S3Driver, node: Node, write: Callable[[str, bytes], Path]
) -> None:
    source = write("h", b"one")
    stored = driver.put(source, "a/x", checksum="adler32", move=True, keep=True)
    assert source.read_bytes() == b"one" and not driver.put_again("a/x", "b/y")
    twin = Twin("a/x", stored)
    again = put_patiently(
        node, 1, source, "b/y", checksum="adler32", move=True, twin=twin, size_bytes=3
    )
    assert again == stored and not source.exists()
    driver.delete("a/x")
    with closing(driver.open("b/y")) as stream:
        assert stream.read() == b"one"


def test_a_download_goes_on_where_the_killed_server_left_it(
    s3_server: S3Server,
    driver: S3Driver,
    node: Node,
    tmp_path: Path,
    write: Callable[[str, bytes], Path],
) -> None:
    content = os.urandom(60 * MIB)
    driver.put(write("a", content), "x")
    target = tmp_path / "t"
    cut = threading.Event()

    def cut_off() -> None:
        while not target.exists() or target.stat().st_blocks == 0:
            time.sleep(0.001)
        s3_server.kill("rgw")
        cut.set()
        time.sleep(1.0)
        s3_server.start("rgw")

    killer = threading.Thread(target=cut_off)
    killer.start()
    found = patiently(lambda: driver.get("x", target, checksum="adler32"), node)
    killer.join()
    assert cut.is_set()
    assert target.read_bytes() == content
    assert found == file_checksum(target, "adler32")
    s3_server.store.wait_ready()


def test_an_upload_waits_for_a_server_that_is_away(
    s3_server: S3Server, driver: S3Driver, node: Node, write: Callable[[str, bytes], Path]
) -> None:
    content = os.urandom(12 * MIB)
    s3_server.kill("rgw")
    back = threading.Timer(2.0, s3_server.start, ["rgw"])
    back.start()
    stored = put_patiently(
        node, 1, write("a", content), "x", checksum="sha256", move=True, size_bytes=len(content)
    )
    back.join()
    assert stored.checksum == sha256(content) == driver.checksum("x", "sha256")


def test_what_was_acknowledged_outlives_a_power_cut(
    s3_server: S3Server, driver: S3Driver, write: Callable[[str, bytes], Path]
) -> None:
    driver.put(write("a", b"kept"), "x")
    s3_server.kill()
    s3_server.start()
    s3_server.store.wait_ready()
    assert driver.checksum("x", "sha256") == sha256(b"kept")


def test_the_client_still_sends_what_makes_writes_conditional(
    driver: S3Driver, write: Callable[[str, bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, bool]] = []
    pool = type(driver._client._http)
    real = pool.urlopen

    def seen(self: object, method: str, url: str, *args: object, **kw: object) -> object:
        sent.append((method, makes_object(method, url)))
        return real(self, method, url, *args, **kw)

    monkeypatch.setattr(pool, "urlopen", seen)
    driver.put(write("a", b"1"), "small")
    assert sent == [("PUT", True)]
    sent.clear()
    driver.put(write("b", bytes(12 * MIB)), "large")
    assert [method for method, makes in sent if makes] == ["POST"]
    assert sent.count(("PUT", False)) == 3


def test_resources_are_given_back(driver: S3Driver, write: Callable[[str, bytes], Path]) -> None:
    driver.put(write("a", b"1"), "x")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        driver.checksum("x", "adler32")
        driver.stat("x")
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2
