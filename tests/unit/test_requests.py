"""Requests: accepted once, done in order, answered; whatever dies meanwhile."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlmodel import Session, col

from catalog import datasets, deletion, files, grace, manifests, requests, storages
from catalog.clock import now
from catalog.db import Catalog
from catalog.drivers.local import LocalDriver
from catalog.errors import (
    BadInput,
    Conflict,
    ErrorCode,
    NotFound,
    StateConflict,
    StorageError,
)
from catalog.failpoints import VARIABLE
from catalog.inspection.scan import Options, inspect
from catalog.models import Dataset, Replica, StorageKind, StorageRole
from catalog.requests import Kind, RequestInfo, queue, schema_of, submit_requests, work
from catalog.requests import processor as processing
from catalog.requests.processor import Processor
from catalog.requests.queue import Answer
from catalog.settings import get_settings
from catalog.stamps import Reading, of_stat
from catalog.states import DatasetState, ReplicaState, RequestState
from catalog.storages import StorageInfo
from catalog.transitions import move
from tests.processing import close_due, do_all

Document = dict[str, Any]


def no_fence(_session: Session) -> None:
    """Nobody else has the role in a test."""


@pytest.fixture
def processor(catalog: Catalog) -> Iterator[Processor]:
    made = Processor(catalog, no_fence)
    yield made
    made.close()


@pytest.fixture
def send(catalog: Catalog, processor: Processor) -> Callable[..., list[RequestInfo]]:
    """Send requests and have them done; gives them as they are then."""

    def sent(*documents: Document) -> list[RequestInfo]:
        ids = submit_requests(catalog, documents)
        do_all(catalog, processor)
        with catalog.read() as session:
            return [requests.get(session, request_id) for request_id in ids]

    return sent


def adler32(content: bytes) -> str:
    return f"adler32:{zlib.adler32(content):08x}"


def written(storage: StorageInfo, name: str, content: bytes | None = None) -> Document:
    """The entry of a file that lies on a storage."""
    content = name.encode() if content is None else content
    path = Path(storage.url, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return {
        "storageId": storage.name,
        "path": name,
        "size": len(content),
        "checksum": adler32(content),
    }


def new_dataset(name: str = "run-1", key: str | None = None) -> Document:
    return {"kind": "dataset.input", "key": key or f"new {name}", "name": name}


def with_files(
    files: Sequence[Document], dataset: int | str = "run-1", key: str = "files", **more: Any
) -> Document:
    return {
        "kind": "file.input",
        "key": key,
        "datasetId": dataset,
        "files": list(files),
        **more,
    }


def closing(dataset: int | str = "run-1", key: str = "close", **more: Any) -> Document:
    return {"kind": "dataset.close", "key": key, "datasetId": dataset, **more}


def deleting(dataset: int | str = "run-1", key: str = "delete", **more: Any) -> Document:
    return {"kind": "dataset.delete", "key": key, "datasetId": dataset, **more}


def names(catalog: Catalog, dataset: str = "run-1") -> list[str]:
    with catalog.read() as session:
        info = datasets.by_name(session, dataset)
        return [member.name for member in manifests.all_members(session, info.id)]


def states(found: Sequence[RequestInfo]) -> list[str]:
    return [str(info.state) for info in found]


def error_of(info: RequestInfo) -> str:
    assert info.state is RequestState.ERROR and info.reply is not None
    return str(info.reply["error"])


# What is a request, and what isn't.


@pytest.mark.parametrize("kind", list(Kind))
def test_each_kind_has_a_schema_that_names_its_fields(kind: Kind) -> None:
    schema = schema_of(kind)
    assert {"kind", "key"} <= set(schema["required"])
    assert schema["additionalProperties"] is False
    if kind is Kind.FILE_PROCESS:
        assert {"datasetId", "files"} <= set(schema["required"])
        entry = schema["$defs"]["MadeFile"]
        assert set(entry["required"]) == {"storageId", "path", "size", "checksum"}


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ([], "is no JSON object"),
        ({"key": "k"}, "has the kind None"),
        ({"kind": "file.output", "key": "k"}, "kinds are file.input, file.process"),
        ({"kind": "dataset.close", "datasetId": "d"}, "key: Field required"),
        ({"kind": "dataset.close", "key": "", "datasetId": "d"}, "key: String should have"),
        ({"kind": "dataset.close", "key": "k", "dataset": "d"}, "datasetId: Field required"),
        ({"kind": "dataset.close", "key": "k", "datasetId": "d", "x": 1}, "x: Extra inputs"),
        ({"kind": "dataset.input", "key": "k", "name": "a/b"}, "name: dataset name 'a/b'"),
        (
            {"kind": "dataset.input", "key": "k", "name": "a", "lifetime": "soon"},
            "lifetime: lifetime 'soon' is no time",
        ),
        (with_files([]), "files: List should have at least 1 item"),
        (
            with_files([{"storageId": "s", "path": "../x", "size": 1}]),
            r"files\[0\].path: path '../x'",
        ),
        (
            with_files([{"storageId": "s", "path": "x", "size": -1}]),
            r"files\[0\].size: Input should be greater",
        ),
        (
            with_files([{"storageId": "s", "path": "x", "size": 1, "checksum": "md5:12"}]),
            r"files\[0\].checksum: checksum 'md5:12' is malformed",
        ),
        (
            {**with_files([{"storageId": "s", "path": "x", "size": 1}]), "kind": "file.process"},
            r"files\[0\].checksum: Field required",
        ),
    ],
)
def test_what_is_no_request_is_refused_by_its_field(
    catalog: Catalog, document: Any, told: str
) -> None:
    good = new_dataset("other")
    with pytest.raises(BadInput, match=f"request 2.*{told}"):
        submit_requests(catalog, [good, document])
    with catalog.read() as session:
        assert requests.list_requests(session) == []


def test_a_request_sent_again_is_the_same(catalog: Catalog) -> None:
    documents = [new_dataset("b"), new_dataset("a")]
    first = submit_requests(catalog, documents)
    assert first == sorted(first), "requests keep the order in which they were sent"
    again = submit_requests(catalog, [*documents, new_dataset("c"), documents[0]])
    assert (again[:2], again[3]) == (first, first[0]) and again[2] > first[1]
    with catalog.read() as session:
        found = requests.list_requests(session)
    assert [info.key for info in found] == ["new c", "new a", "new b"]
    with catalog.read() as session:
        assert [i.key for i in requests.list_requests(session, before=found[0].id, limit=1)] == [
            "new a"
        ]


def test_a_key_with_another_content_is_refused(catalog: Catalog) -> None:
    submit_requests(catalog, [new_dataset("a", "key")])
    for others in (
        [new_dataset("new"), new_dataset("b", "key")],
        [new_dataset("new"), closing("a", "key")],
        [new_dataset("x", "twice"), new_dataset("y", "twice")],
    ):
        with pytest.raises(Conflict, match="was sent before with another content"):
            submit_requests(catalog, others)
    with catalog.read() as session:
        assert [info.key for info in requests.list_requests(session)] == ["key"]


# What they do.


def test_a_dataset_is_made_filled_and_closed(
    catalog: Catalog, storage: StorageInfo, send: Callable[..., list[RequestInfo]]
) -> None:
    files = [written(storage, f"f{i}") for i in range(5)]
    made, filled, one, closed = send(
        new_dataset(), with_files(files[:4]), with_files(files[4:], key="last"), closing()
    )
    assert states([made, filled, one, closed]) == ["DONE"] * 4
    assert filled.reply == {"dataset": "run-1", "files": 4}
    assert closed.reply is not None and closed.reply["files"] == 5
    assert names(catalog) == ["f0", "f1", "f2", "f3", "f4"]
    with catalog.read() as session:
        info = datasets.by_name(session, "run-1")
        member = manifests.members(session, info.id)[0]
    assert (info.state, info.digest) == (DatasetState.CLOSED, closed.reply["digest"])
    assert member.replicas[0].storage_id == storage.id
    assert member.checksum == files[0]["checksum"]


def test_ids_do_as_well_as_names(
    catalog: Catalog, storage: StorageInfo, send: Callable[..., list[RequestInfo]]
) -> None:
    (made,) = send(new_dataset())
    assert made.reply is not None
    number = made.reply["datasetId"]
    entry = {**written(storage, "f"), "storageId": storage.id}
    found = send(with_files([entry], number), closing(number))
    assert states(found) == ["DONE", "DONE"]
    assert {info.lane for info in found} == {"run-1"}, "one dataset, one order"


def test_a_file_without_a_checksum_is_read(
    catalog: Catalog, storage: StorageInfo, send: Callable[..., list[RequestInfo]]
) -> None:
    entry = written(storage, "f", b"content")
    del entry["checksum"]
    assert states(send(new_dataset(), with_files([entry]))) == ["DONE", "DONE"]
    with catalog.read() as session:
        info = datasets.by_name(session, "run-1")
        assert manifests.members(session, info.id)[0].checksum == adler32(b"content")


def test_a_dataset_of_a_request_has_its_lifetime(
    catalog: Catalog, send: Callable[..., list[RequestInfo]]
) -> None:
    assert states(send({**new_dataset(), "lifetime": "2h"}, closing())) == ["DONE", "DONE"]
    with catalog.read() as session:
        info = datasets.by_name(session, "run-1")
    assert info.expires_at is not None and info.closed_at is not None
    assert abs((info.expires_at - info.closed_at).total_seconds() - 7200) < 1


@pytest.fixture
def originals_may_go(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The setting by which requests may remove what was registered in place."""
    monkeypatch.setenv("SPDF_REQUESTS_REMOVE_ORIGINALS", "true")
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@pytest.mark.usefixtures("originals_may_go")
def test_a_dataset_is_deleted_with_its_originals_and_only_then_answered(
    catalog: Catalog, storage: StorageInfo, send: Callable[..., list[RequestInfo]]
) -> None:
    send(new_dataset(), with_files([written(storage, "f")]), closing())
    (asked, again) = send(deleting(removeOriginals=True), closing(key="behind"))
    assert states([asked, again]) == ["QUEUED", "QUEUED"], "what is behind it waits"
    assert asked.begun_at is not None
    with catalog.read() as session:
        info = datasets.by_name(session, "run-1")
        assert queue.ahead(session, again) == 1
    assert info.state is DatasetState.DELETING and Path(storage.url, "f").exists()
    deletion.remove(catalog, info.id)
    assert not Path(storage.url, "f").exists()
    asked, again = send(deleting(removeOriginals=True), closing(key="behind"))
    assert asked.state is RequestState.DONE
    assert "DELETED and can't become CLOSED" in error_of(again)


