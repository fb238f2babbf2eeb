"""Names and paths that come back after a deletion: free again, and never mixed with what was."""

import threading
import zlib
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import (
    causes,
    datasets,
    definition,
    deletion,
    detached,
    events,
    files,
    lineage,
    manifests,
    removal,
    templates,
    workflows,
)
from catalog.datasets import Member
from catalog.db import Catalog
from catalog.errors import Conflict
from catalog.filenames import OtherAlgorithm
from catalog.files import NewFileRow
from catalog.models import Replica
from catalog.refs import Originals
from catalog.requests import parse, submit
from catalog.states import DatasetState, ReplicaState
from catalog.storages import StorageInfo


def row_of(storage: StorageInfo, name: str, content: str, path: str = "") -> NewFileRow:
    """A file of that content, which is there."""
    place = Path(storage.url, path or name)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    place.write_text(content)
    digest = f"adler32:{zlib.adler32(content.encode()):08x}"
    return NewFileRow(storage.name, name, path or name, len(content), digest)


def fill(catalog: Catalog, storage: StorageInfo, name: str, row: NewFileRow) -> tuple[int, int]:
    """A new CLOSED dataset of one file; gives both ids."""
    with catalog.write() as session:
        made = datasets.create(session, name)
        (file_id,) = files.register(session, storage.id, [row])
        datasets.attach(session, made, [Member(file_id, row.name)])
        datasets.close(session, made)
    return made, file_id


def delete(catalog: Catalog, dataset_id: int, by: Originals | None = None) -> None:
    with catalog.write() as session:
        deletion.mark(session, dataset_id, "a test", by=by)
    assert deletion.remove(catalog, dataset_id).faults == ()


def copies(catalog: Catalog, file_id: int) -> list[tuple[str, ReplicaState]]:
    with catalog.read() as session:
        return [(r.path, r.state) for r in files.all_replicas(session, file_id)]


def test_a_deleted_datasets_name_is_free_and_the_old_one_is_found_by_its_own(
    catalog: Catalog, storage: StorageInfo
) -> None:
    first, _ = fill(catalog, storage, "run-1", row_of(storage, "a", "one"))
    delete(catalog, first)
    with catalog.read() as session:
        assert datasets.by_name(session, "run-1").state is DatasetState.DELETED
    second, _ = fill(catalog, storage, "run-1", row_of(storage, "b", "two"))
    with catalog.read() as session:
        assert datasets.by_name(session, "run-1").id == second
        old = datasets.by_name(session, f"run-1#{first}")
        assert (old.id, old.state) == (first, DatasetState.DELETED)
        listed = [info.name for info in datasets.list_datasets(session, mask="run-*")]
        assert listed == ["run-1", f"run-1#{first}"]
        assert events.history(session, "dataset", first)[-1].after == datasets.RENAMED
        assert [m.name for m in manifests.all_members(session, first)] == ["a"]
        assert manifests.content(session, first).digest == old.digest
    delete(catalog, second)
    third, _ = fill(catalog, storage, "run-1", row_of(storage, "c", "three"))
    assert len({first, second, third}) == 3


def test_a_name_that_is_alive_or_going_is_not_free(catalog: Catalog, storage: StorageInfo) -> None:
    with catalog.write() as session:
        made = datasets.create(session, "run-1")
        with pytest.raises(Conflict, match="exists already; choose another name"):
            datasets.create(session, "run-1")
        deletion.mark(session, made, "a test", grace_s=60)
        with pytest.raises(Conflict, match="`spdf dataset undelete run-1` takes it back"):
            datasets.create(session, "run-1")
        deletion.mark(session, made, "a test", by_person=True)
        with pytest.raises(Conflict, match="its name is free once it is DELETED"):
            datasets.create(session, "run-1")
        assert datasets.is_taken(session, "run-1")
    deletion.remove(catalog, made)
    with catalog.write() as session:
        assert not datasets.is_taken(session, "run-1")


