"""One request's trouble is its own: whatever it is, the others are done, and it is answered."""

import errno
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Session

from catalog import datasets, requests, storages, uploads, usage
from catalog.bulk import insert_new
from catalog.db import Catalog
from catalog.drivers.local import LocalDriver
from catalog.errors import BadInput, Conflict, NotFound, StateConflict
from catalog.models import Request, StorageKind, StorageRole
from catalog.outage import Over
from catalog.requests import RequestInfo, looking, parse, queue, submit_requests, work
from catalog.requests import processor as processing
from catalog.requests.actions import Actions
from catalog.requests.looks import Looker
from catalog.requests.processor import Processor
from catalog.stamps import Reading
from catalog.states import RequestState, UploadState
from catalog.storages import StorageInfo
from tests.processing import do_all

Document = dict[str, Any]
Send = Callable[..., list[RequestInfo]]
MOST = 2**63 - 1


class Held:
    """Reads that wait: which have begun, and whether they go on."""

    def __init__(self) -> None:
        self.read: list[str] = []
        self.goes_on = threading.Event()


@pytest.fixture
def storage(catalog: Catalog, tmp_path: Path) -> StorageInfo:
    root = tmp_path / "buffer"
    root.mkdir()
    with catalog.write() as session:
        return storages.add(session, "buffer", StorageKind.LOCAL, StorageRole.INPUT, str(root))


@pytest.fixture
def processor(catalog: Catalog) -> Iterator[Processor]:
    made = Processor(catalog, lambda _session: None)
    yield made
    made.close()


@pytest.fixture
def send(catalog: Catalog, processor: Processor) -> Send:
    """Send requests and have them done; gives them as they are then."""

    def sent(*documents: Document) -> list[RequestInfo]:
        ids = submit_requests(catalog, documents)
        until_idle(processor)
        return look(catalog, ids)

    return sent


def until_idle(processor: Processor, turns: int = 30) -> None:
    for _ in range(turns):
        if not processor.turn():
            return


def until_done(catalog: Catalog, processor: Processor, ids: list[int]) -> None:
    """Take turns until these requests are DONE."""
    for _ in range(200):
        until_idle(processor)
        if {info.state for info in look(catalog, ids)} == {RequestState.DONE}:
            return
        time.sleep(0.05)
    raise AssertionError(states(look(catalog, ids)))


def look(catalog: Catalog, ids: list[int]) -> list[RequestInfo]:
    with catalog.read() as session:
        return [requests.get(session, request_id) for request_id in ids]


def states(found: list[RequestInfo]) -> list[str]:
    return [str(info.state) for info in found]


def new_dataset(name: str) -> Document:
    return {"kind": "dataset.input", "key": f"new {name}", "name": name}


def entry(storage: StorageInfo, name: str, content: bytes = b"content") -> Document:
    Path(storage.url, name).write_bytes(content)
    return {"storageId": storage.name, "path": name, "size": len(content)}


def with_files(files: list[Document], dataset: str, key: str, **more: Any) -> Document:
    return {"kind": "file.input", "key": key, "datasetId": dataset, "files": files, **more}


def row(key: str, payload: Any, kind: str = "dataset.close", lane: str = "") -> dict[str, Any]:
    """A request as a program of another version, or a hand, may have left it in the table."""
    return {"kind": kind, "key": key, "lane": lane or key, "payload": payload, "files": 0,
            "state": RequestState.QUEUED}  # fmt: skip