def test_a_deletion_that_says_nothing_of_originals_leaves_them(
    catalog: Catalog, storage: StorageInfo, send: Callable[..., list[RequestInfo]]
) -> None:
    send(new_dataset(), with_files([written(storage, "f")]), closing(), deleting())
    with catalog.read() as session:
        info = datasets.by_name(session, "run-1")
    assert deletion.remove(catalog, info.id).detached == 1
    (asked,) = send(deleting())
    assert asked.state is RequestState.DONE and Path(storage.url, "f").exists()


@pytest.mark.usefixtures("originals_may_go")
@pytest.mark.parametrize("also", [{}, {"removeOriginals": True}])
def test_a_request_changes_nothing_of_what_a_person_deleted_and_may_take_back(
    catalog: Catalog, storage: StorageInfo, send: Callable[..., list[RequestInfo]],
    also: dict[str, bool],
) -> None:  # fmt: skip
    send(new_dataset(), with_files([written(storage, "f")]), closing())
    with catalog.write() as session:
        made = datasets.by_name(session, "run-1").id
        deletion.mark(session, made, "told", grace_s=86400.0, by_person=True)
        before = datasets.get(session, made)
    (asked,) = send(deleting(**also))
    assert asked.reply is not None and asked.reply["code"] == "CONFLICT"
    told = "by a word that its originals stay" if also else f"until {before.grace_until:%Y-%m-%d}"
    assert told in error_of(asked)
    with catalog.read() as session:
        assert datasets.get(session, made) == before


