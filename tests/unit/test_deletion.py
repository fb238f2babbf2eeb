"""Deletion: what goes, what stays, and what may not go."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import (
    clock,
    datasets,
    definition,
    deletion,
    events,
    files,
    lifecycle,
    removal,
    storages,
    templates,
    usage,
)
from catalog.datasets import Member
from catalog.db import Catalog
from catalog.errors import Conflict, StateConflict
from catalog.failpoints import VARIABLE
from catalog.files import NewFileRow
from catalog.inspection.scan import Options, inspect
from catalog.inspection.settle import Settled, settle
from catalog.models import Replica, Singleton, StorageKind, StorageRole, Task, Workflow
from catalog.names import MARKER
from catalog.states import DatasetState, ReplicaState, WorkflowState
from catalog.storages import StorageInfo
from catalog.transitions import move
from flows import deletion as flow
from flows import roles

AddFiles = Callable[[int, Sequence[str]], list[int]]


@pytest.fixture
def dataset(catalog: Catalog, storage: StorageInfo, add_files: AddFiles) -> int:
    """A closed dataset of two files whose bytes are there."""
    with catalog.write() as session:
        made = datasets.create(session, "run-1")
    add_files(made, ["a", "b"])
    for name in ("a", "b"):
        Path(storage.url, name).write_text(name)
    with catalog.write() as session:
        datasets.close(session, made)
    return made


def mark(catalog: Catalog, dataset_id: int) -> bool:
    with catalog.write() as session:
        return deletion.mark(session, dataset_id, "a test")


def state_of(catalog: Catalog, dataset_id: int) -> DatasetState:
    with catalog.read() as session:
        return datasets.get(session, dataset_id).state


def there(storage: StorageInfo) -> list[str]:
    return sorted(path.name for path in Path(storage.url).iterdir() if path.name != MARKER)


def held(catalog: Catalog) -> tuple[int, int]:
    with catalog.read() as session:
        (item,) = usage.of_storages(session)
    return item.files, item.size_bytes


def test_bytes_go_and_rows_tell_of_it(catalog: Catalog, storage: StorageInfo, dataset: int) -> None:
    assert held(catalog) == (2, 2)
    assert mark(catalog, dataset) and not mark(catalog, dataset)
    assert there(storage) == ["a", "b"], "phase one takes nothing away"
    done = deletion.remove(catalog, dataset)
    assert (done.copies, done.size_bytes, done.kept, done.faults) == (2, 2, 0, ())
    assert there(storage) == []
    assert held(catalog) == (0, 0)
    with catalog.read() as session:
        replicas = list(session.scalars(sa.select(col(Replica.id))))
        told = [events.history(session, "replica", replica) for replica in replicas]
        history = events.history(session, "dataset", dataset)
    assert [[e.after for e in each] for each in told] == [["DELETING"], ["DELETING"]]
    assert all(each[0].message == "dataset run-1 is deleted" for each in told)
    assert [event.after for event in history] == ["OPEN", "CLOSED", "DELETING", "DELETED"]


def test_files_that_another_dataset_holds_keep_their_bytes(
    catalog: Catalog, storage: StorageInfo, dataset: int, add_files: AddFiles
) -> None:
    with catalog.write() as session:
        other = datasets.create(session, "other")
    add_files(other, ["b"])
    mark(catalog, dataset)
    assert deletion.remove(catalog, dataset).kept == 1
    assert there(storage) == ["b"]
    mark(catalog, other)
    deletion.remove(catalog, other)
    assert there(storage) == []


def test_of_two_datasets_that_go_together_neither_holds_the_files(
    catalog: Catalog, storage: StorageInfo, dataset: int, add_files: AddFiles
) -> None:
    with catalog.write() as session:
        other = datasets.create(session, "other")
    add_files(other, ["b"])
    mark(catalog, dataset)
    mark(catalog, other)
    deletion.remove(catalog, dataset)
    assert there(storage) == []
    assert deletion.remove(catalog, other).faults == ()
    assert state_of(catalog, other) is DatasetState.DELETED


def test_a_fixed_input_of_a_workflow_that_is_not_final_stays(
    catalog: Catalog, storage: StorageInfo, dataset: int, chain: object
) -> None:
    with catalog.write() as session:
        file_id = files.get(session, "raw", "a").id
        session.execute(
            sa.update(Workflow).values(
                state=WorkflowState.PAUSED, inputs={"deep": [{"file_id": file_id}]}
            )
        )
    mark(catalog, dataset)
    assert deletion.remove(catalog, dataset).kept == 1
    assert there(storage) == ["a"]


@pytest.mark.parametrize("state", list(WorkflowState))
def test_the_input_of_a_workflow_goes_only_after_its_end(
    catalog: Catalog, chain: object, state: WorkflowState
) -> None:
    with catalog.write() as session:
        dataset = datasets.by_name(session, "run").id
        session.execute(sa.update(Workflow).values(state=state))
    if state in (WorkflowState.FINISHED, WorkflowState.FAILED, WorkflowState.CANCELLED):
        assert mark(catalog, dataset)
        return
    with pytest.raises(Conflict, match="is the input of workflow 1, which isn't final"):
        mark(catalog, dataset)
    assert state_of(catalog, dataset) is DatasetState.OPEN


def test_what_a_workflow_makes_goes_only_after_its_end(catalog: Catalog, chain: object) -> None:
    with catalog.write() as session:
        made = datasets.by_name(session, "run.md5.v1.merge.log").id
        session.execute(sa.update(Workflow).values(state=WorkflowState.IN_PROGRESS))
    with pytest.raises(Conflict, match="is made by workflow 1, which isn't final"):
        mark(catalog, made)
    with catalog.write() as session:
        session.execute(sa.update(Workflow).values(state=WorkflowState.FINISHED))
    assert mark(catalog, made)


def test_a_pinned_dataset_stays(catalog: Catalog, dataset: int) -> None:
    with catalog.write() as session:
        lifecycle.pin(session, dataset, "for the paper")
        lifecycle.set_lifetime(session, dataset, 0.0)
    with pytest.raises(Conflict, match=r"pinned \(for the paper\); `spdf dataset unpin run-1`"):
        mark(catalog, dataset)
    clock.shift_clock(10)
    with catalog.write() as session:
        assert deletion.expire(session) == []
        lifecycle.unpin(session, dataset)
        assert deletion.expire(session) == ["run-1"]


def test_a_lifetime_begins_with_the_close(catalog: Catalog) -> None:
    with catalog.write() as session:
        short = datasets.create(session, "short", lifetime_s=100.0)
        never = datasets.create(session, "never")
        late = datasets.create(session, "late", lifetime_s=100.0)
        for dataset_id in (short, never):
            datasets.close(session, dataset_id)
        assert datasets.get(session, never).expires_at is None
    clock.shift_clock(90)
    with catalog.write() as session:
        assert deletion.expire(session) == []
    clock.shift_clock(101)
    with catalog.write() as session:
        datasets.close(session, late)
        assert deletion.expire(session) == ["short"]
        lifecycle.set_lifetime(session, never, 50.0)
        lifecycle.set_lifetime(session, late, None)
    clock.shift_clock(160)
    with catalog.write() as session:
        assert deletion.expire(session) == ["never"]
    clock.shift_clock(9999)
    with catalog.write() as session:
        assert deletion.expire(session) == []
        with pytest.raises(StateConflict, match="its files are going"):
            lifecycle.pin(session, short, "too late")


def test_one_that_a_workflow_still_makes_holds_up_no_other(
    catalog: Catalog, chain: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion, "MOST_EXPIRED", 1)
    with catalog.write() as session:
        session.execute(sa.update(Workflow).values(state=WorkflowState.IN_PROGRESS))
        made = datasets.by_name(session, "run.md5.v1.merge.log").id
        free = datasets.create(session, "free")
        for one in (made, free):
            datasets.close(session, one)
            lifecycle.set_lifetime(session, one, 0.0)
    clock.shift_clock(10)
    with catalog.write() as session:
        assert deletion.expire(session) == ["free"]
        session.execute(sa.update(Workflow).values(state=WorkflowState.FINISHED))
        assert deletion.expire(session) == ["run.md5.v1.merge.log"]


def test_one_dataset_that_may_not_go_holds_up_no_other(
    catalog: Catalog, chain: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion, "MOST_EXPIRED", 1)
    with catalog.write() as session:
        session.execute(sa.update(Workflow).values(state=WorkflowState.IN_PROGRESS))
        read = datasets.by_name(session, "run").id
        free = datasets.create(session, "free")
        for dataset_id in (read, free):
            lifecycle.set_lifetime(session, dataset_id, 0.0)
            datasets.close(session, dataset_id)
    clock.shift_clock(10)
    with catalog.write() as session:
        assert deletion.expire(session) == ["free"]
    assert state_of(catalog, read) is DatasetState.CLOSED


def test_bytes_that_cannot_go_now_go_later(
    catalog: Catalog, storage: StorageInfo, dataset: int, tmp_path: Path
) -> None:
    mark(catalog, dataset)
    aside = tmp_path / "aside"
    Path(storage.url).rename(aside)
    done = deletion.remove(catalog, dataset)
    assert len(done.faults) == 2 and "mount or make it" in done.faults[0]
    assert state_of(catalog, dataset) is DatasetState.DELETING
    aside.rename(storage.url)
    assert deletion.remove(catalog, dataset).copies == 2
    assert state_of(catalog, dataset) is DatasetState.DELETED


def test_other_bytes_where_a_copy_was_missing_stay(
    catalog: Catalog, storage: StorageInfo, dataset: int
) -> None:
    """Of two copies that an inspection missed one is back, and somebody wrote under the other."""
    with catalog.write() as session:
        replicas = list(session.scalars(sa.select(col(Replica.id))))
        move(session, Replica, replicas, ReplicaState.MISSING)
        usage.away(session, replicas)
    Path(storage.url, "a").write_text("A")
    mark(catalog, dataset)
    done = deletion.remove(catalog, dataset)
    assert there(storage) == ["a"] and Path(storage.url, "a").read_text() == "A"
    assert (done.copies, done.left) == (1, 1)
    assert held(catalog) == (0, 0)


def test_other_bytes_that_an_inspection_found_where_a_copy_was_missing_stay(
    catalog: Catalog, storage: StorageInfo, dataset: int
) -> None:
    """They made the copy BAD, and are nobody's that the catalog knows all the same."""
    path, all_of_it = Path(storage.url, "a"), Options(grace_s=0.0, limit_percent=100.0)
    path.unlink()
    for text in (None, "other"):
        if text is not None:
            path.write_text(text)
        inspect(catalog, storage.id, all_of_it)
        assert settle(catalog, storage.id).marked == 1
    with catalog.read() as session:
        (copy,) = files.all_replicas(session, files.get(session, "raw", "a").id)
    assert copy.state is ReplicaState.BAD
    mark(catalog, dataset)
    done = deletion.remove(catalog, dataset)
    assert there(storage) == ["a"] and path.read_text() == "other"
    assert (done.copies, done.left, done.faults) == (1, 1, ())
    assert held(catalog) == (0, 0)


