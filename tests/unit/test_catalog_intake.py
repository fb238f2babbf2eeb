"""Intake: files measured, compared with what the user says, registered or copied in."""

import hashlib
import os
import zlib
from pathlib import Path
from typing import Any

import pytest

from catalog import datasets, files, intake, manifests, storages
from catalog.db import Catalog
from catalog.drivers import driver_for
from catalog.errors import BadInput, Conflict
from catalog.intake import Expected
from catalog.names import MARKER
from catalog.storages import StorageInfo


@pytest.fixture
def raw(storage: StorageInfo) -> list[Path]:
    """Three files on the storage."""
    paths = [Path(storage.url) / name for name in ("b.raw", "a.raw", "sub/c.raw")]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(path.name.encode() * 100)
    return paths


def adler(path: Path) -> str:
    return f"adler32:{zlib.adler32(path.read_bytes()):08x}"


def test_files_on_a_storage_are_registered_where_they_lie(
    catalog: Catalog, storage: StorageInfo, raw: list[Path]
) -> None:
    measured = intake.measure(raw, [storage])
    with catalog.write() as session:
        dataset = datasets.create(session, "run")
        assert intake.add(session, dataset, measured) == 3
    with catalog.write() as session:
        assert intake.add(session, dataset, measured) == 0
        found = manifests.members(session, dataset)
    assert [(m.name, m.size_bytes, m.checksum) for m in found] == [
        ("b.raw", 500, adler(raw[0])),
        ("a.raw", 500, adler(raw[1])),
        ("sub/c.raw", 500, adler(raw[2])),
    ]
    assert [m.replicas[0].path for m in found] == ["b.raw", "a.raw", "sub/c.raw"]


def test_what_the_user_says_of_a_file_must_be_so(storage: StorageInfo, raw: list[Path]) -> None:
    md5 = hashlib.md5(raw[0].read_bytes()).hexdigest()
    true = {raw[0]: Expected(500, md5), raw[1]: Expected(checksum=adler(raw[1]))}
    measured = intake.measure(raw, [storage], expected=true)
    assert [m.row.checksum for m in measured] == [f"md5:{md5}", adler(raw[1]), adler(raw[2])]
    for wrong, word in (
        (Expected(size_bytes=499), "has 500 bytes, not the 499 given"),
        (Expected(checksum="0" * 32), f"has the checksum md5:{md5}, not the md5:000"),
        (Expected(checksum="what"), "malformed"),
    ):
        with pytest.raises(BadInput, match=word):
            intake.measure(raw, [storage], expected={raw[0]: wrong})


def test_only_regular_files_are_taken(storage: StorageInfo, raw: list[Path]) -> None:
    root = Path(storage.url)
    (root / "link").symlink_to(raw[0])
    os.mkfifo(root / "fifo")
    for path, word in (
        (root / "link", "symbolic link; give the file itself, .*b.raw"),
        (root / "sub", "is a directory"),
        (root / "fifo", "no regular file"),
        (root / "nothing", "can't be read"),
        (raw[0] / "below", "can't be read"),
    ):
        with pytest.raises(BadInput, match=word):
            intake.measure([path], [storage])


def test_a_file_on_no_storage_is_refused_with_the_mend(
    storage: StorageInfo, tmp_path: Path
) -> None:
    (tmp_path / "x").write_bytes(b"x")
    with pytest.raises(BadInput, match="lies on no storage; `spdf storage add NAME"):
        intake.measure([tmp_path / "x"], [storage])


