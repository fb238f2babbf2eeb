"""Claims on a storage: who has none to remove removes nothing there, in whichever way."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from catalog import clock, datasets, deletion, events, files, standing, storages, transfers, uploads
from catalog.datasets import Member
from catalog.db import Catalog
from catalog.errors import StorageError
from catalog.files import NewFileRow
from catalog.inspection import findings
from catalog.inspection.scan import Options, inspect
from catalog.inspection.settle import Settled, settle
from catalog.names import MARKER
from catalog.refs import Originals, StorageInfo
from catalog.states import DatasetState, InspectionState, UploadState

OWN = "run-1.x/000000/7.a1.out"
"""A path that only this program makes, of which no row is left."""
FULL = Options(sample_percent=100.0, grace_s=0.0, limit_percent=100.0)
THEIRS = {"catalog": "c0ffee", "instance": "i", "may": "removes", "beat": 7}

Edit = Callable[[dict[str, Any]], None]


def only_reads(found: dict[str, Any]) -> None:
    found["claims"][0]["may"] = "reads"


def another_removes(found: dict[str, Any]) -> None:
    only_reads(found)
    found["claims"].insert(0, THEIRS)


def two_remove(found: dict[str, Any]) -> None:
    found["claims"].insert(0, THEIRS)


def another_may_what_we_do_not_know(found: dict[str, Any]) -> None:
    found["claims"].append(THEIRS | {"may": "reorders"})


def no_claim(found: dict[str, Any]) -> None:
    found["claims"] = []


def of_a_later_format(found: dict[str, Any]) -> None:
    found["format"] = 2


def another_instance(found: dict[str, Any]) -> None:
    found["claims"][0]["instance"] = "of before a restore"


REFUSED = pytest.mark.parametrize(
    "edit",
    [
        only_reads, another_removes, two_remove, another_may_what_we_do_not_know, no_claim,
        of_a_later_format, another_instance,
    ],
)  # fmt: skip


@pytest.fixture
def disk(catalog: Catalog, tmp_path: Path) -> StorageInfo:
    """An output storage with the marker of this catalog."""
    with catalog.write() as session:
        made = storages.add(session, "disk", "local", "output", str(tmp_path / "disk"))
    return standing.mark(catalog, made.id).storage


def claim(place: StorageInfo, edit: Edit) -> None:
    path = Path(place.url, MARKER)
    found = json.loads(path.read_text())
    edit(found)
    path.write_text(json.dumps(found))


def fill(catalog: Catalog, place: StorageInfo, *, in_place: bool = False) -> int:
    """A closed dataset of one file there, and dark bytes beside it."""
    for name, text in (("a", "ours"), (OWN, "dark"), ("odd", "of somebody")):
        path = Path(place.url, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    row = NewFileRow(place.name, "a", "a", 4, f"adler32:{zlib.adler32(b'ours'):08x}")
    with catalog.write() as session:
        datasets.create(session, "run-1.x", derived=True)
        made = datasets.create(session, "run-1")
        ids = files.register(session, place.id, [row], in_place=in_place)
        datasets.attach(session, made, [Member(ids[0], "a")])
        datasets.close(session, made)
    return made


def look_again(catalog: Catalog, place: StorageInfo) -> None:
    """A day later: what goes by itself was listed twice."""
    clock.shift_clock(86_401.0)
    inspect(catalog, place.id, FULL)


def there(place: StorageInfo) -> set[str]:
    root = Path(place.url)
    found = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    return found - {MARKER}


@REFUSED
def test_dark_bytes_stay_where_this_catalog_may_not_remove(
    catalog: Catalog, disk: StorageInfo, edit: Edit
) -> None:
    fill(catalog, disk)
    claim(disk, edit)
    assert inspect(catalog, disk.id, FULL).state is InspectionState.DONE, "it reads as ever"
    with pytest.raises(StorageError, match="'disk': nothing is removed there"):
        settle(catalog, disk.id, remove_dark=True)
    look_again(catalog, disk)
    assert settle(catalog, disk.id, quarantine_s=-1.0) == Settled(quarantined=2)
    assert settle(catalog, disk.id, quarantine_s=-1.0) == Settled()
    assert there(disk) == {"a", OWN, "odd"}
    with catalog.read() as session:
        found = findings.findings(session, storage_id=disk.id)
        told = [events.history(session, "finding", item.id)[-1].message for item in found]
    assert len(told) == 2 and all("it stays: storage 'disk'" in (text or "") for text in told)


@REFUSED
def test_a_deletion_waits_where_this_catalog_may_not_remove(
    catalog: Catalog, disk: StorageInfo, edit: Edit
) -> None:
    made = fill(catalog, disk)
    before = Path(disk.url, MARKER).read_text()
    claim(disk, edit)
    with catalog.write() as session:
        deletion.mark(session, made, "a test")
    done = deletion.remove(catalog, made)
    assert done.copies == 0 and "nothing is removed there" in done.faults[0]
    assert there(disk) == {"a", OWN, "odd"}
    Path(disk.url, MARKER).write_text(before)
    deletion.remove(catalog, made)
    assert there(disk) == {OWN, "odd"}
    with catalog.read() as session:
        assert datasets.get(session, made).state is DatasetState.DELETED


def test_dark_bytes_go_where_this_catalog_may_remove_and_others_read(
    catalog: Catalog, disk: StorageInfo
) -> None:
    fill(catalog, disk)
    claim(disk, lambda found: found["claims"].append(THEIRS | {"may": "reads"}))
    inspect(catalog, disk.id, FULL)
    look_again(catalog, disk)
    assert settle(catalog, disk.id, quarantine_s=-1.0) == Settled(quarantined=2, removed=1)
    assert there(disk) == {"a", "odd"}


@pytest.mark.parametrize("may", ["reads", "removes", None])
def test_originals_go_by_a_persons_word_where_nobody_else_has_a_claim(
    catalog: Catalog, storage: StorageInfo, may: str | None
) -> None:
    """Of an input storage a catalog claims no more than to read."""
    made = fill(catalog, storage, in_place=True)
    if may is not None:
        claim(storage, lambda found: found["claims"].append(THEIRS | {"may": may}))
    with catalog.write() as session:
        deletion.mark(session, made, "a test", by=Originals.BY_WORD)
    done = deletion.remove(catalog, made)
    assert (done.copies, len(done.faults)) == ((1, 0) if may is None else (0, 1))
    assert ("a" in there(storage)) == (may is not None)


def test_an_upload_leaves_wrong_bytes_where_this_catalog_may_not_remove(
    catalog: Catalog, storage: StorageInfo, disk: StorageInfo, tmp_path: Path
) -> None:
    """It may write there, and then takes nothing away."""
    made = fill(catalog, storage)
    claim(disk, only_reads)
    Path(storage.url, "a").write_text("OURS")
    with catalog.write() as session:
        upload = uploads.ask(session, made, disk.id)
    info = transfers.transfer(catalog, upload, tmp_path / "scratch")
    assert info.state is UploadState.FAILED and "nothing is removed there" in (info.reason or "")
    assert there(disk) == {"run-1/a"}
    Path(storage.url, "a").write_text("ours")
    with catalog.write() as session:
        uploads.order(session, made, disk.id)
    assert transfers.transfer(catalog, upload, tmp_path / "scratch").state is UploadState.DONE
    assert Path(disk.url, "run-1/a").read_text() == "OURS", "it lies beside that one"