def test_bytes_that_are_gone_already_are_no_fault(
    catalog: Catalog, storage: StorageInfo, dataset: int
) -> None:
    Path(storage.url, "a").unlink()
    with catalog.write() as session:
        missing = files.all_replicas(session, files.get(session, "raw", "a").id)
        move(session, Replica, [missing[0].id], ReplicaState.MISSING, message="a test")
        usage.away(session, [missing[0].id])
    assert held(catalog) == (1, 1)
    mark(catalog, dataset)
    assert deletion.remove(catalog, dataset).faults == ()
    assert held(catalog) == (0, 0), "what was missing is not counted twice"


def test_a_folder_that_became_a_file_holds_its_copies_no_more(
    catalog: Catalog, storage: StorageInfo, add_files: AddFiles
) -> None:
    with catalog.write() as session:
        made = datasets.create(session, "packed")
    add_files(made, ["deep/sub/a", "deep/sub/b", "beside/c"])
    root = Path(storage.url)
    (root / "deep").write_text("a tar of it")
    (root / "beside").mkdir()
    (root / "beside" / "c").write_text("c")
    mark(catalog, made)
    done = deletion.remove(catalog, made)
    assert (done.copies, done.left, done.faults) == (3, 0, ())
    assert state_of(catalog, made) is DatasetState.DELETED
    assert there(storage) == ["deep"]


