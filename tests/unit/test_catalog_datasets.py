"""Datasets: attaching, closing, listing."""

import hashlib
from collections.abc import Callable, Sequence

import pytest

from catalog import datasets, events, files, manifests
from catalog.datasets import Member
from catalog.db import Catalog
from catalog.errors import BadName, Conflict, NotFound, StateConflict
from catalog.files import NewFileRow
from catalog.models import Dataset
from catalog.states import DatasetState
from catalog.storages import StorageInfo
from catalog.transitions import move

AddFiles = Callable[[int, Sequence[str]], list[int]]


@pytest.fixture
def dataset(catalog: Catalog) -> int:
    with catalog.write() as session:
        return datasets.create(session, "run-1")


def names_of(catalog: Catalog, dataset_id: int) -> list[str]:
    with catalog.read() as session:
        return [member.name for member in manifests.all_members(session, dataset_id)]


def test_a_new_dataset_is_open_and_has_an_event(catalog: Catalog, dataset: int) -> None:
    with catalog.read() as session:
        info = datasets.by_name(session, "run-1")
        (event,) = events.history(session, "dataset", dataset)
    assert (info.id, info.state, info.derived, info.file_count) == (
        dataset, DatasetState.OPEN, False, None,
    )  # fmt: skip
    assert (event.before, event.after) == (None, "OPEN")


def test_a_taken_name_is_refused(catalog: Catalog, dataset: int) -> None:
    with pytest.raises(Conflict, match="'run-1' exists already"), catalog.write() as session:
        datasets.create(session, "run-1")


@pytest.mark.parametrize("name", ["../x", "a/b", ""])
def test_a_bad_name_is_refused(catalog: Catalog, name: str) -> None:
    with pytest.raises(BadName), catalog.write() as session:
        datasets.create(session, name)


def test_an_unknown_dataset_is_not_found(catalog: Catalog) -> None:
    with catalog.write() as session:
        with pytest.raises(NotFound):
            datasets.by_name(session, "nothing")
        with pytest.raises(NotFound):
            datasets.attach(session, 99, [Member(1, "a")])
        with pytest.raises(NotFound):
            datasets.close(session, 99)


def test_files_keep_the_order_in_which_they_were_attached(
    catalog: Catalog, dataset: int, add_files: AddFiles
) -> None:
    add_files(dataset, ["z", "a"])
    add_files(dataset, ["m"])
    assert names_of(catalog, dataset) == ["z", "a", "m"]


def test_attaching_again_changes_nothing(
    catalog: Catalog, dataset: int, add_files: AddFiles
) -> None:
    ids = add_files(dataset, ["a", "b"])
    with catalog.write() as session:
        again = [Member(ids[0], "a"), Member(ids[0], "a"), Member(ids[1], "other-name")]
        assert datasets.attach(session, dataset, again) == 0
    add_files(dataset, ["b", "c"])
    assert names_of(catalog, dataset) == ["a", "b", "c"]


def test_another_file_of_the_same_name_is_refused_and_nothing_is_attached(
    catalog: Catalog,
    dataset: int,
    storage: StorageInfo,
    add_files: AddFiles,
    new_rows: Callable[..., list[NewFileRow]],
) -> None:
    add_files(dataset, ["a"])
    with catalog.write() as session:
        other, third = files.register(session, storage.id, new_rows("b", "c"))
    with pytest.raises(Conflict, match="another file called 'a'"), catalog.write() as session:
        datasets.attach(session, dataset, [Member(third, "c"), Member(other, "a")])
    with pytest.raises(Conflict, match="two files"), catalog.write() as session:
        datasets.attach(session, dataset, [Member(third, "c"), Member(other, "c")])
    assert names_of(catalog, dataset) == ["a"]


def test_close_stores_count_bytes_and_digest(
    catalog: Catalog, dataset: int, add_files: AddFiles
) -> None:
    ids = add_files(dataset, ["zz", "a"])
    with catalog.write() as session:
        info = datasets.close(session, dataset)
        found = files.by_ids(session, ids)
    lines = "".join(f"{f.name}\t{f.size_bytes}\t{f.checksum}\n" for f in map(found.get, ids) if f)
    assert info.state is DatasetState.CLOSED
    assert (info.file_count, info.size_bytes) == (2, 3)
    assert info.digest == f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"
    assert info.closed_at is not None


def test_an_empty_dataset_closes_with_zeros(catalog: Catalog, dataset: int) -> None:
    with catalog.write() as session:
        info = datasets.close(session, dataset)
    assert (info.file_count, info.size_bytes) == (0, 0)
    assert info.digest == f"sha256:{hashlib.sha256(b'').hexdigest()}"


def test_closing_again_gives_the_same(catalog: Catalog, dataset: int, add_files: AddFiles) -> None:
    add_files(dataset, ["a"])
    with catalog.write() as session:
        first = datasets.close(session, dataset)
    with catalog.write() as session:
        assert datasets.close(session, dataset) == first
        assert len(events.history(session, "dataset", dataset)) == 2