@pytest.mark.parametrize("again", ["", "deleted again", "cancelled"])
def test_a_request_whose_deletion_was_taken_back_holds_up_nothing(
    catalog: Catalog, storage: StorageInfo, send: Callable[..., list[RequestInfo]], again: str
) -> None:
    send(new_dataset(), with_files([written(storage, "f")]))
    (asked,) = send(deleting())
    assert asked.state is RequestState.QUEUED
    with catalog.write() as session:
        made = datasets.by_name(session, "run-1").id
        # As a program left it that had requests wait for a person's deletion.
        session.execute(sa.update(Dataset).values(grace_until=now(86400.0)))
        if again == "cancelled":
            assert work.cancel(session, asked.id).state is RequestState.ERROR
        grace.undelete(session, made)
        if again == "deleted again":
            deletion.mark(session, made, "told", grace_s=86400.0, by_person=True)
    asked, more = send(deleting(), with_files([written(storage, "g")], key="more"))
    if again == "deleted again":
        assert "may take it back until" in error_of(asked)
        assert more.state is RequestState.ERROR
        return
    assert ("cancelled" if again else "taken back by `spdf dataset undelete`") in error_of(asked)
    assert more.state is RequestState.DONE


def test_a_request_may_remove_originals_only_where_that_is_allowed(
    catalog: Catalog, storage: StorageInfo, send: Callable[..., list[RequestInfo]]
) -> None:
    send(new_dataset(), with_files([written(storage, "f")]), closing())
    (asked,) = send(deleting(removeOriginals=True))
    assert "SPDF_REQUESTS_REMOVE_ORIGINALS is off" in error_of(asked)
    with catalog.read() as session:
        assert datasets.by_name(session, "run-1").state is DatasetState.CLOSED