def test_what_is_no_file_under_the_path_of_a_copy_stays(
    catalog: Catalog, storage: StorageInfo, dataset: int, tmp_path: Path
) -> None:
    root = Path(storage.url)
    (root / "a").unlink()
    (root / "a").mkdir()
    (tmp_path / "b").write_text("b")
    (root / "b").unlink()
    (root / "b").symlink_to(tmp_path / "b")
    mark(catalog, dataset)
    done = deletion.remove(catalog, dataset)
    assert (done.copies, done.left, done.faults) == (0, 2, ())
    assert state_of(catalog, dataset) is DatasetState.DELETED
    assert (root / "a").is_dir() and (root / "b").is_symlink() and (tmp_path / "b").exists()
    with catalog.read() as session:
        told = [str(events.history(session, "replica", i)[-1].message) for i in (1, 2)]
    assert told[0].startswith("a folder has its path") and told[1].startswith("a symbolic link")


def test_what_lies_outside_of_the_storage_behind_a_link_stays(
    catalog: Catalog, storage: StorageInfo, add_files: AddFiles, tmp_path: Path
) -> None:
    outside, root = tmp_path / "outside", Path(storage.url)
    outside.mkdir()
    (outside / "x").write_text("linked/x")
    (root / "linked").symlink_to(outside)
    (root / "within").mkdir()
    (root / "within" / "y").write_text("inner/y")
    (root / "inner").symlink_to("within")
    with catalog.write() as session:
        made = datasets.create(session, "linked")
    add_files(made, ["linked/x", "inner/y"])
    mark(catalog, made)
    done = deletion.remove(catalog, made)
    assert (done.copies, done.left, done.faults) == (1, 1, ())
    assert state_of(catalog, made) is DatasetState.DELETED
    assert (outside / "x").exists() and not (root / "within" / "y").exists()
    with catalog.read() as session:
        told = str(events.history(session, "replica", 2)[-1].message)
    assert f"{outside} outside of the storage" in told


