"""Fixtures of the unit tests: a catalog with a storage, files and a small finished chain."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlmodel import Session

from catalog import datasets, files, standing, storages
from catalog.datasets import Member
from catalog.db import Catalog
from catalog.files import NewFileRow
from catalog.models import (
    Dataset,
    DatasetFile,
    Job,
    JobInput,
    JobOutput,
    StorageKind,
    StorageRole,
    Task,
    Template,
    Workflow,
)
from catalog.states import JobState, TaskState, TemplateState, WorkflowState
from catalog.storages import StorageInfo


@pytest.fixture
def storage(catalog: Catalog, tmp_path: Path) -> StorageInfo:
    """A local storage for input, with its marker."""
    with catalog.write() as session:
        directory = tmp_path / "raw"
        made = storages.add(session, "raw", StorageKind.LOCAL, StorageRole.INPUT, str(directory))
    return standing.mark(catalog, made.id).storage


def row_of(name: str, content: bytes | None = None, scope: str = "raw") -> NewFileRow:
    """A file as it is registered, of that content (or of its own name)."""
    content = name.encode() if content is None else content
    return NewFileRow(scope, name, name, len(content), f"adler32:{zlib.adler32(content):08x}")


@pytest.fixture
def tape(catalog: Catalog, tmp_path: Path) -> StorageInfo:
    """A local storage for output, to which datasets are uploaded."""
    with catalog.write() as session:
        place = str(tmp_path / "tape")
        return storages.add(session, "tape", StorageKind.LOCAL, StorageRole.OUTPUT, place)


def closed(catalog: Catalog, storage: StorageInfo, names: Sequence[str]) -> int:
    """The CLOSED dataset run-1 of files that are written to a storage; each holds its name."""
    for name in names:
        path = Path(storage.url, name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    with catalog.write() as session:
        made = datasets.create(session, "run-1")
        ids = files.register(session, storage.id, [row_of(name) for name in names])
        datasets.attach(session, made, [*map(Member, ids, names)])
        datasets.close(session, made)
    return made


@pytest.fixture
def new_rows() -> Callable[..., list[NewFileRow]]:
    """Files to be registered, by their names."""
    return lambda *names: [row_of(name) for name in names]


@pytest.fixture
def add_files(catalog: Catalog, storage: StorageInfo) -> Callable[[int, Sequence[str]], list[int]]:
    """Register files as copies of the product's, and attach them to a dataset; gives their ids."""

    def add(dataset_id: int, names: Sequence[str]) -> list[int]:
        with catalog.write() as session:
            rows = [row_of(name) for name in names]
            ids = files.register(session, storage.id, rows, in_place=False)
            datasets.attach(session, dataset_id, [*map(Member, ids, names)])
        return ids

    return add


@dataclass(frozen=True)
class Chain:
    """Two raw files, each decoded, then merged into one; every file with its id."""

    raw: tuple[int, int]
    decoded: tuple[int, int]
    merged: int
    log: int
    merge_job: int
    workflow: int


@pytest.fixture
def chain(catalog: Catalog, storage: StorageInfo) -> Chain:
    """A finished workflow of two stages, with the rows that its jobs left."""
    with catalog.write() as session:
        raw = files.register(session, storage.id, [row_of("a.raw"), row_of("b.raw")])
        made = files.register(
            session,
            storage.id,
            [row_of(name, scope="made") for name in ("a.hits", "b.hits", "all", "merge.log")],
        )
        workflow, decode, merge = _workflow(session)
        jobs = [
            _job(session, decode, "a.raw", [raw[0]], made[0]),
            _job(session, decode, "b.raw", [raw[1]], made[1]),
            _job(session, merge, "g0", made[:2], made[2]),
        ]
        logs = Dataset(name="run.md5.v1.merge.log", derived=True, task_id=merge, port="log")
        session.add(logs)
        session.flush()
        session.add(
            DatasetFile(
                dataset_id=logs.id, file_id=made[3], name="g0/merge.log", key="g0", position=0
            )
        )
        return Chain((raw[0], raw[1]), (made[0], made[1]), made[2], made[3], jobs[2], workflow)


def _workflow(session: Session) -> tuple[int, int, int]:
    template = Template(
        name="md5", version=1, state=TemplateState.ACTUAL, mask="run*", document={}, plan={},
        digest="d",
    )  # fmt: skip
    dataset = Dataset(name="run")
    session.add_all([template, dataset])
    session.flush()
    workflow = Workflow(
        template_id=template.id, dataset_id=dataset.id, inputs={}, inputs_digest="i",
        state=WorkflowState.FINISHED,
    )  # fmt: skip
    session.add(workflow)
    session.flush()
    tasks = [
        Task(workflow_id=workflow.id, stage=stage, ordinal=i, pool="cpu", state=TaskState.FINISHED)
        for i, stage in enumerate(("decode", "merge"))
    ]
    session.add_all(tasks)
    session.flush()
    return workflow.id, tasks[0].id, tasks[1].id


def _job(session: Session, task: int, key: str, inputs: Sequence[int], output: int) -> int:
    job = Job(task_id=task, key=key, ordinal=0, state=JobState.FINISHED, attempt=1)
    session.add(job)
    session.flush()
    session.add_all(
        JobInput(job_id=job.id, port="in", position=i, file_id=file_id, task_id=task)
        for i, file_id in enumerate(inputs)
    )
    session.add(JobOutput(job_id=job.id, port="out", position=0, file_id=output))
    return job.id