def test_a_closed_dataset_never_changes(
    catalog: Catalog, dataset: int, add_files: AddFiles
) -> None:
    ids = add_files(dataset, ["a"])
    with catalog.write() as session:
        datasets.close(session, dataset)
    with pytest.raises(StateConflict, match="'run-1' is CLOSED and can't be changed"):
        add_files(dataset, ["b"])
    with pytest.raises(StateConflict, match="CLOSED"), catalog.write() as session:
        datasets.detach(session, dataset, ids)
    with catalog.write() as session:
        assert datasets.lock_open(session, [dataset]) == []
    assert names_of(catalog, dataset) == ["a"]


def test_a_dataset_that_goes_cannot_be_closed(catalog: Catalog, dataset: int) -> None:
    with catalog.write() as session:
        move(session, Dataset, [dataset], DatasetState.DELETING)
    with pytest.raises(StateConflict, match="DELETING"), catalog.write() as session:
        datasets.close(session, dataset)


def test_detached_files_leave_and_may_come_back(
    catalog: Catalog, dataset: int, add_files: AddFiles
) -> None:
    ids = add_files(dataset, ["a", "b"])
    with catalog.write() as session:
        assert datasets.detach(session, dataset, [ids[0], 999]) == 1
    add_files(dataset, ["a"])
    assert names_of(catalog, dataset) == ["b", "a"]


def test_lock_open_gives_those_that_are_open_in_order(catalog: Catalog) -> None:
    with catalog.write() as session:
        ids = [datasets.create(session, name) for name in ("a", "b", "c")]
        datasets.close(session, ids[1])
        assert datasets.lock_open(session, [ids[2], ids[1], ids[0], 999]) == [ids[0], ids[2]]


def test_members_are_paged_in_order_with_their_places(
    catalog: Catalog, dataset: int, storage: StorageInfo, add_files: AddFiles
) -> None:
    names = [f"f{i % 7}-{i}" for i in range(25)]
    add_files(dataset, names)
    seen: list[str] = []
    after = None
    with catalog.read() as session:
        while page := manifests.members(session, dataset, after=after, limit=4):
            assert len(page) <= 4
            seen += [member.name for member in page]
            assert all(m.replicas[0].storage_id == storage.id for m in page)
            assert all(m.replicas[0].path == m.name == m.key for m in page)
            after = page[-1].cursor
    assert seen == names


def test_more_files_than_one_page_are_all_read(
    catalog: Catalog, dataset: int, add_files: AddFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"f{i}" for i in range(20)]
    add_files(dataset, names)
    with catalog.read() as session:
        whole = manifests.content(session, dataset).digest
        monkeypatch.setattr(manifests, "DIGEST_PAGE", 3)
        monkeypatch.setattr(manifests, "PAGE", 3)
        assert manifests.content(session, dataset).digest == whole
    assert names_of(catalog, dataset) == names


def test_totals_are_of_now(catalog: Catalog, dataset: int, add_files: AddFiles) -> None:
    with catalog.write() as session:
        empty = datasets.create(session, "empty")
    add_files(dataset, ["a", "bcd"])
    with catalog.read() as session:
        found = manifests.totals(session, [dataset, empty])
    assert (found[dataset].files, found[dataset].size_bytes) == (2, 4)
    assert (found[empty].files, found[empty].size_bytes) == (0, 0)


def test_datasets_are_listed_by_mask_and_state_in_pages(catalog: Catalog) -> None:
    with catalog.write() as session:
        for name in ("run-3", "run-1", "RUN-1", "cosmic", "run-2", "run_2", "r"):
            dataset_id = datasets.create(session, name)
            if name == "run-2":
                datasets.close(session, dataset_id)

    def listed(**options: object) -> list[str]:
        with catalog.read() as session:
            return [d.name for d in datasets.list_datasets(session, **options)]  # type: ignore

    assert listed(mask="run-*") == ["run-1", "run-2", "run-3"]
    assert listed(mask="run-[13]") == ["run-1", "run-3"]
    assert listed(mask="run-*", state=DatasetState.CLOSED) == ["run-2"]
    assert listed(mask="*", limit=2, after="run-1") == listed()[listed().index("run-1") + 1 :][:2]
    assert len(listed()) == 7
    assert listed(limit=3) + listed(limit=10, after=listed(limit=3)[-1]) == listed()


def test_masks_go_through_many_datasets(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "_PAGE", 2)
    with catalog.write() as session:
        for index in range(9):
            datasets.create(session, f"run-{index}-{'x' if index % 4 == 0 else 'y'}")
    with catalog.read() as session:
        found = [d.name for d in datasets.list_datasets(session, mask="*-x")]
    assert found == ["run-0-x", "run-4-x", "run-8-x"]