def begun(catalog: Catalog, *names: str) -> list[removal.Doomed]:
    """Phase two was killed after it had marked the replicas of these files."""
    with catalog.write() as session:
        ids = [files.get(session, "raw", name).id for name in names]
        found = removal.lock(session, col(Replica.file_id).in_(ids))
        return removal.doom(session, found, "a test")


def test_what_was_missing_is_counted_once_after_a_kill(
    catalog: Catalog, storage: StorageInfo, dataset: int
) -> None:
    with catalog.write() as session:
        (missing,) = files.all_replicas(session, files.get(session, "raw", "a").id)
        move(session, Replica, [missing.id], ReplicaState.MISSING, message="a test")
        usage.away(session, [missing.id])
    mark(catalog, dataset)
    begun(catalog, "a", "b")
    with catalog.write() as session:
        assert usage.recount(session, storage.id) == (0, 0), "what is DELETING takes up space"
    assert deletion.remove(catalog, dataset).copies == 2
    assert held(catalog) == (0, 0)


def test_two_who_remove_the_same_bytes_count_them_once(
    catalog: Catalog, storage: StorageInfo, dataset: int
) -> None:
    """One hung for so long that its role went to another."""
    mark(catalog, dataset)
    rows = begun(catalog, "a", "b")
    assert deletion.remove(catalog, dataset).copies == 2
    with ThreadPoolExecutor(1) as pool:
        late = removal.remove_replicas(catalog, rows, removal.drivers(catalog), pool)
    assert late == removal.Removed()
    assert held(catalog) == (0, 0)