@pytest.mark.parametrize(
    "document",
    [
        {"kind": "dataset.close", "key": "k", "datasetId": 2**63},
        {"kind": "dataset.close", "key": "k", "datasetId": 0},
        {"kind": "dataset.close", "key": "k", "datasetId": "d\0"},
        {"kind": "dataset.close", "key": "k", "datasetId": "d\ud800"},
        {"kind": "dataset.close", "key": "k", "datasetId": "d" * 2000},
        {"kind": "dataset.close", "key": "k", "datasetId": "d", "fileCount": 2**63},
        {"kind": "dataset.close", "key": "k", "datasetId": "d", "fileCount": float("nan")},
        {"kind": "dataset.close", "key": "k", "datasetId": "d", "fileCount": float("inf")},
        {"kind": "dataset.close", "key": "k", "datasetId": "d", "fileCount": 10**400},
        {"kind": "dataset.close", "key": "k", "datasetId": "d", "x\ud800" * 500: 1},
        {"kind": "dataset.close", "key": "k\0", "datasetId": "d"},
        {"kind": ["dataset.close"], "key": "k", "datasetId": "d"},
        {"kind": "x\ud800" * 500, "key": "k"},
        {"kind": "dataset.upload", "key": "k", "datasetId": "d", "storageId": -1},
        {"kind": "dataset.input", "key": "k", "name": "n", "lifetime": "9" * 400 + "d"},
        {"kind": "dataset.input", "key": "k", "name": "n\0"},
        {"kind": "file.input", "key": "k", "datasetId": "d",
         "files": [{"storageId": "s", "path": "p", "size": 2**63}]},
        {"kind": "file.input", "key": "k", "datasetId": "d",
         "files": [{"storageId": "s", "path": "p" * 10**6, "size": 1}]},
        {"kind": "file.input", "key": "k", "datasetId": "d",
         "files": [{"storageId": "s", "path": "p", "size": 1, "checksum": "\ud800"}]},
    ],
)  # fmt: skip
def test_what_no_catalog_can_keep_is_refused_in_a_sentence_that_can_be_kept(
    document: Document,
) -> None:
    with pytest.raises(BadInput) as refused:
        parse(document)
    told = str(refused.value)
    assert len(told) < 1200 and told.isprintable()


def test_what_stands_in_the_table_and_is_no_request_is_answered(
    catalog: Catalog, storage: StorageInfo, send: Send
) -> None:
    odd = [
        row("number", {"datasetId": 2**70}),
        row("nothing", {}),
        row("list", [1, 2]),
        row("deep", {"datasetId": json.loads("[" * 500 + "]" * 500)}),
        row("kind", {}, kind="dataset.moved"),
        row("size", {"datasetId": "d", "files": [{"storageId": "buffer", "path": "f",
                                                  "size": 2**80}]}, kind="file.input"),
    ]  # fmt: skip
    with catalog.write() as session:
        ids = [found.id for found in insert_new(session, Request, odd, Request.id)]
    good = send(new_dataset("run"), with_files([entry(storage, "f")], "run", "files"))
    assert states(good) == ["DONE", "DONE"]
    answers = look(catalog, ids)
    assert states(answers) == ["ERROR"] * len(odd)
    assert all(info.reply and info.reply["code"] == "BAD_INPUT" for info in answers)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OverflowError("Python int too large"), "BAD_INPUT"),
        (RecursionError("too deep"), "BAD_INPUT"),
        (MemoryError(), "BAD_INPUT"),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates"), "BAD_INPUT"),
        (NotFound("dataset", "x"), "NOT_FOUND"),
        (KeyError("a defect"), "INTERNAL"),
        (OSError(errno.ELOOP, "too many links", "x"), "INTERNAL"),
    ],
)
def test_whatever_goes_wrong_in_one_request_is_its_answer(
    catalog: Catalog, send: Send, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str
) -> None:
    real = Actions.do

    def do(self: Actions, document: Any, looks: Any) -> Any:
        if document.key == "new bad":
            raise error
        return real(self, document, looks)

    monkeypatch.setattr(Actions, "do", do)
    names = [*(f"a{i}" for i in range(7)), "bad", *(f"b{i}" for i in range(7))]
    found = send(*map(new_dataset, names))
    assert states(found) == ["DONE"] * 7 + ["ERROR"] + ["DONE"] * 7
    assert found[7].reply is not None and found[7].reply["code"] == code