def test_a_deletion_is_answered_though_another_has_the_name_by_then(
    catalog: Catalog, storage: StorageInfo, send: Callable[..., list[RequestInfo]]
) -> None:
    send(new_dataset(), with_files([written(storage, "f")]), closing(), deleting())
    with catalog.write() as session:
        gone = datasets.by_name(session, "run-1").id
    deletion.remove(catalog, gone)
    with catalog.write() as session:
        made = datasets.create(session, "run-1")
    (asked,) = send(deleting())
    assert asked.state is RequestState.DONE
    with catalog.read() as session:
        assert datasets.get(session, made).state is DatasetState.OPEN


@pytest.mark.parametrize("verify", ["none", "size", "checksum"])
def test_a_file_known_by_another_kind_of_checksum_is_read_and_is_the_same(
    catalog: Catalog, storage: StorageInfo, send: Callable[..., list[RequestInfo]], verify: str
) -> None:
    entry = written(storage, "f")
    md5 = hashlib.md5(Path(storage.url, "f").read_bytes()).hexdigest()
    by_md5 = {**entry, "checksum": f"MD5:{md5.upper()}"}
    found = send(
        new_dataset("run-1"),
        with_files([by_md5], "run-1", "first"),
        new_dataset("run-2"),
        with_files([{**entry, "checksum": None}], "run-2", "read"),
        new_dataset("run-3"),
    )
    assert "only reading the file tells" in error_of(found[3]), "it was looked at before the first"
    with catalog.write() as session:
        queue.retry(session, found[3].id)
    assert states(send(new_dataset("run-4"))) == ["DONE"]
    again = {**with_files([written(storage, "f")], "run-3", "adler"), "verify": verify}
    wrong = {**by_md5, "checksum": "sha256:" + "0" * 64}
    found = send(again, {**with_files([wrong], "run-3", "wrong"), "verify": verify})
    assert found[0].state is RequestState.DONE, found[0].reply
    assert "has the checksum sha256:" in error_of(found[1])
    assert names(catalog, "run-1") == names(catalog, "run-2") == names(catalog, "run-3") == ["f"]
    with catalog.read() as session:
        assert files.find(session, "raw:f").checksum == f"md5:{md5}"


# What can't be done.


def test_unknown_datasets_are_named(
    catalog: Catalog, storage: StorageInfo, send: Callable[..., list[RequestInfo]]
) -> None:
    entry = written(storage, "f")
    found = send(
        with_files([entry], "nowhere"),
        {**with_files([entry], "nowhere", "made"), "kind": "file.process"},
        closing("nowhere"),
        deleting("nowhere"),
        closing(99, "by id"),
    )
    assert states(found) == ["ERROR"] * 5
    assert all("no dataset" in error_of(info) for info in found)
    assert all(info.reply and info.reply["code"] == "NOT_FOUND" for info in found)


def test_files_before_their_dataset_are_refused_and_may_be_tried_again(
    catalog: Catalog, storage: StorageInfo, send: Callable[..., list[RequestInfo]]
) -> None:
    early, made = send(with_files([written(storage, "f")]), new_dataset())
    assert states([early, made]) == ["ERROR", "DONE"]
    with catalog.write() as session:
        assert queue.retry(session, early.id).state is RequestState.QUEUED
    (again,) = send(with_files([written(storage, "f")]))
    assert (again.id, again.state) == (early.id, RequestState.DONE)
    assert names(catalog) == ["f"]
    told = "only one that was answered with ERROR"
    with pytest.raises(StateConflict, match=told), catalog.write() as session:
        queue.retry(session, early.id)


@pytest.mark.parametrize("kind", ["file.input", "file.process"])
def test_a_closed_dataset_takes_no_files(
    catalog: Catalog, storage: StorageInfo, send: Callable[..., list[RequestInfo]], kind: str
) -> None:
    late = {**with_files([written(storage, "f")]), "kind": kind}
    found = send(new_dataset(), closing(), late, closing(key="again"))
    assert states(found) == ["DONE", "DONE", "ERROR", "DONE"]
    assert "is CLOSED" in error_of(found[2])
    assert names(catalog) == []


