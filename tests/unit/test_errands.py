"""Errands over a storage that refuses some files: the others are done, these named and resumed."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from catalog import files, standing, transfers, tries, uploads
from catalog.db import Catalog
from catalog.drivers import Stored
from catalog.drivers.local import LocalDriver
from catalog.errors import ErrorCode, StorageError
from catalog.stamps import Reading
from catalog.states import UploadState
from catalog.storages import StorageInfo
from catalog.tries import Pace
from catalog.verification import verify, verify_dataset
from tests.unit.conftest import closed

NAMES = [f"f{number:03}" for number in range(40)]
REFUSED = StorageError(ErrorCode.STORAGE_UNAVAILABLE, "tape answered 503.", of_path=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "_PASSES", Pace(2, 0.001, 0.001, 1.0))
    monkeypatch.setattr(tries, "OUTAGE", replace(tries.OUTAGE, first_s=0.001, most_s=0.001))


@pytest.fixture
def run(catalog: Catalog, storage: StorageInfo) -> int:
    """A closed dataset."""
    return closed(catalog, storage, NAMES)


def upload(catalog: Catalog, run: int, tape: StorageInfo) -> int:
    with catalog.write() as session:
        return uploads.ask(session, run, tape.id)


def refusing(monkeypatch: pytest.MonkeyPatch, refuses: Callable[[str, int], bool]) -> Counter[str]:
    """Have puts refused, by their path and how often it came; gives how often each was stored."""
    put, asked, stored = LocalDriver.put, Counter[str](), Counter[str]()

    def now_and_then(driver: LocalDriver, source: Path, path: str, **how: Any) -> Stored:
        asked[path] += 1
        if refuses(path, asked[path]):
            raise REFUSED
        stored[path] += 1
        return put(driver, source, path, **how)

    monkeypatch.setattr(LocalDriver, "put", now_and_then)
    return stored


def test_an_upload_comes_back_to_what_was_refused_and_copies_each_file_once(
    catalog: Catalog, run: int, tape: StorageInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file at its first try, in one and the same run."""
    stored = refusing(monkeypatch, lambda path, tried: tried <= 1 + path.endswith("7"))
    info = transfers.transfer(catalog, upload(catalog, run, tape), tmp_path)
    assert info.state is UploadState.DONE
    assert stored == {f"run-1/{name}": 1 for name in NAMES}


def test_what_stays_refused_is_named_and_all_others_are_there(
    catalog: Catalog, run: int, tape: StorageInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = ("run-1/f003", "run-1/f017")
    with monkeypatch.context() as meanwhile:
        stored = refusing(meanwhile, lambda path, _: path in bad)
        number = upload(catalog, run, tape)
        with pytest.raises(StorageError, match="tape answered 503"):
            transfers.transfer(catalog, number, tmp_path)
        assert set(stored) == {f"run-1/{name}" for name in NAMES} - set(bad)
    with catalog.read() as session:
        info = uploads.get(session, number)
    assert (info.state, info.files_done) == (UploadState.RUNNING, len(NAMES) - 2)
    assert info.waits_for is not None
    assert info.waits_for.startswith("2 files could not be copied yet: 'f003' (tape answered 503.)")
    again = refusing(monkeypatch, lambda _path, _tried: False)
    info = transfers.transfer(catalog, number, tmp_path)
    assert (info.state, info.files_done) == (UploadState.DONE, len(NAMES))
    assert again == dict.fromkeys(bad, 1), "it goes on where it was"


def test_files_without_bytes_are_named_at_the_end_with_all_others_there(
    catalog: Catalog, storage: StorageInfo, run: int, tape: StorageInfo, tmp_path: Path
) -> None:
    for name in ("f001", "f030"):
        Path(storage.url, name).unlink()
    info = transfers.transfer(catalog, upload(catalog, run, tape), tmp_path)
    assert (info.state, info.files_done) == (UploadState.FAILED, len(NAMES) - 2)
    assert info.reason is not None
    assert info.reason.startswith("2 files can't be copied, all others are there: file 'f001'")
    assert "'f030'" in info.reason


def test_of_a_storage_that_is_away_no_other_file_is_waited_for(
    catalog: Catalog, run: int, tape: StorageInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, asked = upload(catalog, run, tape), Counter[str]()

    def away(driver: LocalDriver, _source: Path, path: str, **_how: Any) -> Stored:
        asked[path] += 1
        Path(tape.url).rename(tmp_path / "aside") if Path(tape.url).exists() else None
        raise REFUSED

    monkeypatch.setattr(LocalDriver, "put", away)
    with pytest.raises(StorageError, match="mount or make it"):
        transfers.transfer(catalog, number, tmp_path, threads=1)
    assert len(asked) <= 4, "of all threads"


def test_a_verification_names_what_a_storage_that_is_away_holds_and_reads_the_rest(
    catalog: Catalog, storage: StorageInfo, run: int, tape: StorageInfo, tmp_path: Path
) -> None:
    transfers.transfer(catalog, upload(catalog, run, tape), tmp_path)
    Path(storage.url, "f005").write_text("F005")
    Path(tape.url).rename(tmp_path / "aside")
    wrong = verify_dataset(catalog, run)
    away = [one for one in wrong if one.storage == "tape"]
    assert len(away) == len(NAMES) and not any(one.read for one in away)
    assert all("mount or make it" in one.found for one in away)
    assert [(one.file, one.read) for one in wrong if one.storage == "raw"] == [("raw:f005", True)]
    with catalog.read() as session:
        info = files.get(session, "raw", "f000")
    with pytest.raises(StorageError, match="mount or make it"):
        verify(catalog, info)


def test_a_verification_waits_for_a_storage_that_is_away_for_a_moment(
    catalog: Catalog, storage: StorageInfo, run: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, aside, times = LocalDriver.read, Path(f"{storage.url}-aside"), Counter[str]()

    def moment(driver: LocalDriver, path: str, algorithm: str) -> Reading:
        times[path] += 1
        if times["f010"] == 1 and path == "f010":
            Path(storage.url).rename(aside)
        return read(driver, path, algorithm)

    def back(_wait_s: float) -> None:
        if aside.exists():
            aside.rename(storage.url)

    monkeypatch.setattr(LocalDriver, "read", moment)
    monkeypatch.setattr(tries, "pause", back)
    assert verify_dataset(catalog, run, places=1) == []
    assert times["f010"] == 2


def test_who_waits_while_a_storage_is_looked_up_keeps_nobody_out(
    catalog: Catalog, run: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All places are with those who want the storage, too, when the first one comes back."""
    adopt = standing.adopt

    def busy(*given: Any, **how: Any) -> StorageInfo:
        tries.pause(0.3)
        return adopt(*given, **how)

    monkeypatch.setattr(standing, "adopt", busy)
    found: list[object] = []
    thread = Thread(target=lambda: found.append(verify_dataset(catalog, run)), daemon=True)
    thread.start()
    thread.join(60)
    assert found == [[]]
