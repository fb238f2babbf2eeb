"""A large storage with planted faults: all and only those are found, and settled by one command."""

import os
import random
import zlib
from collections.abc import Iterable
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlmodel import col

from catalog import datasets, files, storages
from catalog.datasets import Member
from catalog.db import Catalog
from catalog.files import NewFileRow
from catalog.inspection import findings
from catalog.inspection.scan import Options, inspect
from catalog.inspection.settle import Settled, settle
from catalog.models import Replica, StorageKind, StorageRole
from catalog.refs import FindingKind
from catalog.states import InspectionState, ReplicaState

COUNT, EACH = 10_000, 100
LOOK = Options(sample_percent=100.0, grace_s=0.0)


@pytest.fixture
def large(catalog: Catalog, tmp_path: Path) -> tuple[int, Path]:
    """Id and directory of a storage of `COUNT` registered files."""
    root = tmp_path / "large"
    rows = []
    for i in range(COUNT):
        path = root / f"run-{i % 10}" / f"slice-{i:05}.raw"
        if i < 10:
            path.parent.mkdir(parents=True)
        content = f"content of {i:05}".encode()
        path.write_bytes(content)
        name = path.relative_to(root).as_posix()
        checksum = f"adler32:{zlib.adler32(content):08x}"
        rows.append(NewFileRow("large", name, name, len(content), checksum))
    with catalog.write() as session:
        place = storages.add(
            session, "large", StorageKind.LOCAL, StorageRole.INTERNAL, str(root)
        ).id
        ids = files.register(session, place, rows)
        dataset = datasets.create(session, "large-1")
        members = [Member(i, row.name) for i, row in zip(ids, rows, strict=True)]
        datasets.attach(session, dataset, members)
    return place, root


def test_planted_faults_are_found_all_and_only_those(
    catalog: Catalog, large: tuple[int, Path]
) -> None:
    place, root = large
    paths = sorted(root.glob("*/*"))
    chosen = random.Random(1).sample(paths, 3 * EACH)
    missing, short, flipped = chosen[:EACH], chosen[EACH : 2 * EACH], chosen[2 * EACH :]
    for path in missing:
        path.unlink()
    for path in short:
        os.truncate(path, 5)
    for n, path in enumerate(flipped):
        content = bytearray(path.read_bytes())
        content[n % len(content)] ^= 1 << n % 8
        path.write_bytes(content)
    dark = [root / f"run-{n % 12}" / f"dark-{n}" for n in range(EACH)]
    for path in dark:
        path.parent.mkdir(exist_ok=True)
        path.write_text("nobody knows me")

    info = inspect(catalog, place, LOOK)
    assert info.state is InspectionState.DONE
    assert (info.replicas, info.objects) == (COUNT, COUNT)
    assert (info.missing, info.corrupt, info.dark) == (EACH, 2 * EACH, EACH)
    with catalog.read() as session:
        found = findings.findings(session, storage_id=place, limit=COUNT)
    kinds = {kind: {f.path for f in found if f.kind is kind} for kind in FindingKind}
    assert kinds == {
        FindingKind.MISSING: names(root, missing),
        FindingKind.CORRUPT: names(root, short + flipped),
        FindingKind.DARK: names(root, dark),
    }

    assert settle(catalog, place, remove_dark=True) == Settled(
        marked=3 * EACH, quarantined=EACH, removed=EACH
    )
    assert states(catalog) == {
        ReplicaState.AVAILABLE: COUNT - 3 * EACH,
        ReplicaState.MISSING: EACH,
        ReplicaState.BAD: 2 * EACH,
    }
    assert names(root, root.glob("*/*")) == names(root, set(paths) - set(missing))
    again = inspect(catalog, place, LOOK)
    assert (again.missing, again.corrupt, again.dark) == (0, 0, 0)


def test_an_emptied_storage_is_asked_about(catalog: Catalog, large: tuple[int, Path]) -> None:
    place, root = large
    for folder in root.iterdir():
        folder.rename(root.parent / f"aside-{folder.name}")
    info = inspect(catalog, place, LOOK)
    assert (info.state, info.missing) == (InspectionState.ASKING, COUNT)
    assert states(catalog) == {ReplicaState.AVAILABLE: COUNT}


def names(root: Path, paths: Iterable[Path]) -> set[str]:
    return {path.relative_to(root).as_posix() for path in paths}


def states(catalog: Catalog) -> dict[str, int]:
    query = sa.select(col(Replica.state), sa.func.count().label("count")).group_by(
        col(Replica.state)
    )
    with catalog.read() as session:
        return {row.state: row.count for row in session.execute(query)}