def test_identical_bytes_come_back_to_their_name_and_path(
    catalog: Catalog, storage: StorageInfo
) -> None:
    row = row_of(storage, "run-1/a", "one")
    first, file_id = fill(catalog, storage, "run-1", row)
    delete(catalog, first)
    second, again = fill(catalog, storage, "run-1", row)
    assert again == file_id, "the same file, with its lineage"
    gone = f"run-1/a//{1}"
    assert copies(catalog, file_id) == [
        (gone, ReplicaState.DELETED),
        ("run-1/a", ReplicaState.AVAILABLE),
    ]
    with catalog.read() as session:
        assert detached.listing(session) == [], "it is registered again"
    delete(catalog, second, Originals.BY_WORD)
    assert not Path(storage.url, "run-1/a").exists()


def test_other_bytes_may_take_a_name_whose_copies_are_all_deleted(
    catalog: Catalog, storage: StorageInfo
) -> None:
    first, old = fill(catalog, storage, "run-1", row_of(storage, "a", "one"))
    delete(catalog, first)
    _, new = fill(catalog, storage, "run-2", row_of(storage, "a", "another"))
    assert new != old
    with catalog.read() as session:
        assert files.find(session, "raw:a").id == new
        before = files.by_ids(session, [old])[old]
        assert (before.name, before.size_bytes) == (f"a//{old}", 3)
        assert files.find(session, f"raw:a//{old}").id == old
        assert lineage.lineage(session, old).steps[0].file.id == old
        assert [m.id for m in manifests.all_members(session, first)] == [old]
    assert copies(catalog, new) == [("a", ReplicaState.AVAILABLE)]


def test_other_bytes_under_a_name_that_is_alive_are_answered(
    catalog: Catalog, storage: StorageInfo
) -> None:
    fill(catalog, storage, "run-1", row_of(storage, "a", "one"))
    with catalog.write() as session:
        other = row_of(storage, "a", "another", path="b")
        with pytest.raises(Conflict, match="other bytes need another name while a copy"):
            files.register(session, storage.id, [other])
        same_path = NewFileRow("retake", "a", "a", 7, other.checksum)
        with pytest.raises(Conflict, match="a path holds one file only"):
            files.register(session, storage.id, [same_path])


def test_other_bytes_wait_for_a_name_whose_copy_is_being_deleted(
    catalog: Catalog, storage: StorageInfo
) -> None:
    row = row_of(storage, "a", "one")
    fill(catalog, storage, "run-1", row)
    with catalog.write() as session:
        removal.doom(session, removal.lock(session, sa.true()), "a test")
        with pytest.raises(Conflict, match="other bytes need another name"):
            files.register(session, storage.id, [row_of(storage, "a", "another")])
        with pytest.raises(Conflict, match="is being deleted; register it once it is DELETED"):
            files.register(session, storage.id, [row])


def test_a_name_that_a_living_dataset_holds_stays_its_own_without_a_copy(
    catalog: Catalog, storage: StorageInfo
) -> None:
    fill(catalog, storage, "run-1", row_of(storage, "a", "one"))
    with catalog.write() as session:
        session.execute(sa.update(Replica).values(state=ReplicaState.DELETED))
    with catalog.write() as session, pytest.raises(Conflict, match="other bytes need another"):
        files.register(session, storage.id, [row_of(storage, "a", "another")])


def test_two_files_of_one_name_at_once_are_refused_after_a_deletion_too(
    catalog: Catalog, storage: StorageInfo
) -> None:
    first, _ = fill(catalog, storage, "run-1", row_of(storage, "a", "one"))
    delete(catalog, first)
    two = [row_of(storage, "a", "another", path="x"), row_of(storage, "a", "a third", path="y")]
    with pytest.raises(Conflict, match="other bytes need another name"), catalog.write() as session:
        files.register(session, storage.id, two)
    with catalog.read() as session:
        assert files.find(session, "raw:a").size_bytes == 3, "nothing was changed"


