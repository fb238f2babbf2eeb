"""In the intake no file, dataset or chore that is in trouble keeps another from its turn."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import Session

from catalog import causes, datasets, requests, storages, templates, troubles, usage, workflows
from catalog.db import Catalog
from catalog.models import StorageKind, StorageRole
from catalog.problems import problems
from catalog.requests import queue
from catalog.states import RequestState
from catalog.troubles import Of, Troubles
from flows import templates as template_files
from flows.intake import generator as generating
from flows.intake import spoolfiles
from flows.intake.generator import Generator
from flows.intake.housework import Housework
from flows.intake.spool import REJECTED, Spool
from flows.intake.spoolfiles import stamp_of
from tests.privileges import modes_hold

CHAIN = Path(__file__).resolve().parents[2] / "examples" / "twostage" / "chain.cwl"


def document(name: str) -> dict[str, Any]:
    return {"kind": "dataset.input", "key": f"new {name}", "name": name}


@pytest.fixture
def spool(catalog: Catalog, tmp_path: Path) -> Spool:
    directory = tmp_path / "spool"
    directory.mkdir()
    return Spool(directory, catalog)


def queued(catalog: Catalog) -> list[str]:
    with catalog.read() as session:
        return sorted(info.key for info in requests.list_requests(session))


ODD = {
    "surrogate": b'{"kind": "dataset.close", "key": "k", "datasetId": "d", "x\\ud800": 1}',
    "nul": b'{"kind": "dataset.close", "key": "k\\u0000", "datasetId": "d"}',
    "number": b'{"kind": "dataset.close", "key": "k", "datasetId": 1e400}',
    "nan": b'{"kind": "dataset.close", "key": "k", "datasetId": "d", "fileCount": NaN}',
    "digits": b'{"kind": "dataset.close", "key": "k", "datasetId": ' + b"9" * 10_000 + b"}",
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "deeper": b'{"a":' * 100_000,
    "empty": b"",
    "binary": bytes(range(256)),
    "list": b"[1, 2]",
    "kind": b'{"kind": ["x"], "key": "k"}',
}


def test_what_is_no_request_is_rejected_by_itself(
    catalog: Catalog, spool: Spool, tmp_path: Path
) -> None:
    for name, content in ODD.items():
        (spool.directory / f"{name}.json").write_bytes(content)
    (spool.directory / f"{'x' * 250}.json").write_bytes(b"[]")
    (spool.directory / os.fsdecode(b"odd-\xff.json")).write_bytes(b"[]")
    (spool.directory / "a folder.json").mkdir()
    (spool.directory / "link.json").symlink_to(tmp_path / "mine.json")
    (spool.directory / "nowhere.json").symlink_to("nowhere")
    (tmp_path / "mine.json").write_text(json.dumps(document("linked")))
    os.mkfifo(spool.directory / "pipe.json")
    for name in ("a", "z"):
        (spool.directory / f"{name}.json").write_text(json.dumps(document(name)))
    for _ in range(3):
        spool.look()
    assert queued(catalog) == ["new a", "new z"]
    left = {path.name for path in spool.directory.iterdir()}
    assert left == {REJECTED} and (tmp_path / "mine.json").exists()
    told = list((spool.directory / REJECTED).glob("*.why"))
    assert len(told) == len(ODD) + 6
    assert all(0 < path.stat().st_size < 5000 for path in told)
    assert len(list((spool.directory / REJECTED).iterdir())) == 2 * len(told)


def test_pipes_of_one_name_are_set_aside_and_none_is_opened(spool: Spool) -> None:
    for _ in range(3):
        os.mkfifo(spool.directory / "pipe.json")
        assert spool.look() == 1
    assert len(list((spool.directory / REJECTED).glob("pipe*.why"))) == 3


def test_a_suffix_in_capitals_is_one(catalog: Catalog, spool: Spool) -> None:
    (spool.directory / "a.JSON").write_text(json.dumps(document("a"), indent=1))
    assert spool.look() == 1
    assert queued(catalog) == ["new a"]


def test_a_spool_that_is_no_directory_is_told_and_no_reason_to_start_anew(
    catalog: Catalog, tmp_path: Path
) -> None:
    spool = Spool(tmp_path / "home" / "spool", catalog)
    assert spool.look() == 0 and spool.directory.is_dir(), "made at the start"
    spool.directory.rmdir()
    spool.directory.write_text(json.dumps(document("a")))
    assert [spool.look(), spool.look()] == [0, 0]
    with catalog.read() as session:
        (told,) = problems(session)
    assert f"service intake: its spool {spool.directory} can't be looked at" in told.message
    assert "Not a directory" in told.message
    spool.directory.rename(tmp_path / "a.json")
    spool.look()
    (tmp_path / "a.json").rename(spool.directory / "a.json")
    assert Spool(spool.directory, catalog).look() == 1
    with catalog.read() as session:
        assert problems(session) == []
    assert queued(catalog) == ["new a"]


@pytest.mark.parametrize("refused", [False, True])
def test_a_file_that_is_renamed_over_one_while_that_is_looked_at_is_taken_next(
    catalog: Catalog, spool: Spool, monkeypatch: pytest.MonkeyPatch, refused: bool
) -> None:
    from flows.intake import spool as spooling

    requests.submit_requests(catalog, [document("a")])
    first = {**document("a"), "name": "other"} if refused else document("b")
    place = spool.directory / "x.json"
    place.write_text(json.dumps(first))

    def reach(_point: str) -> None:
        new = spool.directory / ".x.json"
        new.write_text(json.dumps(document("c")))
        new.rename(place)

    with monkeypatch.context() as patched:
        patched.setattr(spooling, "reach", reach)
        spool.look()
    assert json.loads(place.read_text()) == document("c")
    spool.look()
    expected = ["new a", "new c"] if refused else ["new a", "new b", "new c"]
    assert queued(catalog) == expected
    assert {path.name for path in spool.directory.iterdir()} <= {REJECTED}


def test_a_file_that_was_taken_when_the_intake_died_is_looked_at_again(
    catalog: Catalog, spool: Spool
) -> None:
    place = spool.directory / "x.json"
    place.write_text(json.dumps(document("a")))
    with suppress(KeyboardInterrupt), spoolfiles.taken(place, stamp_of(place)) as file:
        assert file is not None and not place.exists()
        place.write_text(json.dumps(document("b")))
        os.link(file, file.with_name(f"{file.stem}0.json"))
        raise KeyboardInterrupt
    spool.look()
    assert queued(catalog) == ["new a", "new b"]
    assert list(spool.directory.iterdir()) == []


def test_of_files_of_one_name_that_are_rejected_none_takes_anothers_place(
    catalog: Catalog, spool: Spool
) -> None:
    for text in ("[1]", "[2]", "[3]", "[2]", "[1]"):
        (spool.directory / "x.json").write_text(text)
        (spool.directory / f"{'x' * 250}.json").write_text(text)
        spool.look()
    kept = list((spool.directory / REJECTED).glob("*.json"))
    assert sorted(path.read_text() for path in kept) == ["[1]", "[1]", "[2]", "[2]", "[3]", "[3]"]
    assert all(path.with_name(f"{path.name}.why").stat().st_size for path in kept)
    assert len(list((spool.directory / REJECTED).iterdir())) == 12


def test_files_of_one_name_that_can_not_be_read_are_rejected_one_by_one(
    catalog: Catalog, spool: Spool
) -> None:
    for _ in range(2):
        (spool.directory / "x.json").write_text("[1]")
        (spool.directory / "x.json").chmod(0)
        with modes_hold():
            spool.look()
    assert len(list((spool.directory / REJECTED).glob("x*.json"))) == 2
    assert len(list((spool.directory / REJECTED).glob("x*.why"))) == 2
    assert queued(catalog) == []


def test_a_file_that_can_be_neither_taken_nor_moved_is_passed_over(
    catalog: Catalog, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (spool.directory / "bad.json").write_text("[]")
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self.name == "bad.json":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    (spool.directory / "good.json").write_text(json.dumps(document("good")))
    assert spool.look() == 2
    assert queued(catalog) == ["new good"]
    assert spool.look() == 0, "it isn't tried again and again"


def test_a_spooled_file_that_the_database_refuses_leaves_the_others_of_its_batch(
    catalog: Catalog, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.intake import spool as spooling

    real = spooling.submit

    def submit(session: Session, documents: list[Any]) -> list[int]:
        if any(item.key == "new b" for item in documents):
            raise OverflowError("int too large to convert")
        return real(session, documents)

    monkeypatch.setattr(spooling, "submit", submit)
    for name in "abc":
        (spool.directory / f"{name}.json").write_text(json.dumps(document(name)))
    spool.look()
    assert queued(catalog) == ["new a", "new c"]
    assert (spool.directory / REJECTED / "b.json").exists()


def test_spooled_files_whose_keys_clash_are_found_together(
    catalog: Catalog, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.intake import spool as spooling

    sizes: list[int] = []
    real = spooling.submit

    def submit(session: Session, documents: list[Any]) -> list[int]:
        sizes.append(len(documents))
        return real(session, documents)

    requests.submit_requests(catalog, [document(f"{n:02}") for n in range(0, 50, 5)])
    monkeypatch.setattr(spooling, "submit", submit)
    for n in range(50):
        other = {**document(f"{n:02}"), "name": f"other-{n}" if n % 5 == 0 else f"{n:02}"}
        (spool.directory / f"{n:02}.json").write_text(json.dumps(other))
    # Two in one file, which clash with each other, and the same document once more.
    twice = [document("60"), {**document("60"), "name": "61"}]
    (spool.directory / "60.jsonl").write_text("\n".join(map(json.dumps, twice)))
    (spool.directory / "62.json").write_text(json.dumps(document("01")))
    spool.look()
    assert sizes == [41], "none is searched for in halves"
    assert queued(catalog) == [f"new {n:02}" for n in range(50)]
    bad = {path.stem for path in (spool.directory / REJECTED).glob("*.why")}
    assert bad == {f"{n:02}.json" for n in range(0, 50, 5)} | {"60.jsonl"}
    assert not list(spool.directory.glob("*.json*"))


@pytest.fixture
def made(catalog: Catalog, tmp_path: Path) -> Callable[[str], int]:
    """Makes datasets that an automatic template is for."""
    with catalog.write() as session:
        for role in StorageRole:
            storages.add(session, role, StorageKind.LOCAL, role, str(tmp_path / role))
    info, _ = template_files.create(catalog, CHAIN, name="chain", mask="run-?", auto=True)
    with catalog.write() as session:
        templates.activate(session, info.id)

    def make(name: str) -> int:
        with catalog.write() as session:
            return datasets.create(session, name)

    return make


def test_a_dataset_that_cannot_be_submitted_is_told_of_and_the_others_are(
    catalog: Catalog, made: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [made(f"run-{i}") for i in range(4)]
    generator = Generator(catalog, lambda _session: None)
    monkeypatch.setattr(generator, "_start", lambda _begun: None)
    real = generating.submit

    def submit(catalog: Catalog, wanted: Any) -> tuple[int, bool]:
        if wanted.dataset == "run-1":
            raise KeyError("a defect")
        return real(catalog, wanted)

    with monkeypatch.context() as broken:
        broken.setattr(generating, "submit", submit)
        generator.turn()
        generator.turn()
    with catalog.read() as session:
        assert {w.dataset for w in workflows.list_workflows(session)} == {"run-0", "run-2", "run-3"}
        (told,) = troubles.of(session, Of.DATASET, ids[1])
        found = causes.why_dataset(session, datasets.by_name(session, "run-1"))
    assert "template chain@1 can't be applied to it" in told.error
    assert any(told.error in cause.fact for cause in found)
    monkeypatch.setattr(generating, "_AGAIN_S", 0.0)
    generator._refused.clear()
    generator.turn()
    with catalog.read() as session:
        assert len(workflows.list_workflows(session)) == 4
        assert troubles.recent(session, 10) == []


def test_a_chore_that_fails_keeps_no_other_from_being_done(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    with catalog.write() as session:
        info = storages.add(session, "s", StorageKind.LOCAL, StorageRole.INPUT, "/tmp/none-such")
        usage.note(session, info.id, 1, 5)
    housework = Housework(catalog, lambda _session: None)

    def broken(_session: Session) -> None:
        raise OverflowError("odd")

    monkeypatch.setattr(housework, "_expire", broken)
    housework.turn()
    with catalog.read() as session:
        assert usage.of_storages(session)[0].files == 1
        assert not session.execute(sa.text("SELECT 1 FROM storage_delta")).all()
        (told,) = troubles.recent(session, 10)
    assert "its chore `lifetimes` fails" in told.error


def test_troubles_outlive_the_process_that_noted_them_and_end_with_their_item(
    catalog: Catalog,
) -> None:
    Troubles(catalog, "match").note(Of.DATASET, 1, "run-\0\ud800", "a\0b\ud800" * 1000)
    again = Troubles(catalog, "match")
    with catalog.read() as session:
        (told,) = troubles.recent(session, 10)
    assert len(told.error) <= 1000 and "\0" not in told.error
    Troubles(catalog, "other").over(Of.DATASET, 1)
    with catalog.read() as session:
        assert troubles.count(session) == 1
    again.over(Of.DATASET, 1)
    with catalog.read() as session:
        assert troubles.count(session) == 0


def test_an_answer_that_no_database_takes_is_cleaned(catalog: Catalog) -> None:
    (request,) = requests.submit_requests(catalog, [document("a")])
    reply = {"error": "a\0b\ud800", "deep": [{"x\0": float("nan")}]}
    with catalog.write() as session:
        queue.answer(session, [queue.Answer(request, RequestState.ERROR, reply)])
    with catalog.read() as session:
        found = requests.get(session, request).reply
    assert found == {"error": "a\\0b\\ud800", "deep": [{"x\\0": None}]}
