"""Why: the sentences name what keeps a dataset open, or a file out of it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from catalog import causes, datasets, deletion, files, intakerules, lifecycle, sources
from catalog.db import Catalog
from catalog.intakerules import Rule
from catalog.models import Dataset, Job, Task, Workflow
from catalog.requests import submit_requests
from catalog.requests.processor import Processor
from catalog.states import JobState, TaskState, WorkflowState
from catalog.storages import StorageInfo

AddFiles = Callable[[int, Sequence[str]], list[int]]


def why(catalog: Catalog, name: str) -> str:
    with catalog.read() as session:
        found = causes.why_dataset(session, datasets.by_name(session, name))
    return "\n".join(f"{cause.fact}; {cause.next}" for cause in found)


def why_file(catalog: Catalog, file: str, dataset: str | None = None) -> str:
    with catalog.read() as session:
        wanted = datasets.by_name(session, dataset) if dataset else None
        found = causes.why_file(session, files.find(session, file), wanted)
    return "\n".join(f"{cause.fact}; {cause.next}" for cause in found)


def test_an_open_dataset_names_its_requests_and_its_rule(
    catalog: Catalog, storage: StorageInfo
) -> None:
    with catalog.write() as session:
        rule = intakerules.add(
            session, Rule("daq", "raw", r"(?P<run>r\d)/.*", "{run}", quiet_s=60.0, close_count=9)
        )
        sources.join(session, rule, [datasets.create(session, "r1", rule_id=rule.id)])
        datasets.create(session, "by-hand")
    absent = {"storageId": "raw", "path": "r1/a", "size": 1}
    (bad,) = submit_requests(
        catalog,
        [{"kind": "file.input", "key": "a", "datasetId": "r1", "files": [absent]}],
    )
    processor = Processor(catalog, lambda _session: None)
    processor.turn()
    processor.close()
    submit_requests(catalog, [{"kind": "dataset.close", "key": "c", "datasetId": "r1"}])
    told = why(catalog, "r1")
    assert "r1 is OPEN since" in told
    assert f"request {bad} (file.input) was answered with ERROR" in told
    assert f"`spdf request retry {bad}`" in told
    assert "(dataset.close) is QUEUED" in told
    assert "intake rule daq fills it from raw, so far with 0 files" in told
    assert "it awaits 9 files (it has 0), or 1 min without files" in told
    assert "no rule of the intake closes it; `spdf dataset close by-hand`" in why(
        catalog, "by-hand"
    )


def test_a_request_whose_files_are_read_says_so_and_is_the_first_of_its_dataset(
    catalog: Catalog, storage: StorageInfo
) -> None:
    with catalog.write() as session:
        datasets.create(session, "r1")
    large = {"storageId": "raw", "path": "r1/a", "size": 10**9}
    document = {"kind": "file.input", "datasetId": "r1", "files": [large]}
    submit_requests(catalog, [{**document, "key": key} for key in ("a", "b")])
    told = why(catalog, "r1")
    assert "request 1 (file.input) is QUEUED; it waits for 1 file of it to be read" in told
    assert "request 2 (file.input) is QUEUED; the intake does it soon" in told


def test_a_dataset_in_the_making_names_its_task_and_jobs(catalog: Catalog, chain: Any) -> None:
    with catalog.write() as session:
        session.execute(sa.update(Workflow).values(state=WorkflowState.IN_PROGRESS))
        session.execute(sa.update(Task).values(state=TaskState.IN_PROGRESS))
        session.execute(
            sa.update(Job)
            .where(Job.key == "g0")  # type: ignore[arg-type]
            .values(state=JobState.HELD, reason="the disk is full")
        )
    told = why(catalog, "run.md5.v1.merge.log")
    assert "task 2 (merge) of workflow 1 (md5 · run) makes it, and is IN_PROGRESS" in told
    assert "its jobs: 1 HELD" in told
    assert f"job {chain.merge_job} (g0) is HELD: the disk is full" in told
    assert f"`spdf job release {chain.merge_job}` once its cause is mended" in told
    assert "task 1 (decode) before it is IN_PROGRESS" in told
    assert "nobody advances the workflow now; the watchdog starts a flow run" in told
    with catalog.write() as session:
        session.execute(sa.update(Task).values(state=TaskState.FAILED, reason="too many failed"))
        session.execute(sa.update(Workflow).values(state=WorkflowState.FAILED))
    told = why(catalog, "run.md5.v1.merge.log")
    assert "is FAILED: too many failed" in told
    assert "outputs of a FAILED task stay OPEN; `spdf workflow retry 1`" in told


def test_a_closed_dataset_tells_what_becomes_of_it(catalog: Catalog, storage: StorageInfo) -> None:
    with catalog.write() as session:
        dataset = datasets.create(session, "d", lifetime_s=60.0)
        datasets.close(session, dataset)
    assert "its lifetime ends at" in why(catalog, "d")
    with catalog.write() as session:
        lifecycle.pin(session, dataset, "for the paper")
    assert "it is pinned: for the paper" in why(catalog, "d")
    with catalog.write() as session:
        lifecycle.unpin(session, dataset)
        deletion.mark(session, dataset, "a test")
    assert "its bytes go with the next run" in why(catalog, "d")
    deletion.remove(catalog, dataset)
    assert "d was deleted" in why(catalog, "d")


def test_a_file_tells_where_it_is_and_why_it_is_not_in_a_dataset(
    catalog: Catalog, storage: StorageInfo, add_files: AddFiles, chain: Any
) -> None:
    with catalog.write() as session:
        one, two = (datasets.create(session, name) for name in ("one", "two"))
        datasets.close(session, two)
    add_files(one, ["x"])
    assert "its copy x on raw is AVAILABLE" in why_file(catalog, "raw:x")
    assert "it comes from outside" in why_file(catalog, "raw:x")
    assert "it is in one, as x" in why_file(catalog, "raw:x", "one")
    assert "two is CLOSED, so it takes no files any more" in why_file(catalog, "raw:x", "two")
    with catalog.read() as session:
        made = files.by_ids(session, [chain.merged])[chain.merged].ref
    assert f"job {chain.merge_job} of md5@1 merge, workflow 1, made it" in why_file(catalog, made)


def test_a_file_that_a_filter_dropped_says_so(
    catalog: Catalog, storage: StorageInfo, add_files: AddFiles, chain: Any
) -> None:
    with catalog.write() as session:
        raw = datasets.create(session, "of-a")
        task = session.execute(sa.select(Task.id).where(Task.stage == "decode")).scalar_one()  # type: ignore[call-overload]
        session.add(Dataset(name="out", derived=True, task_id=task, port="out"))
        session.execute(
            sa.update(Job)
            .where(Job.key == "a.raw")  # type: ignore[arg-type]
            .values(state=JobState.SKIPPED)
        )
    add_files(raw, ["a.raw"])
    told = why_file(catalog, "raw:a.raw", "out")
    assert "(a.raw) of it is SKIPPED; a filter let nothing of it through" in told
    add_files(raw, ["c.raw"])
    assert "decode has no job for it yet" in why_file(catalog, "raw:c.raw", "out")
    assert Path(storage.url).exists()
