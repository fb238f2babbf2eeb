"""What a deletion would do is told beforehand, with all that refers to the dataset."""

from collections.abc import Callable, Sequence
from pathlib import Path

import sqlalchemy as sa
from sqlmodel import col

from catalog import datasets, files, storages, uploads
from catalog.datasets import Member
from catalog.db import Catalog
from catalog.models import Replica, StorageKind, StorageRole, Workflow
from catalog.prospect import Amount, prospect
from catalog.states import ReplicaState, WorkflowState

AddFiles = Callable[[int, Sequence[str]], list[int]]


def test_all_that_refers_to_a_dataset_is_named(
    catalog: Catalog, chain: object, add_files: AddFiles, tmp_path: Path
) -> None:
    with catalog.write() as session:
        run = datasets.by_name(session, "run").id
        other = datasets.create(session, "other")
        tape = storages.add(
            session, "tape", StorageKind.LOCAL, StorageRole.OUTPUT, str(tmp_path / "tape")
        )
    ids = add_files(run, ["a", "bb", "ccc"])
    add_files(other, ["bb"])
    with catalog.write() as session:
        datasets.close(session, run)
        uploads.ask(session, run, tape.id)
        session.execute(
            sa.update(Workflow).values(
                state=WorkflowState.PAUSED, inputs={"deep": [{"file_id": ids[2]}]}
            )
        )
    with catalog.read() as session:
        found = prospect(session, run)
    assert (found.whole, found.removed, found.kept) == (Amount(3, 6), Amount(1, 1), Amount(2, 5))
    assert {item.kind: (item.count, item.named) for item in found.referrers} == {
        "datasets that share files": (1, ("other (OPEN)",)),
        "workflows that read it": (1, ("1, md5 (PAUSED)",)),
        "workflows with a fixed input in it": (1, ("1 (PAUSED)",)),
        "uploads of it": (1, ("tape (QUEUED)",)),
    }


def test_of_many_referrers_some_are_named_and_all_are_counted(
    catalog: Catalog, add_files: AddFiles
) -> None:
    with catalog.write() as session:
        run = datasets.create(session, "run-1")
    add_files(run, ["a"])
    for number in range(12):
        with catalog.write() as session:
            other = datasets.create(session, f"other-{number:02}")
        add_files(other, ["a"])
    with catalog.read() as session:
        (sharing,) = prospect(session, run).referrers
    assert (sharing.count, len(sharing.named)) == (12, 10)


def test_copies_are_told_apart_by_whose_bytes_they_are(
    catalog: Catalog, storage: storages.StorageInfo, new_rows: Callable[..., list[files.NewFileRow]]
) -> None:
    with catalog.write() as session:
        run = datasets.create(session, "run-1")
        ids = files.register(session, storage.id, new_rows("original"))
        ids += files.register(session, storage.id, new_rows("ours", "lost"), in_place=False)
        datasets.attach(session, run, [*map(Member, ids, ("original", "ours", "lost"))])
        lost = sa.update(Replica).where(col(Replica.path) == "lost")
        session.execute(lost.values(state=ReplicaState.MISSING))
    with catalog.read() as session:
        found = prospect(session, run)
    assert (found.originals, found.removed) == (Amount(1, 8), Amount(1, 4))
    assert found.whole == Amount(3, 16)
