"""A dataset closed while eight processes attach to it: nothing comes in after the count."""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from catalog import datasets, files, manifests
from catalog.datasets import Member
from catalog.db import Catalog
from catalog.errors import StateConflict
from catalog.files import NewFileRow
from catalog.states import DatasetState
from catalog.storages import add as add_storage

PROCESSES = 8
REPOSITORY = Path(__file__).resolve().parents[2]

# Odd processes attach as users do, even ones as job commits do: lock, then insert. Each prints the
# names of a batch once its commit has been answered, and ends when it is refused.
WORKER = """
import sys
from catalog import datasets, files
from catalog.bulk import insert_ignore
from catalog.datasets import Member
from catalog.db import Catalog
from catalog.errors import StateConflict
from catalog.files import NewFileRow
from catalog.models import DatasetFile

url, dataset, storage, me = sys.argv[1], *map(int, sys.argv[2:])
catalog = Catalog(url)
for turn in range(100_000):
    names = [f"p{me}/t{turn}-{i}" for i in range(3)]
    rows = [NewFileRow("raw", n, n, turn + 1, f"adler32:{turn:08x}") for n in names]
    with catalog.write() as session:
        ids = files.register(session, storage, rows)
    try:
        with catalog.write() as session:
            if me % 2:
                datasets.attach(session, dataset, [*map(Member, ids, names)])
            elif datasets.lock_open(session, [dataset]):
                insert_ignore(session, DatasetFile, [
                    {"dataset_id": dataset, "file_id": i, "name": n, "key": n, "position": turn}
                    for i, n in zip(ids, names)
                ])
            else:
                raise StateConflict("dataset", dataset, "CLOSED", "changed")
    except StateConflict:
        sys.exit(7)
    print(*names, sep="\\n", flush=True)
"""


def test_close_counts_the_final_content_and_refuses_the_rest(
    catalog: Catalog, catalog_url: str, tmp_path: Path
) -> None:
    with catalog.write() as session:
        storage = add_storage(session, "raw", "local", "input", str(tmp_path / "raw"))
        dataset = datasets.create(session, "run-1")
    outputs = [tmp_path / f"worker-{i}" for i in range(PROCESSES)]
    workers = [_start(catalog_url, dataset, storage.id, i, outputs[i]) for i in range(PROCESSES)]
    try:
        _wait_until_all_attach(workers, outputs)
        with catalog.write() as session:
            closed = datasets.close(session, dataset)
        assert [worker.wait(60) for worker in workers] == [7] * PROCESSES
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    answered = [name for output in outputs for name in output.read_text().split()]
    with catalog.read() as session:
        members = list(manifests.all_members(session, dataset))
        assert datasets.get(session, dataset) == closed
    assert closed.state is DatasetState.CLOSED
    assert sorted(m.name for m in members) == sorted(answered)
    assert closed.file_count == len(members) == len(answered) >= 3 * PROCESSES
    assert closed.size_bytes == sum(m.size_bytes for m in members)
    lines = "".join(f"{m.name}\t{m.size_bytes}\t{m.checksum}\n" for m in members)
    assert closed.digest == f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


def test_an_attach_after_the_close_is_refused(catalog: Catalog, tmp_path: Path) -> None:
    with catalog.write() as session:
        storage = add_storage(session, "raw", "local", "input", str(tmp_path / "raw"))
        dataset = datasets.create(session, "run-1")
        row = NewFileRow("raw", "a", "a", 1, "adler32:00000001")
        ids = files.register(session, storage.id, [row])
        closed = datasets.close(session, dataset)
    with (
        pytest.raises(StateConflict, match="'run-1' is CLOSED"),
        catalog.write() as session,
    ):
        datasets.attach(session, dataset, [Member(ids[0], "a")])
    with catalog.read() as session:
        assert manifests.members(session, dataset) == []
        assert manifests.content(session, dataset).digest == closed.digest


def _start(
    url: str, dataset: int, storage: int, number: int, output: Path
) -> subprocess.Popen[bytes]:
    arguments = [url, *map(str, (dataset, storage, number))]
    with output.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-c", WORKER, *arguments],
            stdout=file,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        )


def _wait_until_all_attach(workers: list[subprocess.Popen[bytes]], outputs: list[Path]) -> None:
    deadline = time.monotonic() + 120
    while not all(output.stat().st_size for output in outputs):
        assert all(worker.poll() is None for worker in workers), "a worker ended before the close"
        assert time.monotonic() < deadline, "not every worker could attach"
        time.sleep(0.05)