def test_many_come_back_at_once_with_others_that_are_new(
    catalog: Catalog, storage: StorageInfo
) -> None:
    names = [f"f{number:03}" for number in range(300)]
    rows = [row_of(storage, name, "one") for name in names]
    with catalog.write() as session:
        made = datasets.create(session, "run-1")
        ids = files.register(session, storage.id, rows)
        datasets.attach(session, made, [*map(Member, ids, names)])
    delete(catalog, made)
    changed = [row_of(storage, name, "other" if name < "f100" else "one") for name in names]
    fresh = [row_of(storage, f"g{number}", "new") for number in range(5)]
    with catalog.write() as session:
        again = files.register(session, storage.id, [*changed, *fresh])
    assert [new == old for new, old in zip(again, ids, strict=False)] == [False] * 100 + [
        True
    ] * 200
    with catalog.read() as session:
        assert all(len(refs) == 1 for refs in files.replicas(session, again).values())


def test_who_registers_other_bytes_at_once_gets_one_file(
    catalog: Catalog, storage: StorageInfo
) -> None:
    first, _ = fill(catalog, storage, "run-1", row_of(storage, "a", "one"))
    delete(catalog, first)
    row = row_of(storage, "a", "another")
    found: list[int] = []

    def register() -> None:
        with catalog.write() as session:
            found.extend(files.register(session, storage.id, [row]))

    threads = [threading.Thread(target=register) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(set(found)) == 1
    assert copies(catalog, found[0]) == [("a", ReplicaState.AVAILABLE)]


def defined(session: Session, template_id: int, dataset_id: int, storage: StorageInfo) -> set[str]:
    """A workflow with one output; gives the names of its datasets."""
    task = definition.NewTask("cut", "cpu", 0, outputs={"head": storage.id})
    _, new = definition.define(session, template_id, dataset_id, [task], inputs={}, rank=1)
    assert new
    return {row.name for row in datasets.list_datasets(session) if row.derived}


def test_outputs_for_a_name_that_was_used_before_have_names_of_their_own(
    catalog: Catalog, storage: StorageInfo
) -> None:
    with catalog.write() as session:
        template = templates.create(session, "reco", "*", {}, {}, "reco")
        templates.activate(session, template.id)
        first = datasets.create(session, "run-1")
        assert defined(session, template.id, first, storage) == {"run-1.reco.v1.cut.head"}
        workflows.cancel(session, 1, "a test")
    delete(catalog, first)
    with catalog.write() as session:
        second = datasets.create(session, "run-1")
        made = defined(session, template.id, second, storage)
    assert made == {"run-1.reco.v1.cut.head", "run-1.reco.v1.r2.cut.head"}


def test_why_tells_of_the_new_ones_requests_alone(catalog: Catalog, storage: StorageInfo) -> None:
    with catalog.write() as session:
        first = datasets.create(session, "run-1")
        close = {"kind": "dataset.close", "key": "k", "datasetId": "run-1"}
        (asked,) = submit(session, [parse(close)])
        session.execute(
            sa.text("UPDATE request SET state = 'ERROR', ended_at = created_at WHERE id = :i"),
            {"i": asked},
        )
        told = [c.fact for c in causes.why_dataset(session, datasets.get(session, first))]
        assert any(f"request {asked}" in fact for fact in told)
    delete(catalog, first)
    with catalog.write() as session:
        made = datasets.get(session, datasets.create(session, "run-1"))
        told = [c.fact for c in causes.why_dataset(session, made)]
    assert not any("request" in fact for fact in told)


def test_another_kind_of_checksum_is_no_other_file_and_the_error_says_so(
    catalog: Catalog, storage: StorageInfo
) -> None:
    fill(catalog, storage, "run-1", row_of(storage, "a", "one"))
    with catalog.write() as session:
        row = NewFileRow("raw", "a", "a", 3, "md5:f97c5d29941bfb1b2fdab0874906ab82")
        with pytest.raises(OtherAlgorithm, match="only reading the file tells"):
            files.register(session, storage.id, [row])
        known = session.scalars(sa.select(col(Replica.state))).all()
    assert known == [ReplicaState.AVAILABLE]