def test_the_innermost_storage_counts(
    catalog: Catalog, storage: StorageInfo, raw: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with catalog.write() as session:
        place = str(raw[2].parent)
        inner = storages.add(session, "inner", "local", "input", place, alone=False)
    monkeypatch.chdir(raw[2].parent)
    for path in (raw[2], Path("c.raw"), Path("../sub/c.raw")):
        (measured,) = intake.measure([path], [storage, inner])
        assert (measured.storage_id, measured.row.scope, measured.row.path) == (
            inner.id, "inner", "c.raw",
        )  # fmt: skip


def test_a_changed_file_is_a_conflict_and_changes_nothing(
    catalog: Catalog, storage: StorageInfo, raw: list[Path]
) -> None:
    with catalog.write() as session:
        dataset = datasets.create(session, "run")
        intake.add(session, dataset, intake.measure(raw[:1], [storage]))
    raw[0].write_bytes(b"other")
    measured = intake.measure([raw[1], raw[0]], [storage])
    with pytest.raises(Conflict, match=r"raw:b\.raw is registered"), catalog.write() as session:
        intake.add(session, dataset, measured)
    with catalog.read() as session:
        assert [m.name for m in manifests.members(session, dataset)] == ["b.raw"]


def test_copies_are_made_once_and_registered(
    catalog: Catalog, storage: StorageInfo, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    paths = [outside / name for name in ("x", "y")]
    for path in paths:
        path.write_text(path.name)
    for expected_new in (2, 0):
        measured = intake.copy_in(paths, storage, "run-7")
        with catalog.write() as session:
            if expected_new:
                datasets.create(session, "run-7")
            dataset = datasets.by_name(session, "run-7").id
            assert intake.add(session, dataset, measured) == expected_new
    assert (Path(storage.url) / "run-7/x").read_text() == "x"
    with catalog.read() as session:
        assert files.get(session, "raw", "run-7/y").checksum == adler(paths[1])


def test_a_copy_that_is_not_as_expected_changes_nothing(
    storage: StorageInfo, tmp_path: Path
) -> None:
    paths = [tmp_path / "x", tmp_path / "y"]
    for path in paths:
        path.write_text(path.name)
    with pytest.raises(BadInput, match="not the 7 given"):
        intake.copy_in(paths, storage, "run", expected={paths[1]: Expected(size_bytes=7)})
    with pytest.raises(BadInput, match="not the adler32:00000001 given"):
        intake.copy_in(paths, storage, "run", expected={paths[1]: Expected(checksum="00000001")})
    assert [path.name for path in Path(storage.url).rglob("*") if path.is_file()] == [MARKER]


def test_a_copy_over_other_bytes_is_refused_and_undone(
    storage: StorageInfo, tmp_path: Path
) -> None:
    paths = [tmp_path / "x", tmp_path / "y"]
    for path in paths:
        path.write_text(path.name)
    taken = Path(storage.url) / "run" / "y"
    taken.parent.mkdir()
    taken.write_text("other")
    with pytest.raises(Conflict, match="another file under 'run/y'"):
        intake.copy_in(paths, storage, "run")
    assert [p.name for p in taken.parent.iterdir()] == ["y"]
    with pytest.raises(BadInput, match="two of the files"):
        intake.copy_in([paths[0], paths[0]], storage, "run")


@pytest.mark.parametrize("stopped", [False, True])
def test_what_another_adds_meanwhile_outlives_a_copy_that_fails(
    catalog: Catalog, storage: StorageInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    stopped: bool,
) -> None:  # fmt: skip
    """Also where the copy is ended by Ctrl-C."""
    paths = [tmp_path / "x", tmp_path / "y"]
    for path in paths:
        path.write_text(path.name)
    taken = Path(storage.url) / "run" / "y"
    taken.parent.mkdir()
    taken.write_text("other")
    look = intake._there

    def meanwhile(*args: Any) -> tuple[int, str]:
        monkeypatch.setattr(intake, "_there", look)
        measured = intake.copy_in(paths[:1], storage, "run")
        with catalog.write() as session:
            intake.add(session, datasets.create(session, "run"), measured)
        if stopped:
            raise KeyboardInterrupt
        return look(*args)

    monkeypatch.setattr(intake, "_there", meanwhile)
    with pytest.raises(KeyboardInterrupt if stopped else Conflict):
        intake.copy_in(paths, storage, "run")
    assert sorted(path.name for path in taken.parent.iterdir()) == ["x", "y"]
    with catalog.read() as session:
        (copy,) = files.all_replicas(session, files.get(session, "raw", "run/x").id)
    assert driver_for(storage).checksum(copy.path, "adler32") == adler(paths[0])


@pytest.mark.parametrize("same", [True, False])
def test_of_two_copies_at_once_both_are_right_or_the_later_is_refused(
    storage: StorageInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    (tmp_path / "x").write_text("x")
    final = Path(storage.url) / "run" / "x"
    publish = intake._published

    def late(*args: Any) -> intake.Measured:
        final.write_text("x" if same else "y")
        return publish(*args)

    monkeypatch.setattr(intake, "_published", late)
    if same:
        (item,) = intake.copy_in([tmp_path / "x"], storage, "run")
        assert not item.copied
    else:
        with pytest.raises(Conflict, match="another file under 'run/x'"):
            intake.copy_in([tmp_path / "x"], storage, "run")
    assert [path.name for path in final.parent.iterdir()] == ["x"]


def test_a_file_that_grew_between_two_reads_is_refused(
    storage: StorageInfo, raw: list[Path]
) -> None:
    measured = intake.measure(raw[:1], [storage])
    raw[0].write_bytes(b"more" * 200)
    known = {("raw", "b.raw"): "md5:" + "0" * 32}
    with pytest.raises(BadInput, match="has 800 bytes, not the 500"):
        intake.aligned(measured, known)