def test_what_the_database_refuses_is_the_answer_of_the_request_that_asked_for_it(
    catalog: Catalog, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Actions.do

    def do(self: Actions, document: Any, looks: Any) -> Any:
        if document.key == "new bad":
            datasets.create(self._session, "bad", lifetime_s=1.0, rule_id=2**63)
        return real(self, document, looks)

    monkeypatch.setattr(Actions, "do", do)
    found = send(*map(new_dataset, ("a", "bad", "b")))
    assert states(found) == ["DONE", "ERROR", "DONE"]
    assert "the catalog can't keep" in str(found[1].reply)


def test_an_outage_is_nobodys_answer(
    catalog: Catalog, processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = submit_requests(catalog, [new_dataset("a"), new_dataset("b")])
    for error in (OSError(errno.EMFILE, "too many open files"), Over()):
        with monkeypatch.context() as patched:

            def do(*_: Any, error: Exception = error) -> None:
                raise error

            patched.setattr(Actions, "do", do)
            with pytest.raises(type(error)):
                processor.turn()
        assert states(look(catalog, ids)) == ["QUEUED", "QUEUED"]
    until_idle(processor)
    assert states(look(catalog, ids)) == ["DONE", "DONE"]


def test_sizes_beyond_all_sums_stop_nothing(
    catalog: Catalog, storage: StorageInfo, send: Send
) -> None:
    checksum = "adler32:00000001"
    huge = [
        {"storageId": "buffer", "path": f"huge-{i}", "size": MOST, "checksum": checksum}
        for i in range(3)
    ]
    found = send(
        new_dataset("huge"),
        with_files(huge, "huge", "huge", verify="none"),
        {"kind": "dataset.close", "key": "close", "datasetId": "huge"},
        new_dataset("run"),
        with_files([entry(storage, "f")], "run", "files"),
    )
    assert states(found) == ["DONE"] * 5
    for _ in range(2):
        with catalog.write() as session:
            assert usage.of_storages(session)[0].size_bytes == MOST
            usage.fold(session)
    with catalog.read() as session:
        assert storages.usage(session)[0].size_bytes == MOST
        assert datasets.by_name(session, "huge").size_bytes == MOST
    with catalog.write() as session:
        usage.recount(session, storage.id)


@pytest.mark.parametrize("what", ["pipe", "folder", "loop", "socket", "unreadable", "long"])
def test_a_thing_that_is_no_file_is_its_requests_trouble_not_the_storages(
    catalog: Catalog, storage: StorageInfo, send: Send, what: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path = Path(storage.url, "odd")
    if what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "loop":
        path.symlink_to(path)
    elif what == "socket":
        os.mknod(path, 0o140644)
    elif what == "unreadable":
        path.write_bytes(b"x")
        _deny(monkeypatch, path)
    odd = {"storageId": "buffer", "path": "o" * 300 if what == "long" else "odd", "size": 0}
    found = send(
        new_dataset("bad"), with_files([odd], "bad", "odd", verify="none"),
        with_files([odd], "bad", "sized"),
        new_dataset("run"), with_files([entry(storage, "f")], "run", "files"),
    )  # fmt: skip
    assert states(found) == ["DONE", "ERROR", "ERROR", "DONE", "DONE"]


def _deny(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Have a file refused to this process, which may be root."""
    real = LocalDriver.stat

    def stat(self: LocalDriver, name: str) -> Any:
        if name == path.name:
            with self._errors(name):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(self, name)

    monkeypatch.setattr(LocalDriver, "stat", stat)


def test_a_file_that_takes_long_to_read_keeps_only_its_own_dataset_waiting(
    catalog: Catalog, storage: StorageInfo, send: Send, processor: Processor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(looking, "QUICK_BYTES", 100)
    reading, real = threading.Event(), LocalDriver.read

    def read_it(self: LocalDriver, path: str, algorithm: str) -> Reading:
        if path == "large":
            assert reading.wait(30)
        return real(self, path, algorithm)

    monkeypatch.setattr(LocalDriver, "read", read_it)
    found = send(
        new_dataset("slow"), with_files([entry(storage, "large", b"x" * 200)], "slow", "large"),
        {"kind": "dataset.close", "key": "close slow", "datasetId": "slow"},
        new_dataset("run"), with_files([entry(storage, "f")], "run", "files"),
    )  # fmt: skip
    assert states(found) == ["DONE", "QUEUED", "QUEUED", "DONE", "DONE"]
    reading.set()
    until_done(catalog, processor, [found[2].id])
    assert states(look(catalog, [info.id for info in found])) == ["DONE"] * 5
    assert processor._looking.begun == []


def test_a_storage_whose_files_take_long_has_few_readers_and_none_of_anothers(
    catalog: Catalog, storage: StorageInfo, processor: Processor, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(looking, "QUICK_BYTES", 100)
    (tmp_path / "other").mkdir()
    with catalog.write() as session:
        other = storages.add(
            session, "other", StorageKind.LOCAL, StorageRole.INPUT, str(tmp_path / "other")
        )
    goes_on, real = threading.Event(), LocalDriver.read
    read: list[str] = []

    def read_it(self: LocalDriver, path: str, algorithm: str) -> Reading:
        if self.name == "buffer":
            read.append(path)
            assert goes_on.wait(60)
        return real(self, path, algorithm)

    monkeypatch.setattr(LocalDriver, "read", read_it)
    names = [f"r{i}" for i in range(9)]
    slow = [with_files([entry(storage, name, b"x" * 200)], name, name) for name in names]
    good = with_files([entry(other, "f", b"x" * 200)], "run", "good")
    submit_requests(catalog, [new_dataset(name) for name in [*names, "run"]])
    *waiting, last = submit_requests(catalog, [*slow, good])
    try:
        until_done(catalog, processor, [last])
        assert states(look(catalog, waiting)) == ["QUEUED"] * len(names)
        cores = len(os.sched_getaffinity(0))
        assert len(read) <= max(1, cores // 2), "the other cores are for what else is to be done"
    finally:
        goes_on.set()
    until_done(catalog, processor, waiting)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    """Reads of the storage `buffer` that go on when told to; one at a time, from 100 bytes on."""
    monkeypatch.setattr(looking, "QUICK_BYTES", 100)
    monkeypatch.setattr(looking, "READERS", 1)
    made, real = Held(), LocalDriver.read

    def read_it(self: LocalDriver, path: str, algorithm: str) -> Reading:
        if self.name == "buffer":
            made.read.append(path)
            assert made.goes_on.wait(60)
        return real(self, path, algorithm)

    monkeypatch.setattr(LocalDriver, "read", read_it)
    yield made
    made.goes_on.set()


def long_files(storage: StorageInfo, number: int, name: str) -> list[Document]:
    return [entry(storage, f"{name}-{n}", b"x" * 200) for n in range(number)]


def test_a_backlog_of_reads_on_one_storage_holds_up_none_on_another(
    catalog: Catalog, storage: StorageInfo, processor: Processor, tmp_path: Path, held: Held,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(looking, "MOST_READ", 4)
    (tmp_path / "other").mkdir()
    with catalog.write() as session:
        other = storages.add(
            session, "other", StorageKind.LOCAL, StorageRole.INPUT, str(tmp_path / "other")
        )
    submit_requests(catalog, [new_dataset(name) for name in ("slow", "run")])
    (slow,) = submit_requests(catalog, [with_files(long_files(storage, 5, "s"), "slow", "slow")])
    until_idle(processor)
    good = with_files(long_files(other, 5, "g"), "run", "good")
    until_done(catalog, processor, submit_requests(catalog, [good]))
    assert states(look(catalog, [slow])) == ["QUEUED"]


@pytest.mark.parametrize("most", [1000, 40])
def test_datasets_take_turns_with_what_is_read_of_a_storage(
    catalog: Catalog, storage: StorageInfo, processor: Processor, held: Held,
    monkeypatch: pytest.MonkeyPatch, most: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(looking, "MOST_READ", most)
    monkeypatch.setattr(looking, "FEW", 3)
    submit_requests(catalog, [new_dataset(name) for name in ("slow", "slower", "run")])
    slow = with_files(long_files(storage, 40, "s"), "slow", "slow")
    slower = with_files(long_files(storage, 40, "t"), "slower", "slower")
    ids = submit_requests(catalog, [slow, slower])
    until_idle(processor)
    ids += submit_requests(catalog, [with_files(long_files(storage, 1, "mine"), "run", "mine")])
    until_idle(processor)
    held.goes_on.set()
    until_done(catalog, processor, ids)
    assert held.read.index("mine-0") < 4, "it came behind the files of others"


@pytest.mark.parametrize("others", [True, False])
def test_of_a_request_that_is_cancelled_no_more_is_read(
    catalog: Catalog, storage: StorageInfo, processor: Processor, held: Held, others: bool
) -> None:
    submit_requests(catalog, [new_dataset(name) for name in ("slow", "run")])
    (slow,) = submit_requests(catalog, [with_files(long_files(storage, 40, "s"), "slow", "slow")])
    until_idle(processor)
    with catalog.read() as session:
        info = requests.get(session, slow)
    assert work.waits(info) == "for 40 files of it to be read, in turn with those of other datasets"
    more = with_files(long_files(storage, 1, "mine"), "run", "mine")
    ids = submit_requests(catalog, [more]) if others else []
    with catalog.write() as session:
        work.cancel(session, slow)
    until_idle(processor)
    held.goes_on.set()
    if others:
        until_done(catalog, processor, ids)
    with catalog.write() as session:
        queue.retry(session, slow)
    until_done(catalog, processor, [slow])
    assert sum(path.startswith("s-") for path in held.read) == 41, "but for the one in hand"


def test_many_files_of_one_dataset_are_looked_at_in_turn_with_those_of_others(
    catalog: Catalog, storage: StorageInfo, processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seen = LocalDriver.stat, list[str]()

    def stat(self: LocalDriver, path: str) -> Any:
        seen.append(path)
        time.sleep(0.01)
        return real(self, path)

    monkeypatch.setattr(LocalDriver, "stat", stat)
    many = with_files([entry(storage, f"m{n}") for n in range(100)], "long", "many")
    good = with_files([entry(storage, "good")], "run", "good")
    submit_requests(catalog, [new_dataset(name) for name in ("long", "run")])
    until_idle(processor)
    ids = submit_requests(catalog, [many, good])
    until_done(catalog, processor, ids)
    assert seen.index("good") < 50, "it came behind a hundred"


@pytest.mark.parametrize("hang", [1, 9])
def test_quick_looks_that_hang_at_one_storage_hold_up_none_at_another(
    catalog: Catalog, storage: StorageInfo, processor: Processor, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, hang: int,
) -> None:  # fmt: skip
    (tmp_path / "other").mkdir()
    with catalog.write() as session:
        other = storages.add(
            session, "other", StorageKind.LOCAL, StorageRole.INPUT, str(tmp_path / "other")
        )
    goes_on, real = threading.Event(), LocalDriver.stat

    def stat(self: LocalDriver, path: str) -> Any:
        assert self.name != "buffer" or goes_on.wait(60)
        return real(self, path)

    monkeypatch.setattr(LocalDriver, "stat", stat)
    names = [f"r{i}" for i in range(hang)]
    submit_requests(catalog, [new_dataset(name) for name in [*names, "run"]])
    slow = [with_files([entry(storage, name)], name, name) for name in names]
    *waiting, last = submit_requests(catalog, [*slow, with_files([entry(other, "f")], "run", "f")])
    try:
        until_done(catalog, processor, [last])
        assert states(look(catalog, waiting)) == ["QUEUED"] * hang
        monkeypatch.setattr(looking, "STUCK_S", 0.0)
        next_one = with_files([entry(other, "g")], "run", "g")
        until_done(catalog, processor, submit_requests(catalog, [next_one]))
        assert list(processor._looking.away._until) == [storage.id], "it is taken for away"
    finally:
        goes_on.set()
    monkeypatch.setattr(looking, "STUCK_S", 60.0)
    processor.try_again()
    until_done(catalog, processor, waiting)


def test_many_that_wait_for_a_storage_leave_others_their_place(
    catalog: Catalog, storage: StorageInfo, processor: Processor, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(processing, "MOST", 5)
    with catalog.write() as session:
        storages.add(session, "gone", StorageKind.LOCAL, StorageRole.INPUT, str(tmp_path / "gone"))
    (tmp_path / "gone").rmdir()
    names = [f"w{i}" for i in range(12)]
    submit_requests(catalog, [new_dataset(name) for name in [*names, "run"]])
    until_idle(processor)
    away = {"storageId": "gone", "path": "f", "size": 1}
    waiting = submit_requests(catalog, [with_files([away], name, name) for name in names])
    good = submit_requests(catalog, [with_files([entry(storage, "f")], "run", "files")])
    for _ in range(5):
        processor.turn()
    assert states(look(catalog, good)) == ["DONE"]
    assert states(look(catalog, waiting)) == ["QUEUED"] * 12


def test_of_many_files_the_one_to_blame_is_named(
    catalog: Catalog, storage: StorageInfo, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {**entry(storage, "f64"), "checksum": "adler32:00000001"}
    tries: list[int] = []
    real = processing._try_out

    def counted(session: Session, tried: Any, looks: Any) -> None:
        tries.append(len(looks))
        real(session, tried, looks)

    monkeypatch.setattr(processing, "_try_out", counted)
    files = [entry(storage, f"f{i}") for i in range(100)]
    found = send(
        new_dataset("known"), with_files([known], "known", "known", verify="none"),
        new_dataset("run"), with_files(files, "run", "files"),
    )  # fmt: skip
    assert states(found) == ["DONE", "DONE", "DONE", "ERROR"]
    assert found[3].reply is not None
    assert [item["path"] for item in found[3].reply["files"]] == ["f64"]
    assert len(tries) < 20, "halved, not one by one"


def test_a_request_that_waits_can_be_cancelled_and_asked_for_again(
    catalog: Catalog, storage: StorageInfo, processor: Processor
) -> None:
    (request,) = submit_requests(catalog, [new_dataset("run")])
    with catalog.write() as session:
        info = work.cancel(session, request)
    assert info.state is RequestState.ERROR
    assert info.reply is not None and info.reply["code"] == "CANCELLED"
    until_idle(processor)
    with catalog.read() as session, pytest.raises(NotFound):
        datasets.by_name(session, "run")
    with pytest.raises(StateConflict, match="answered already"), catalog.write() as session:
        work.cancel(session, request)
    with catalog.write() as session:
        queue.retry(session, request)
    until_idle(processor)
    assert states(look(catalog, [request])) == ["DONE"]


def test_cancelling_a_request_stops_the_upload_that_it_began_but_no_deletion(
    catalog: Catalog, storage: StorageInfo, send: Send, tmp_path: Path
) -> None:
    with catalog.write() as session:
        storages.add(session, "out", StorageKind.LOCAL, StorageRole.OUTPUT, str(tmp_path / "out"))
    upload = {"kind": "dataset.upload", "key": "up", "datasetId": "run", "storageId": "out"}
    found = send(
        new_dataset("run"), with_files([entry(storage, "f")], "run", "files"),
        {"kind": "dataset.close", "key": "close", "datasetId": "run"}, upload,
    )  # fmt: skip
    assert states(found) == ["DONE", "DONE", "DONE", "QUEUED"]
    with catalog.write() as session:
        assert work.cancel(session, found[3].id).state is RequestState.ERROR
    with catalog.read() as session:
        (left,) = uploads.of_dataset(session, datasets.by_name(session, "run").id)
    assert left.state is UploadState.CANCELLED
    (deletion,) = send({"kind": "dataset.delete", "key": "del", "datasetId": "run"})
    with pytest.raises(Conflict, match="has begun"), catalog.write() as session:
        work.cancel(session, deletion.id)


def test_long_work_whose_end_cannot_be_told_is_answered(
    catalog: Catalog, processor: Processor
) -> None:
    rows = [row("odd", {"storageId": "out"}, kind="dataset.upload"),
            row("none", {"datasetId": 77}, kind="dataset.delete")]  # fmt: skip
    with catalog.write() as session:
        ids = [found.id for found in insert_new(session, Request, rows, Request.id)]
        for request_id in ids:
            queue.begin(session, request_id)
    (good,) = submit_requests(catalog, [new_dataset("run")])
    until_idle(processor)
    assert states(look(catalog, [*ids, good])) == ["ERROR", "ERROR", "DONE"]


def test_what_was_gathered_before_a_request_that_fails_stays(
    catalog: Catalog, storage: StorageInfo, send: Send
) -> None:
    found = send(
        new_dataset("run"),
        with_files([entry(storage, "a")], "run", "first"),
        {"kind": "dataset.upload", "key": "early", "datasetId": "run", "storageId": "nowhere"},
        with_files([entry(storage, "b")], "run", "second"),
        {"kind": "dataset.close", "key": "none", "datasetId": "nowhere"},
        {"kind": "dataset.close", "key": "close", "datasetId": "run", "fileCount": 2},
    )
    assert states(found) == ["DONE", "DONE", "ERROR", "DONE", "ERROR", "DONE"]
    with catalog.read() as session:
        assert datasets.by_name(session, "run").file_count == 2


def test_what_was_seen_behind_a_file_that_takes_long_is_not_looked_at_again(
    catalog: Catalog, storage: StorageInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests of one dataset are done in their order, and what was read of later ones is kept."""
    looked: list[str] = []
    real = Looker.look

    def look(self: Looker, file: Any, verify: Any) -> Any:
        looked.append(file.path)
        if file.path == "a":
            time.sleep(0.5)
        return real(self, file, verify)

    monkeypatch.setattr(Looker, "look", look)
    names = "abcdef"
    sent = [with_files([entry(storage, name)], "run", name) for name in names]
    submit_requests(catalog, [new_dataset("run"), *sent])
    do_all(catalog)
    with catalog.read() as session:
        found = requests.list_requests(session)
    assert {info.state for info in found} == {RequestState.DONE}
    assert sorted(looked) == list(names), "each once"


def test_requests_that_fail_are_found_without_doing_the_others_again(
    catalog: Catalog, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    real = Actions.do

    def do(self: Actions, document: Any, looks: Any) -> Any:
        tried.append(document.key)
        return real(self, document, looks)

    monkeypatch.setattr(Actions, "do", do)
    with catalog.write() as session:
        datasets.create(session, "taken")
    bad = [{**new_dataset("taken"), "key": f"bad {n}"} for n in range(50)]
    found = send(*(item for pair in zip(bad, map(new_dataset, map(str, range(50))), strict=True)
                   for item in pair))  # fmt: skip
    assert states(found) == ["ERROR", "DONE"] * 50
    assert len(tried) == 100


def test_a_dataset_that_is_not_there_costs_no_statement(
    catalog: Catalog, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookups: list[Any] = []
    monkeypatch.setattr(datasets, "by_name", lambda _session, name: lookups.append(name))
    found = send(*({"kind": "dataset.close", "key": f"bad {n}", "datasetId": f"no-{n}"}
                   for n in range(50)))  # fmt: skip
    assert states(found) == ["ERROR"] * 50
    assert {info.reply["code"] for info in found if info.reply} == {"NOT_FOUND"}
    assert lookups == []