REMOVE = """
import sys
from catalog import deletion
from catalog.db import Catalog
deletion.PAGE = 2
deletion.remove(Catalog(sys.argv[1]), int(sys.argv[2]))
"""


@pytest.fixture
def pages(
    catalog: Catalog, storage: StorageInfo, add_files: AddFiles, monkeypatch: pytest.MonkeyPatch
) -> int:
    """A dataset of eleven files that is marked for deletion, two files to a page."""
    monkeypatch.setattr(deletion, "PAGE", 2)
    with catalog.write() as session:
        made = datasets.create(session, "run-1")
    names = [f"f{number:02}" for number in range(11)]
    add_files(made, names)
    for name in names:
        Path(storage.url, name).write_text("x")
    mark(catalog, made)
    return made


def check_gone(catalog: Catalog, storage: StorageInfo, dataset_id: int) -> None:
    """All of it is, was counted once, and each copy's event says so."""
    assert state_of(catalog, dataset_id) is DatasetState.DELETED
    assert (there(storage), held(catalog)) == ([], (0, 0))
    with catalog.read() as session:
        rows = session.execute(sa.select(col(Replica.id), col(Replica.state))).all()
        told = [[e.after for e in events.history(session, "replica", row.id)] for row in rows]
    assert {row.state for row in rows} == {ReplicaState.DELETED}
    assert told == [["DELETING"]] * 11


