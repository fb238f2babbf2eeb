"""Storages that share a place are refused; of those that stand nothing goes that isn't theirs."""

import json
import os
import shutil
import subprocess
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from catalog import datasets, deletion, files, siting, standing, storages
from catalog.datasets import Member
from catalog.db import Catalog
from catalog.drivers import Drivers, undo
from catalog.errors import Conflict
from catalog.files import NewFileRow
from catalog.inspection.scan import Options, inspect
from catalog.inspection.settle import settle
from catalog.names import MARKER
from catalog.overlaps import Overlap, overlap
from catalog.refs import StorageInfo, StorageKind, StorageRole
from catalog.states import DatasetState, InspectionState
from tests.servers.disks import mounted

FULL = Options(sample_percent=100.0, grace_s=0.0)

Make = Callable[..., StorageInfo]


@pytest.fixture
def make(catalog: Catalog) -> Make:
    """A storage that stands, wherever it lies."""

    def made(name: str, place: Path, role: str = "output") -> StorageInfo:
        with catalog.write() as session:
            info = storages.add(session, name, "local", role, str(place), alone=False)
        return standing.mark(catalog, info.id).storage

    return made


def put(catalog: Catalog, info: StorageInfo, *names: str, dataset: str | None = None) -> int:
    """Files with rows on a storage, in a dataset that is closed."""
    rows = []
    for name in names:
        path = Path(info.url, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        checksum = f"adler32:{zlib.adler32(name.encode()):08x}"
        rows.append(NewFileRow(info.name, name, name, len(name), checksum))
    with catalog.write() as session:
        made = datasets.create(session, dataset or f"of-{info.name}")
        ids = files.register(session, info.id, rows, in_place=False)
        datasets.attach(session, made, [*map(Member, ids, names)])
        datasets.close(session, made)
    return made


def there(root: Path) -> list[str]:
    found = (path for path in root.rglob("*") if path.is_file() and path.name != MARKER)
    return sorted(path.relative_to(root).as_posix() for path in found)


def delete(catalog: Catalog, dataset: int) -> deletion.Removed:
    with catalog.write() as session:
        deletion.mark(session, dataset, "a test")
    return deletion.remove(catalog, dataset)


@contextmanager
def bound(source: Path, target: Path) -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: only root can mount a directory elsewhere")
    target.mkdir(parents=True, exist_ok=True)
    if subprocess.run(["mount", "--bind", source, target], check=False).returncode != 0:
        pytest.skip("NOT TESTED: this machine mounts no directory elsewhere")
    try:
        yield
    finally:
        subprocess.run(["umount", target], check=True)


def add(catalog: Catalog, name: str, place: Path | str) -> None:
    with catalog.write() as session:
        storages.add(session, name, "local", "output", str(place))


@pytest.mark.parametrize("place", ["data", "data/raw", "data/raw/deep/er", ""])
def test_a_place_inside_or_around_another_is_refused(
    catalog: Catalog, tmp_path: Path, place: str
) -> None:
    add(catalog, "first", tmp_path / "all" / "data" / "raw")
    add(catalog, "beside", tmp_path / "all" / "data" / "rawer")
    with pytest.raises(Conflict, match=r"lies inside storage|is storage 'first' already"):
        add(catalog, "second", tmp_path / "all" / place)
    with catalog.read() as session:
        assert [info.name for info in storages.list_all(session)] == ["beside", "first"]
    assert not (tmp_path / "all" / "data" / "raw" / "deep").exists(), "nothing was made"


def test_links_are_seen_through(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    add(catalog, "first", tmp_path / "data")
    for place in (tmp_path / "link" / "raw", tmp_path / "link"):
        with pytest.raises(Conflict):
            add(catalog, "second", place)


def test_mounts_of_one_directory_elsewhere_are_seen_through(
    catalog: Catalog, tmp_path: Path
) -> None:
    (tmp_path / "data" / "raw").mkdir(parents=True)
    add(catalog, "first", tmp_path / "data")
    with (
        bound(tmp_path / "data", tmp_path / "whole"),
        bound(tmp_path / "data" / "raw", tmp_path / "part"),
    ):
        for place in ("whole", "whole/raw", "part", "part/deep"):
            with pytest.raises(Conflict, match=r"lies inside storage|are the same place"):
                add(catalog, "second", tmp_path / place)
        add(catalog, "free", tmp_path / "free")


def test_a_storage_around_one_that_is_mounted_elsewhere_is_refused(
    catalog: Catalog, tmp_path: Path
) -> None:
    (tmp_path / "data" / "raw").mkdir(parents=True)
    with bound(tmp_path / "data" / "raw", tmp_path / "part"):
        add(catalog, "inner", tmp_path / "part")
        with pytest.raises(Conflict, match=r"inner .* lies inside storage outer .* in raw/"):
            add(catalog, "outer", tmp_path / "data")


def test_a_folder_of_a_storage_that_is_mounted_below_another_is_refused(
    catalog: Catalog, tmp_path: Path
) -> None:
    (tmp_path / "real" / "sub").mkdir(parents=True)
    add(catalog, "first", tmp_path / "real")
    with bound(tmp_path / "real" / "sub", tmp_path / "part" / "x"):
        with pytest.raises(
            Conflict, match=r"second .* has a folder of storage first .*: x/ is sub"
        ):
            add(catalog, "second", tmp_path / "part")
        add(catalog, "beside", tmp_path / "beside")
    with (
        bound(tmp_path / "real", tmp_path / "whole" / "deep" / "x"),
        pytest.raises(Conflict, match=r"first .* lies inside storage second .* in deep/x/"),
    ):
        add(catalog, "second", tmp_path / "whole")


def test_a_storage_whose_folder_is_mounted_below_one_that_stands_is_refused(
    catalog: Catalog, tmp_path: Path
) -> None:
    (tmp_path / "real" / "sub" / "deep").mkdir(parents=True)
    add(catalog, "first", tmp_path / "first")
    with bound(tmp_path / "real" / "sub", tmp_path / "first" / "x"):
        for place, told in {
            "real": r"first .* has a folder of storage second .* x/ is sub/",
            "real/sub": r"second .* lies inside storage first .* in x/",
            "real/sub/deep": r"second .* lies inside storage first .* in x/deep/",
        }.items():
            with pytest.raises(Conflict, match=told):
                add(catalog, "second", tmp_path / place)


def test_a_folder_that_two_storages_have_by_mounts_is_refused(
    catalog: Catalog, tmp_path: Path
) -> None:
    (tmp_path / "theirs" / "sub").mkdir(parents=True)
    add(catalog, "first", tmp_path / "first")
    with (
        bound(tmp_path / "theirs", tmp_path / "first" / "x"),
        bound(tmp_path / "theirs" / "sub", tmp_path / "second" / "y"),
        pytest.raises(Conflict, match=r"has a folder of storage"),
    ):
        add(catalog, "second", tmp_path / "second")


def test_a_storage_that_is_mounted_below_a_place_is_known_by_its_marker(
    catalog: Catalog, make: Make, tmp_path: Path
) -> None:
    """As of a server that is mounted twice: the mounts alone don't tell that they are one."""
    raw = make("raw", tmp_path / "raw", "input")
    (tmp_path / "new").mkdir()
    new = StorageInfo(0, "new", StorageKind.LOCAL, StorageRole.OUTPUT, str(tmp_path / "new"))
    siting.refuse_taken(catalog, new)
    with mounted(tmp_path / "new" / "x", "tmpfs", mib=1) as disk:
        shutil.copy(Path(raw.url, MARKER), disk)
        with pytest.raises(Conflict, match=r"new/x is storage 'raw' already, by the marker"):
            siting.refuse_taken(catalog, new)


def s3(name: str, url: str) -> StorageInfo:
    return StorageInfo(len(url), name, StorageKind.S3, StorageRole.OUTPUT, url)


@pytest.mark.parametrize(
    ("one", "other", "inside"),
    [
        ("http://h:9000/b", "http://h:9000/b/p/q", "p/q"),
        ("http://h:9000/b/p", "http://h:9000/b/p/", ""),
        ("http://H/b", "http://h:80/b/p", "p"),
        ("https://h/b/p", "https://h.:443/b/p/q", "q"),
        ("http://h:443/b", "https://h/b", ""),
        ("http://localhost:9000/b", "http://127.0.0.1:9000/b/p", "p"),
    ],
)
def test_prefixes_of_one_bucket_overlap_however_the_server_is_spelt(
    one: str, other: str, inside: str
) -> None:
    outer, inner = s3("one", one), s3("other", other)
    for pair in ((outer, inner), (inner, outer)):
        found = overlap(*pair, resolve=True)
        assert found is not None and found.inside == inside
        if inside:
            assert found == Overlap(outer, inner, inside)


@pytest.mark.parametrize(
    "other",
    ["http://h:9000/b/pp", "http://h:9000/bb/p", "http://g:9000/b/p", "http://h:9001/b/p"],
)
def test_neighbours_of_a_bucket_do_not_overlap(other: str) -> None:
    assert overlap(s3("one", "http://h:9000/b/p"), s3("other", other), resolve=True) is None


def test_raw_data_inside_an_output_storage_is_neither_dark_there_nor_removed(
    catalog: Catalog, make: Make, tmp_path: Path
) -> None:
    outer = make("out", tmp_path / "data")
    inner = make("raw", tmp_path / "data" / "raw", "input")
    dataset = put(catalog, inner, "r1.raw", "run/r2.raw")
    put(catalog, outer, "made.dat")
    (tmp_path / "data" / "raw" / "unregistered.raw").write_text("nobody knows me yet")
    (tmp_path / "data" / "dark").write_text("nobody knows me")

    info = inspect(catalog, outer.id, FULL)
    assert (info.state, info.dark) == (InspectionState.DONE, 1)
    assert info.reason and "lies inside storage out" in info.reason
    assert settle(catalog, outer.id, remove_dark=True).removed == 1
    whole = ["made.dat", "raw/r1.raw", "raw/run/r2.raw", "raw/unregistered.raw"]
    assert there(tmp_path / "data") == whole
    with catalog.read() as session:
        told = standing.problems(storages.list_all(session))
        assert datasets.get(session, dataset).state is DatasetState.CLOSED
    assert any("storage raw" in line and "lies inside storage out" in line for line in told)


def test_a_folder_mounted_below_another_storage_gives_away_nothing(
    catalog: Catalog, make: Make, tmp_path: Path
) -> None:
    raw = make("raw", tmp_path / "raw", "input")
    put(catalog, raw, "sub/r1.raw", "sub/deep/r2.raw", "r3.raw")
    (tmp_path / "raw" / "sub" / "unregistered.raw").write_text("nobody knows me yet")
    out = make("out", tmp_path / "out")
    (tmp_path / "out" / "dark").write_text("nobody knows me")
    (tmp_path / "out" / "link").symlink_to("x/deep")
    with bound(tmp_path / "raw" / "sub", tmp_path / "out" / "x"):
        dataset = put(catalog, out, "x/made", "made", "link/made", dataset="made")
        info = inspect(catalog, out.id, FULL)
        assert (info.state, info.dark) == (InspectionState.DONE, 1)
        assert (
            info.reason
            and "storage out" in info.reason
            and "has a folder of storage raw" in info.reason
        )
        assert settle(catalog, out.id, remove_dark=True).removed == 1
        done = delete(catalog, dataset)
        assert (done.copies, len(done.faults)) == (1, 2)
        assert all("it lies on storage raw, too" in fault for fault in done.faults)
        with catalog.read() as session:
            told = standing.problems(storages.list_all(session))
        assert any("has a folder of storage raw" in line and "Unmount" in line for line in told)
    assert {"r3.raw", "sub/deep/r2.raw", "sub/r1.raw", "sub/unregistered.raw"} <= {
        *there(tmp_path / "raw")
    }


def test_a_mount_that_comes_after_the_finding_saves_the_bytes(
    catalog: Catalog, make: Make, tmp_path: Path
) -> None:
    out, raw = make("out", tmp_path / "out"), make("raw", tmp_path / "raw", "input")
    for place in (tmp_path / "out" / "x" / "y", tmp_path / "raw" / "sub" / "y"):
        place.parent.mkdir()
        place.write_text("y")
        os.utime(place, (1, 1))
    assert raw.id != out.id and inspect(catalog, out.id, FULL).dark == 1
    with bound(tmp_path / "raw" / "sub", tmp_path / "out" / "x"):
        assert settle(catalog, out.id, remove_dark=True).removed == 0
    assert there(tmp_path / "raw") == ["sub/y"]


def test_what_is_mounted_twice_in_one_storage_goes_by_no_second_name(
    catalog: Catalog, make: Make, tmp_path: Path
) -> None:
    out = make("out", tmp_path / "out")
    put(catalog, out, "real/sub/one")
    (tmp_path / "out" / "real" / "sub" / "dark").write_text("nobody knows me")
    with bound(tmp_path / "out" / "real" / "sub", tmp_path / "out" / "again"):
        put(catalog, out, "again/two", dataset="again")
        info = inspect(catalog, out.id, FULL)
        assert info.reason and "has its folder real/sub/ a second time" in info.reason
        settle(catalog, out.id, remove_dark=True)
    assert there(tmp_path / "out") == ["real/sub/one", "real/sub/two"]


def test_what_the_outer_storage_has_a_row_of_stays_for_the_inner_one(
    catalog: Catalog, make: Make, tmp_path: Path
) -> None:
    outer = make("out", tmp_path / "data")
    put(catalog, outer, "part/both", "part/gone")
    inner = make("part", tmp_path / "data" / "part")
    dataset = put(catalog, inner, "both", "own", dataset="inner")
    done = delete(catalog, dataset)
    assert done.copies == 1
    assert len(done.faults) == 1 and "storage out has a file there" in done.faults[0]
    assert there(tmp_path / "data") == ["part/both", "part/gone"]
    with catalog.read() as session:
        assert datasets.get(session, dataset).state is DatasetState.DELETING


def test_what_lies_on_the_inner_storage_stays_for_the_outer_one(
    catalog: Catalog, make: Make, tmp_path: Path
) -> None:
    outer = make("out", tmp_path / "data")
    dataset = put(catalog, outer, "part/x", "x")
    make("part", tmp_path / "data" / "part", "input")
    done = delete(catalog, dataset)
    assert done.copies == 1 and "it lies on storage part, too" in done.faults[0]
    assert there(tmp_path / "data") == ["part/x"]


def test_of_two_storages_at_one_place_neither_removes(
    catalog: Catalog, make: Make, tmp_path: Path
) -> None:
    one = make("one", tmp_path / "data")
    dataset = put(catalog, one, "x")
    (tmp_path / "link").symlink_to("data")
    with catalog.write() as session:
        known = storages.add(session, "two", "local", "input", str(tmp_path / "new"))
        from catalog.models import Storage

        session.get_one(Storage, known.id).url = str(tmp_path / "link")
    done = delete(catalog, dataset)
    assert done.copies == 0 and "it lies on storage two, too" in done.faults[0]
    assert there(tmp_path / "data") == ["x"]


def test_a_folder_that_is_a_link_to_another_storage_gives_away_nothing(
    catalog: Catalog, make: Make, tmp_path: Path
) -> None:
    raw = make("raw", tmp_path / "raw", "input")
    put(catalog, raw, "run/r1.raw")
    out = make("out", tmp_path / "out")
    (tmp_path / "out" / "linked").symlink_to("../raw/run")
    (tmp_path / "out" / "again").symlink_to("own")
    put(catalog, out, "own/x", dataset="own")
    dataset = put(catalog, out, "linked/r2", "again/x", dataset="linked")
    (tmp_path / "raw" / "run" / "r2").write_text("linked/r2")
    done = delete(catalog, dataset)
    assert done.copies == 0 and len(done.faults) == 2
    assert there(tmp_path / "raw") == ["run/r1.raw", "run/r2"]
    assert (tmp_path / "out" / "own" / "x").exists()


def test_a_storage_of_another_catalog_inside_of_ours_is_not_dark(
    catalog: Catalog, make: Make, tmp_path: Path
) -> None:
    out = make("out", tmp_path / "data")
    theirs = tmp_path / "data" / "sub" / "theirs"
    theirs.mkdir(parents=True)
    (theirs / MARKER).write_text(json.dumps({"format": 1, "storage": "t", "claims": []}))
    for path in (theirs / "x", theirs / "deep" / "y", tmp_path / "data" / "sub" / "ours"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    info = inspect(catalog, out.id, FULL)
    assert info.dark == 1
    assert info.reason and "another storage's: 2 files without a row here" in info.reason
    assert settle(catalog, out.id, remove_dark=True).removed == 1
    assert there(tmp_path / "data") == ["sub/theirs/deep/y", "sub/theirs/x"]


def test_a_marker_that_comes_after_the_finding_saves_the_bytes(
    catalog: Catalog, make: Make, tmp_path: Path
) -> None:
    out = make("out", tmp_path / "data")
    (tmp_path / "data" / "theirs").mkdir()
    (tmp_path / "data" / "theirs" / "x").write_text("x")
    assert inspect(catalog, out.id, FULL).dark == 1
    (tmp_path / "data" / "theirs" / MARKER).write_text('{"format": 1, "storage": "t"}')
    done = settle(catalog, out.id, remove_dark=True)
    assert (done.removed, done.cleared) == (0, 1)
    assert there(tmp_path / "data") == ["theirs/x"]


def test_the_root_of_an_inner_storage_is_not_pruned(
    catalog: Catalog, make: Make, tmp_path: Path
) -> None:
    out = make("out", tmp_path / "data")
    dataset = put(catalog, out, "sub/x")
    with catalog.write() as session:
        inner = tmp_path / "data" / "sub" / "raw"
        storages.add(session, "raw", "local", "input", str(inner), alone=False)
    assert delete(catalog, dataset).copies == 1
    assert inner.is_dir()


def test_uploads_that_are_undone_stay_where_another_storage_has_a_part(
    make: Make, tmp_path: Path
) -> None:
    known = [make("out", tmp_path / "data"), make("raw", tmp_path / "data" / "raw", "input")]
    alone = make("alone", tmp_path / "alone")
    drivers = Drivers([*known, alone])
    source = tmp_path / "source"
    source.write_text("x")
    for info in (*known, alone):
        drivers[info.id].put(source, "run/x")
        undo(drivers[info.id], ["run/x"])
    assert there(tmp_path / "data") == ["raw/run/x", "run/x"]
    assert there(tmp_path / "alone") == []