def test_a_close_that_announces_other_files_leaves_the_dataset_open(
    catalog: Catalog, storage: StorageInfo, send: Callable[..., list[RequestInfo]]
) -> None:
    _, _, early = send(new_dataset(), with_files([written(storage, "a")]), closing(fileCount=2))
    assert early.state is RequestState.DONE and early.reply is not None
    assert (early.reply["waitsFor"], early.reply["have"]) == (2, 1)
    with catalog.read() as session:
        assert datasets.by_name(session, "run-1").state is DatasetState.OPEN
    send(with_files([written(storage, "b")], key="rest"))
    close_due(catalog)
    with catalog.read() as session:
        assert datasets.by_name(session, "run-1").state is DatasetState.CLOSED
    (again,) = send(closing(fileCount=2))
    assert again.state is RequestState.DONE
    (wrong,) = send(closing(fileCount=3, key="other"))
    assert "is CLOSED with 2 files, not the 3 announced" in error_of(wrong)


def test_a_taken_name_is_refused(catalog: Catalog, send: Callable[..., list[RequestInfo]]) -> None:
    _, same, other = send(new_dataset(), new_dataset(), new_dataset(key="another"))
    assert same.state is RequestState.DONE
    assert "exists already" in error_of(other)


@pytest.mark.parametrize("kind", ["file.input", "file.process"])
def test_of_a_bad_file_the_answer_tells_and_none_of_its_request_is_in(
    catalog: Catalog, storage: StorageInfo, send: Callable[..., list[RequestInfo]], kind: str
) -> None:
    good = [written(storage, f"g{i}") for i in range(3)]
    wrong = {**written(storage, "wrong"), "size": 3}
    absent = {**written(storage, "absent")}
    Path(storage.url, "absent").unlink()
    nowhere = {**written(storage, "x"), "storageId": "nowhere"}
    bad = {**with_files([good[0], wrong, absent, nowhere, good[1]]), "kind": kind}
    _, refused, done = send(new_dataset(), bad, with_files(good, key="good"))
    assert refused.reply is not None
    told = {item["path"]: item["error"] for item in refused.reply["files"]}
    assert set(told) == {"wrong", "absent", "x"}
    assert "has 5 bytes, not the 3 given" in told["wrong"]
    assert "not there" in told["absent"] and "no storage" in told["x"]
    assert done.state is RequestState.DONE
    assert names(catalog) == ["g0", "g1", "g2"]


def test_of_a_file_that_the_catalog_knows_otherwise_the_answer_tells(
    catalog: Catalog, storage: StorageInfo, send: Callable[..., list[RequestInfo]]
) -> None:
    known, new = written(storage, "known"), written(storage, "new")
    other = {**known, "checksum": "adler32:00000001"}
    found = send(
        new_dataset(), with_files([known]), with_files([new, other], key="other"),
        with_files([new], key="after"),
    )  # fmt: skip
    assert states(found) == ["DONE", "DONE", "ERROR", "DONE"]
    assert found[2].reply is not None
    (told,) = found[2].reply["files"]
    assert told["path"] == "known" and "other bytes need another name" in told["error"]
    assert names(catalog) == ["known", "new"]


def test_a_wrong_checksum_is_found_where_it_is_to_be_looked_for(
    catalog: Catalog, storage: StorageInfo, send: Callable[..., list[RequestInfo]]
) -> None:
    wrong = {**written(storage, "f"), "checksum": "md5:" + 32 * "0"}
    _, refused, trusted = send(
        new_dataset(),
        with_files([wrong], verify="checksum"),
        with_files([wrong], key="trusted", verify="size"),
    )
    assert "has the checksum md5:" in error_of(refused)
    assert trusted.state is RequestState.DONE


@pytest.mark.parametrize("linked", ["f", "run", "run/sub"])
def test_what_lies_behind_a_link_is_not_registered(
    catalog: Catalog, storage: StorageInfo, send: Callable[..., list[RequestInfo]],
    tmp_path: Path, linked: str,
) -> None:  # fmt: skip
    target = tmp_path / "outside"
    path = linked if linked == "f" else f"{linked}/f"
    entry = written(storage, path)
    Path(storage.url, linked).rename(target)
    Path(storage.url, linked).symlink_to(target)
    found = send(new_dataset(), with_files([entry]))
    assert f"{Path(storage.url, linked)} is a symbolic link" in error_of(found[1])
    assert names(catalog) == []


@pytest.mark.parametrize("given", ["nothing", "checksum", "another kind"])
def test_a_file_that_grows_while_it_is_read_is_not_registered(
    catalog: Catalog, storage: StorageInfo, send: Callable[..., list[RequestInfo]],
    monkeypatch: pytest.MonkeyPatch, given: str,
) -> None:  # fmt: skip
    entry, real = written(storage, "f", b"content"), LocalDriver.read
    if given == "another kind":
        send(new_dataset("run-0"), with_files([entry], "run-0", "before"))
        entry["checksum"] = f"md5:{hashlib.md5(b'content').hexdigest()}"
    elif given == "nothing":
        del entry["checksum"]

    def read_it(self: LocalDriver, path: str, algorithm: str) -> Reading:
        found = real(self, path, algorithm)
        with Path(storage.url, path).open("ab") as file:
            file.write(b" and more")
        return found

    monkeypatch.setattr(LocalDriver, "read", read_it)
    found = send(new_dataset(), with_files([entry], verify="checksum"))
    assert "changed while it was read" in error_of(found[1])
    assert names(catalog) == []