@pytest.mark.parametrize(
    "failpoint", ["marked:1", "removed:1", "marked:3", "removed:3", "marked:6", "removed:6"]
)
def test_killed_on_any_page_the_next_run_ends_it(
    catalog: Catalog, catalog_url: str, storage: StorageInfo, pages: int, failpoint: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", REMOVE, catalog_url, str(pages)],
        env={**os.environ, VARIABLE: f"deletion.{failpoint}"},
        cwd=Path(__file__).resolve().parents[2],
        timeout=60,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    assert state_of(catalog, pages) is DatasetState.DELETING
    deletion.remove(catalog, pages)
    check_gone(catalog, storage, pages)


def test_a_run_that_is_to_end_does_so_after_its_page(
    catalog: Catalog, storage: StorageInfo, pages: int
) -> None:
    done = deletion.remove(catalog, pages, until=lambda: True)
    assert done.copies == 2 and len(there(storage)) == 9
    assert deletion.remove(catalog, pages).copies == 9
    check_gone(catalog, storage, pages)


@pytest.mark.parametrize(("where", "step"), [(deletion, "doom"), (removal, "_remove_bytes")])
def test_a_defect_on_a_page_is_raised_and_the_next_run_ends_it(
    catalog: Catalog,
    storage: StorageInfo,
    pages: int,
    where: ModuleType,
    step: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, calls = getattr(where, step), []

    def broken(*args: Any) -> Any:
        calls.append(step)
        if len(calls) == 3:
            raise RuntimeError("a defect")
        return whole(*args)

    with monkeypatch.context() as patch:
        patch.setattr(where, step, broken)
        with pytest.raises(RuntimeError, match="a defect"):
            deletion.remove(catalog, pages)
    assert not [t for t in threading.enumerate() if t.name.startswith(("doom", "delete"))]
    deletion.remove(catalog, pages)
    check_gone(catalog, storage, pages)


def test_a_removal_whose_role_went_to_another_is_not_told_as_done(
    catalog: Catalog, storage: StorageInfo, pages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roles, "_BEAT_S", 0.02)

    def steal(_name: str, _so_far: removal.Removed) -> None:
        with catalog.write() as session:
            session.execute(sa.update(Singleton).values(owner="another"))
        (beat,) = (t for t in threading.enumerate() if t.name == f"role-{flow.DELETION}")
        beat.join(30)

    cut = flow.delete(catalog, tell=steal)
    assert (cut.datasets, cut.copies) == (0, 2)
    clock.shift_clock(2 * roles.LEASE_S)
    done = flow.delete(catalog)
    assert (done.datasets, done.copies) == (1, 9)
    check_gone(catalog, storage, pages)


def test_two_who_remove_at_once_count_each_copy_once(
    catalog: Catalog, catalog_url: str, storage: StorageInfo, pages: int
) -> None:
    other = Catalog(catalog_url)
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(deletion.remove, which, pages) for which in (catalog, other)]
        assert sum(run.result().copies for run in runs) == 11
    other.close()
    check_gone(catalog, storage, pages)


def test_what_was_begun_is_ended_though_another_dataset_holds_the_file(
    catalog: Catalog, storage: StorageInfo, dataset: int
) -> None:
    """Registered anew under another path after a kill: the old copy goes still."""
    mark(catalog, dataset)
    begun(catalog, "a", "b")
    Path(storage.url, "again").write_text("a")
    with catalog.write() as session:
        other = datasets.create(session, "other")
        known = files.get(session, "raw", "a")
        row = NewFileRow("raw", "a", "again", known.size_bytes, known.checksum)
        datasets.attach(
            session, other, [Member(files.register(session, storage.id, [row])[0], "a")]
        )
    done = deletion.remove(catalog, dataset)
    assert (done.copies, done.kept) == (2, 1)
    assert there(storage) == ["again"]
    with catalog.read() as session:
        assert [ref.path for ref in files.replicas(session, [known.id])[known.id]] == ["again"]


def test_an_inspection_ends_deletions_that_no_dataset_comes_by(
    catalog: Catalog, storage: StorageInfo, dataset: int
) -> None:
    with catalog.write() as session:
        # Nobody has a login for this one, which is no matter to the other.
        place = "http://127.0.0.1:9/bucket"
        storages.add(session, "far", StorageKind.S3, StorageRole.OUTPUT, place)
    begun(catalog, "a")
    assert settle(catalog, storage.id) == Settled()
    assert there(storage) == ["b"]
    with catalog.read() as session:
        found = {item.storage: (item.files, item.size_bytes) for item in usage.of_storages(session)}
    assert found == {"far": (0, 0), storage.name: (1, 1)}


def test_a_copy_that_was_begun_is_ended_by_whoever_comes_first(
    catalog: Catalog, storage: StorageInfo, dataset: int
) -> None:
    """By the inspection of its storage, too, though its dataset is going, and goes on with it."""
    mark(catalog, dataset)
    begun(catalog, "a")
    done = removal.finish(catalog, storage.id)
    assert (done.copies, there(storage)) == (1, ["b"])
    assert deletion.remove(catalog, dataset).copies == 1
    assert there(storage) == []


@pytest.mark.parametrize("state", list(ReplicaState))
def test_only_what_is_bad_or_lost_is_retired(
    catalog: Catalog, storage: StorageInfo, dataset: int, state: ReplicaState
) -> None:
    with catalog.write() as session:
        session.execute(sa.update(Replica).where(col(Replica.path) == "a").values(state=state))
        mine = session.execute(sa.select(col(Replica.id)).where(col(Replica.path) == "a")).scalar()
        assert mine is not None
        retired = removal.retire(session, [mine], "made anew")
    wrong = state in (ReplicaState.BAD, ReplicaState.MISSING)
    assert [item.id for item in retired] == ([mine] if wrong else [])
    with catalog.read() as session:
        after = session.execute(sa.select(col(Replica.state)).where(col(Replica.id) == mine))
        assert after.scalar() is (ReplicaState.DELETING if wrong else state)


def test_a_workflow_keeps_its_fixed_inputs_or_is_refused(
    catalog: Catalog, storage: StorageInfo, dataset: int
) -> None:
    with catalog.write() as session:
        file_id = files.get(session, "raw", "a").id
    inputs = {"geometry": {"class": "File", "file_id": file_id}}
    mark(catalog, dataset)
    removed: list[removal.Removed] = []
    thread = threading.Thread(target=lambda: removed.append(deletion.remove(catalog, dataset)))
    with catalog.write() as session:
        workflow = defined(session, inputs)
        thread.start()
        time.sleep(0.5)
    thread.join()
    assert removed[0].kept == 1 and there(storage) == ["a"]
    with catalog.write() as session:
        session.execute(sa.update(Workflow).values(state=WorkflowState.FINISHED))
        other = datasets.create(session, "other")
        datasets.attach(session, other, [Member(file_id, "a")])
    mark(catalog, other)
    deletion.remove(catalog, other)
    told = f"file {file_id}, an input of the workflow, has no copy"
    with pytest.raises(Conflict, match=told), catalog.write() as session:
        defined(session, inputs, again=True)
    assert workflow


def defined(session: Session, inputs: dict[str, Any], *, again: bool = False) -> int:
    """A workflow of one stage over an empty dataset."""
    name = "again" if again else "first"
    template = templates.create(session, name, "*", {}, {}, name)
    templates.activate(session, template.id)
    source = datasets.create(session, name)
    workflow, _ = definition.define(session, template.id, source, [], inputs=inputs, rank=1)
    return workflow


def test_a_file_that_went_is_registered_again_where_it_was(
    catalog: Catalog, storage: StorageInfo, dataset: int, add_files: AddFiles
) -> None:
    mark(catalog, dataset)
    deletion.remove(catalog, dataset)
    with catalog.write() as session:
        before = files.get(session, "raw", "a").id
        other = datasets.create(session, "other")
    assert add_files(other, ["a"]) == [before]
    Path(storage.url, "a").write_text("a")
    assert held(catalog) == (1, 1)
    mark(catalog, other)
    assert deletion.remove(catalog, other).copies == 1 and there(storage) == []


def test_who_registers_a_file_while_its_dataset_goes_keeps_its_bytes(
    catalog: Catalog, storage: StorageInfo, dataset: int, new_rows: Callable[..., Any]
) -> None:
    with catalog.write() as session:
        other = datasets.create(session, "other")
    mark(catalog, dataset)
    removed: list[removal.Removed] = []
    thread = threading.Thread(target=lambda: removed.append(deletion.remove(catalog, dataset)))
    with catalog.write() as session:
        ids = files.register(session, storage.id, new_rows("a", "b"))
        datasets.attach(session, other, [*map(Member, ids, "ab")])
        thread.start()
        time.sleep(0.5)
    thread.join()
    assert removed[0].kept == 2
    assert there(storage) == ["a", "b"]


def test_a_dataset_without_a_task_or_files_goes_at_once(catalog: Catalog) -> None:
    with catalog.write() as session:
        empty = datasets.create(session, "empty")
        assert session.execute(sa.select(sa.func.count()).select_from(Task)).scalar_one() == 0
    mark(catalog, empty)
    with catalog.read() as session:
        assert [info.name for info in datasets.deleting(session)] == ["empty"]
    deletion.remove(catalog, empty)
    assert state_of(catalog, empty) is DatasetState.DELETED
    with catalog.write() as session:
        assert datasets.deleting(session) == []