@pytest.mark.parametrize("verify", ["none", "size", "checksum"])
@pytest.mark.parametrize("state", [ReplicaState.BAD, ReplicaState.MISSING])
def test_a_repeated_request_makes_nothing_available_that_it_has_not_read(
    catalog: Catalog, storage: StorageInfo, send: Callable[..., list[RequestInfo]],
    verify: str, state: ReplicaState,
) -> None:  # fmt: skip
    """The checksum that a copy once had says nothing of the bytes that are there."""
    entry = written(storage, "f", b"content")
    send(new_dataset(), with_files([entry]))
    with catalog.write() as session:
        move(session, Replica, [1], state)
    place = Path(storage.url, "f")
    place.write_bytes(b"CONTENT")
    os.utime(place, (5, 5))
    (found,) = send(with_files([entry], key="again", verify=verify))
    assert "has the checksum" in error_of(found)
    place.write_bytes(b"content")
    (found,) = send(with_files([entry], key="whole", verify=verify))
    assert found.state is RequestState.DONE
    with catalog.read() as session:
        row = session.execute(sa.select(col(Replica.state), col(Replica.mtime_us))).one()
    assert row == (ReplicaState.AVAILABLE, of_stat(place.stat()).mtime_us)


def test_a_known_file_that_was_written_to_since_is_read_and_one_that_was_not_is_not(
    catalog: Catalog, storage: StorageInfo, send: Callable[..., list[RequestInfo]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    entries = [written(storage, name) for name in ("a", "b")]
    send(new_dataset(), with_files(entries))
    os.utime(Path(storage.url, "b"), (5, 5))
    seen, real = [], LocalDriver.read

    def noted(self: LocalDriver, path: str, algorithm: str) -> Reading:
        seen.append(path)
        return real(self, path, algorithm)

    monkeypatch.setattr(LocalDriver, "read", noted)
    for number in (2, 3):
        send(new_dataset(f"run-{number}"), with_files(entries, f"run-{number}", f"{number}"))
        assert names(catalog, f"run-{number}") == ["a", "b"]
    assert seen == ["b"], "once: then it has its new stamp"
    Path(storage.url, "a").write_bytes(b"A")
    os.utime(Path(storage.url, "a"), (5, 5))
    _, refused = send(new_dataset("run-4"), with_files(entries, "run-4", "4"))
    assert "has the checksum" in error_of(refused)


def test_the_good_requests_of_a_window_are_done_beside_bad_ones(
    catalog: Catalog, storage: StorageInfo, send: Callable[..., list[RequestInfo]]
) -> None:
    documents = [new_dataset("run-1"), new_dataset("run-2")]
    for i in range(40):
        dataset = "nowhere" if i % 13 == 7 else f"run-{1 + i % 2}"
        documents.append(with_files([written(storage, f"f{i:02}")], dataset, f"k{i}"))
    found = send(*documents)
    bad = [info.key for info in found if info.state is RequestState.ERROR]
    assert bad == ["k7", "k20", "k33"]
    for number in (1, 2):
        mine = [f"f{i:02}" for i in range(40) if i % 2 == number - 1 and i % 13 != 7]
        assert names(catalog, f"run-{number}") == mine, "in the order of the requests"


def test_requests_wait_while_their_storage_is_away(
    catalog: Catalog, storage: StorageInfo, tmp_path: Path, processor: Processor,
    send: Callable[..., list[RequestInfo]],
) -> None:  # fmt: skip
    with catalog.write() as session:
        other = storages.add(
            session, "other", StorageKind.LOCAL, StorageRole.INPUT, str(tmp_path / "other")
        )
    here, there = written(storage, "here"), written(other, "there")
    aside = tmp_path / "aside"
    Path(other.url).rename(aside)
    documents = [
        new_dataset("run-1"), new_dataset("run-2"), with_files([there], "run-1", "there"),
        closing("run-1"), with_files([here], "run-2", "here"),
    ]  # fmt: skip
    assert states(send(*documents)) == ["DONE", "DONE", "QUEUED", "QUEUED", "DONE"]
    aside.rename(other.url)
    processor.try_again()
    assert states(send(*documents)) == ["DONE"] * 5
    assert names(catalog, "run-1") == ["there"]


def test_a_storage_that_is_away_is_not_tried_by_every_request_that_needs_it(
    catalog: Catalog, storage: StorageInfo, processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each try may take as long as a connection's time limit, and others wait meanwhile."""
    tries = []

    def away(_driver: LocalDriver, path: str) -> None:
        tries.append(path)
        raise StorageError(ErrorCode.STORAGE_UNAVAILABLE, "it is away")

    names = [f"d{i}" for i in range(60)]
    submit_requests(catalog, [new_dataset(name) for name in names])
    processor.turn()
    entry = written(storage, "f")
    submit_requests(catalog, [with_files([entry], name, f"files {name}") for name in names])
    monkeypatch.setattr(LocalDriver, "stat", away)
    monkeypatch.setattr(LocalDriver, "list", away)
    for _ in range(3):
        assert processor.turn() == 0
    assert 1 <= len(tries) <= 8, "as many as look at the same time, once"
    monkeypatch.undo()
    processor.try_again()
    assert processor.turn() == len(names)


def test_a_request_that_another_has_answered_is_not_answered_again(catalog: Catalog) -> None:
    (request,) = submit_requests(catalog, [closing()])
    for state in (RequestState.DONE, RequestState.ERROR):
        with catalog.write() as session:
            if state is RequestState.DONE:
                queue.answer(session, [Answer(request, state, {})])
                continue
            with pytest.raises(Conflict, match="answered by another"):
                queue.answer(session, [Answer(request, state, {})])
    with catalog.read() as session:
        assert requests.get(session, request).state is RequestState.DONE


def test_a_request_of_a_newer_program_is_answered(
    catalog: Catalog, send: Callable[..., list[RequestInfo]]
) -> None:
    from catalog.bulk import insert_new
    from catalog.models import Request

    row = {"kind": "file.moved", "key": "k", "lane": "", "payload": {}, "state": "QUEUED"}
    with catalog.write() as session:
        insert_new(session, Request, [row], Request.id)
    send()
    with catalog.read() as session:
        assert "kind 'file.moved'" in error_of(queue.by_key(session, "k"))
        with pytest.raises(NotFound):
            queue.find(session, "nothing")


# Windows, of which the next is read while one is done.


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processing, "MOST", 2)
    monkeypatch.setattr(processing, "MOST_FILES", 3)


def interleaved(storage: StorageInfo) -> list[dict[str, Any]]:
    """Requests of two datasets in turn; a closed one refuses what comes behind its close."""
    documents = [new_dataset("run-1"), new_dataset("run-2")]
    for n in range(4):
        for run in ("run-1", "run-2"):
            documents.append(with_files([written(storage, f"{run}-{n}")], run, f"{run} {n}"))
    documents += [closing("run-1", fileCount=4), closing("run-2", "close 2", fileCount=4)]
    return documents


def are_done_in_order(catalog: Catalog, ids: Sequence[int]) -> bool:
    """Whether the requests of `interleaved` are done, each dataset's files in their order."""
    with catalog.read() as session:
        done = set(states([requests.get(session, i) for i in ids])) == {"DONE"}
        found = {
            run: [m.name for m in manifests.all_members(session, datasets.by_name(session, run).id)]
            for run in ("run-1", "run-2")
        }
    return done and found == {run: [f"{run}-{n}" for n in range(4)] for run in found}


@pytest.mark.usefixtures("small_windows")
def test_order_holds_over_many_windows(
    catalog: Catalog, storage: StorageInfo, processor: Processor
) -> None:
    ids = submit_requests(catalog, interleaved(storage))
    assert do_all(catalog, processor) >= len(ids) // 2
    assert are_done_in_order(catalog, ids)


@pytest.mark.usefixtures("small_windows")
def test_a_window_is_read_while_the_one_before_is_done(
    catalog: Catalog, storage: StorageInfo, processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit_requests(catalog, interleaved(storage))
    read: list[tuple[bool, tuple[int, ...]]] = []
    before = processor._read

    def reading(besides: Sequence[int]) -> processing.Window:
        ours = threading.current_thread() is threading.main_thread()
        read.append((ours, tuple(besides)))
        return before(besides)

    monkeypatch.setattr(processor, "_read", reading)
    do_all(catalog, processor)
    assert read[:3] == [(True, ()), (False, (1, 2)), (False, (3, 4))]


@pytest.mark.usefixtures("small_windows")
def test_a_window_that_fails_takes_with_it_what_was_read_ahead(
    catalog: Catalog, storage: StorageInfo, processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = submit_requests(catalog, interleaved(storage))
    assert processor.turn() == 2
    answer, failed = queue.answer, []

    def failing(session: Session, answers: Sequence[Answer]) -> None:
        if not failed:
            failed.append(True)
            raise OperationalError("an outage", None, Exception("away"))
        answer(session, answers)

    monkeypatch.setattr(queue, "answer", failing)
    with pytest.raises(OperationalError):
        processor.turn()
    do_all(catalog, processor)
    assert are_done_in_order(catalog, ids)


@pytest.mark.usefixtures("small_windows")
def test_nothing_is_read_ahead_of_long_work_or_of_a_request_that_waits(
    catalog: Catalog, storage: StorageInfo, processor: Processor, tmp_path: Path
) -> None:
    submit_requests(catalog, [new_dataset("run-1"), closing("run-1")])
    submit_requests(catalog, [deleting("run-1"), new_dataset("run-2")])
    assert [processor.turn(), processor.turn()] == [2, 2]
    assert processor._ahead is None
    waits = with_files([written(storage, "a")], "run-2", "waits")
    behind = closing("run-2", "close 2", fileCount=1)
    ids = submit_requests(catalog, [waits, behind])
    aside = tmp_path / "aside"
    Path(storage.url).rename(aside)
    processor.turn()
    assert processor._ahead is None
    with catalog.read() as session:
        assert states([requests.get(session, i) for i in ids]) == ["QUEUED", "QUEUED"]


@pytest.mark.usefixtures("small_windows")
def test_a_request_with_more_files_than_a_window_is_done_alone(
    catalog: Catalog, storage: StorageInfo, processor: Processor
) -> None:
    large = with_files([written(storage, name) for name in "abcde"])
    submit_requests(catalog, [new_dataset("run-1"), large, closing("run-1", fileCount=5)])
    assert [processor.turn() for _ in range(4)] == [1, 1, 1, 0]
    assert names(catalog) == list("abcde")


# Dying at every step.

TURNS = """
from catalog.db import Catalog
from catalog import datasets, deletion
from catalog.requests.processor import Processor
import sys
catalog = Catalog(sys.argv[1])
processor = Processor(catalog, lambda session: None)
for _ in range(5):
    processor.turn()
    with catalog.read() as session:
        going = datasets.deleting(session)
    for info in going:
        deletion.remove(catalog, info.id)
processor.close()
"""


def turns(catalog_url: str, failpoint: str | None) -> int:
    line = [sys.executable, "-c", TURNS, catalog_url]
    env = dict(os.environ) | {"SPDF_REQUESTS_REMOVE_ORIGINALS": "1"}
    env |= {VARIABLE: failpoint} if failpoint else {}
    root = Path(__file__).resolve().parents[2]
    return subprocess.run(line, env=env, cwd=root, timeout=60, check=False).returncode


@pytest.mark.parametrize(
    "failpoint",
    [
        "requests.looked",
        "requests.done",
        "requests.answered",
        "requests.committed",
        "deletion.marked",
        "deletion.removed",
        "deletion.ends",
    ],
)
def test_killed_at_any_step_the_outcome_is_as_if_it_had_run_once(
    catalog: Catalog, catalog_url: str, storage: StorageInfo, failpoint: str
) -> None:
    documents = [
        new_dataset("run-1"),
        with_files([written(storage, "a"), written(storage, "b")]),
        {**with_files([written(storage, "c")], key="made"), "kind": "file.process"},
        with_files([{**written(storage, "d"), "size": 99}], key="bad"),
        closing("run-1", fileCount=3),
        new_dataset("run-2"),
        with_files([written(storage, "e")], "run-2", "e"),
        with_files([written(storage, "a")], "run-2", "shared"),
        closing("run-2", "close 2"),
        deleting("run-2", removeOriginals=True),
    ]
    ids = submit_requests(catalog, documents)
    assert turns(catalog_url, failpoint) == -signal.SIGKILL, f"{failpoint} was never reached"
    assert inspect(catalog, storage.id, Options(100.0)).found == 0
    assert submit_requests(catalog, documents) == ids
    assert turns(catalog_url, None) == 0
    with catalog.read() as session:
        found = [requests.get(session, request_id) for request_id in ids]
        gone = datasets.by_name(session, "run-2")
    assert states(found) == ["DONE"] * 3 + ["ERROR"] + ["DONE"] * 6, json.dumps(
        [info.reply for info in found]
    )
    assert names(catalog) == ["a", "b", "c"]
    assert gone.state is DatasetState.DELETED
    left = sorted(path.name for path in Path(storage.url).glob("[!.]*"))
    assert left == ["a", "b", "c", "d"], "bytes that another dataset holds stay"
    Path(storage.url, "d").unlink()
    assert inspect(catalog, storage.id, Options(100.0, grace_s=0.0)).found == 0
