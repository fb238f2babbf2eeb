"""Pruning history: what goes, what stays, and that work goes on meanwhile."""

import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from catalog import (
    attempts,
    clock,
    completion,
    datasets,
    definition,
    events,
    history,
    jobfiles,
    jobs,
    lineage,
    pilots,
    requests,
    storages,
    tasks,
    templates,
    workflows,
)
from catalog.db import Catalog
from catalog.definition import NewTask
from catalog.errors import NotFound
from catalog.jobs import NewJob
from catalog.models import (
    Attempt,
    Event,
    Job,
    JobInput,
    JobOutput,
    PastJob,
    Pilot,
    StorageKind,
    StorageRole,
    Task,
    Workflow,
)
from catalog.refs import JobResult, NewFile, Outcome
from catalog.requests import parse, queue
from catalog.requests.queue import Answer
from catalog.states import JobState, RequestState, TaskState, WorkflowState
from tests.unit.clocks import clock_of_another_boot

DAY_S = 86400.0
OLD_S = 30 * DAY_S
LONG_AFTER_S = 100 * DAY_S
COUNT = 6


@dataclass(frozen=True)
class Past:
    """A workflow of one task, one job a file, each with an output and a log."""

    catalog: Catalog
    workflow: int
    task: int
    pilot: int
    files: tuple[int, ...]

    def work(self, limit: int = COUNT) -> int:
        """Lease some jobs and register their ends; gives how many."""
        with self.catalog.write() as session:
            leases = attempts.lease(
                session, self.pilot, self.task, limit,
                lease_s=60, node="n7", program="1.2", tool_digest="tool",
            )  # fmt: skip
        with self.catalog.write() as session:
            ports = tasks.outputs(session, [self.task])[self.task]

            def new(port: str, lease: attempts.Lease) -> NewFile:
                out = ports[port]
                return NewFile(
                    port, 0, f"{lease.key}/{port}", 1, "adler32:00010001", out.storage_id,
                    f"{self.task}/{lease.key}/{port}", out.dataset_id,
                )  # fmt: skip

            ended = [
                JobResult(
                    lease.job_id, lease.attempt_id, lease.number, Outcome.FINISHED,
                    files=(new("out", lease),), log=new("log", lease), log_tail="the end",
                )
                for lease in leases
            ]  # fmt: skip
            return len(completion.finish(session, self.pilot, ended, retry=0))

    def end(self, state: WorkflowState = WorkflowState.FINISHED) -> None:
        """End the task, its pilot and the workflow; Prefect shows all."""
        with self.catalog.write() as session:
            pilots.end(session, self.pilot, "no jobs left")
            session.execute(sa.update(Attempt).values(shown=True))
            if state is WorkflowState.CANCELLED:
                workflows.cancel(session, self.workflow, "enough")
                return
            counts = tasks.count_jobs(session, [self.task])[self.task]
            task_state = TaskState(state)
            tasks.end(session, self.task, task_state, None, counts)
            workflows.finish(session, self.workflow, state, None)

    def rows(self, model: Any) -> int:
        with self.catalog.read() as session:
            return int(session.execute(sa.select(sa.func.count()).select_from(model)).scalar_one())

    def told(self, entity: str, entity_id: int) -> list[str | None]:
        """The messages of the events that say that history went."""
        with self.catalog.read() as session:
            found = events.history(session, entity, entity_id)
        return [event.message for event in found if event.after == history.PRUNED]

    def output(self, key: str, port: str = "out") -> int:
        with self.catalog.read() as session:
            out = tasks.outputs(session, [self.task])[self.task][port]
            name = f"{key}/{port}"
            return jobfiles.files_by_name(session, out.dataset_id, [name])[name]


@pytest.fixture
def begin(
    catalog: Catalog, add_files: Callable[[int, Sequence[str]], list[int]], tmp_path: Path
) -> Callable[..., Past]:
    """Begin a workflow over so many files."""
    with catalog.write() as session:
        internal = storages.add(
            session, "internal", StorageKind.LOCAL, StorageRole.INTERNAL, str(tmp_path / "i")
        )
        template = templates.create(session, "t", "run-*[0-9]", {}, {}, "d")
        templates.activate(session, template.id)

    def make(name: str = "run-1", count: int = COUNT) -> Past:
        with catalog.write() as session:
            dataset = datasets.create(session, name)
        files = add_files(dataset, [f"{name}-{i}" for i in range(count)])
        outputs = {"out": internal.id, "log": internal.id}
        with catalog.write() as session:
            workflow, _ = definition.define(
                session, template.id, dataset, [NewTask("step", "cpu", 0, outputs)],
                inputs={}, rank=0,
            )  # fmt: skip
            session.execute(
                sa.update(Workflow)
                .where(Workflow.id == workflow)  # type: ignore[arg-type]
                .values(state=WorkflowState.IN_PROGRESS)
            )
            (task,) = tasks.of_workflow(session, workflow)
            tasks.begin(session, [task.id])
            new = [
                NewJob(f"{name}-{i}", i, JobState.READY, {"x": [file]})
                for i, file in enumerate(files)
            ]
            jobs.define(session, task.id, new, passed=True)
            pilot = pilots.start(
                session, task.id, pool="cpu", node="n7", pid=1, slots=2, flow_run_id="run"
            )
        return Past(catalog, workflow, task.id, pilot, tuple(files))

    return make


def prune(catalog: Catalog, **more: Any) -> history.Pruned:
    return history.prune(catalog, OLD_S, share=1.0, **more)


@pytest.fixture
def old(begin: Callable[..., Past]) -> Past:
    """A workflow that finished long ago."""
    past = begin()
    past.work()
    past.end()
    clock.shift_clock(LONG_AFTER_S)
    return past


def test_jobs_attempts_and_pilots_go_and_are_counted(catalog: Catalog, old: Past) -> None:
    with catalog.read() as session:
        expected = history.prunable(session, OLD_S)
    done = prune(catalog)
    assert done == history.Pruned(1, jobs=COUNT, attempts=COUNT, pilots=1, events=2)
    assert (expected.workflows, expected.jobs, expected.attempts, expected.pilots) == (
        1, COUNT, COUNT, 1,
    )  # fmt: skip
    assert [old.rows(model) for model in (Job, Attempt, Pilot)] == [0, 0, 0]
    assert old.told("task", old.task) == [f"history: {COUNT} jobs, {COUNT} attempts"]
    assert len(old.told("workflow", old.workflow)) == 1
    assert prune(catalog) == history.Pruned()


def test_nothing_goes_while_it_is_not_sure_what_time_it_is(catalog: Catalog, old: Past) -> None:
    with clock_of_another_boot(catalog):
        assert prune(catalog) == history.Pruned()
    assert prune(catalog).workflows == 1


def test_files_say_how_they_were_made_as_before(catalog: Catalog, old: Past) -> None:
    key = "run-1-3"
    asked = (old.output(key), old.output(key, "log"))

    def ways() -> list[Any]:
        with catalog.read() as session:
            back = [lineage.lineage(session, file) for file in asked]
            return [*back, lineage.consumers(session, old.files[3])]

    before = ways()
    assert before[0].raw[0].id == old.files[3] and before[2][0].key == key
    prune(catalog)
    assert ways() == before
    with catalog.read() as session:
        kept = session.execute(sa.select(*sa.inspect(PastJob).columns)).mappings().all()  # type: ignore[union-attr]
    assert {(k["program"], k["tool_digest"], k["node"], k["attempt"]) for k in kept} == {
        ("1.2", "tool", "n7", 1)
    }


def test_the_numbers_of_its_tasks_stay(catalog: Catalog, old: Past) -> None:
    def numbers() -> Any:
        with catalog.read() as session:
            (row,) = tasks.progress(session, old.workflow)
            return dict(row.jobs), tasks.usage(session, [old.task])

    before = numbers()
    assert before[0] == {JobState.FINISHED: COUNT} and before[1][old.task].attempts == COUNT
    prune(catalog)
    assert numbers() == before


def test_a_pruned_job_is_said_to_be_pruned(catalog: Catalog, old: Past) -> None:
    with catalog.read() as session:
        (job, *_) = jobs.list_jobs(session, task_id=old.task)
    prune(catalog)
    with catalog.read() as session, pytest.raises(NotFound, match="its history was pruned"):
        jobs.get(session, job.id)


def test_what_ended_lately_and_what_may_be_retried_stays(
    catalog: Catalog, begin: Callable[..., Past]
) -> None:
    failed = begin("run-1")
    failed.work()
    failed.end(WorkflowState.FAILED)
    going = begin("run-2")
    going.work(2)
    clock.shift_clock(LONG_AFTER_S)
    late = begin("run-3")
    late.work()
    late.end()
    before = [late.rows(model) for model in (Job, Attempt, Pilot, Event)]
    assert prune(catalog) == history.Pruned()
    assert [late.rows(model) for model in (Job, Attempt, Pilot, Event)] == before


def test_a_cancelled_workflow_keeps_nothing_of_jobs_that_never_ran(
    catalog: Catalog, begin: Callable[..., Past]
) -> None:
    past = begin()
    past.work(2)
    past.end(WorkflowState.CANCELLED)
    clock.shift_clock(LONG_AFTER_S)
    assert prune(catalog).jobs == COUNT
    assert [past.rows(m) for m in (PastJob, JobInput, JobOutput)] == [2, 2, 2]
    with catalog.read() as session:
        (row,) = tasks.progress(session, past.workflow)
    assert row.jobs == {JobState.FINISHED: 2, JobState.CANCELLED: COUNT - 2}


def test_what_prefect_does_not_show_yet_waits(catalog: Catalog, old: Past) -> None:
    with catalog.write() as session:
        first = sa.select(sa.func.min(Attempt.id)).scalar_subquery()  # type: ignore[arg-type]
        session.execute(sa.update(Attempt).where(Attempt.id == first).values(shown=False))  # type: ignore[arg-type]
    done = prune(catalog)
    assert (done.jobs, done.pilots, done.workflows) == (COUNT - 1, 0, 0)
    assert [old.rows(model) for model in (Job, Attempt, Pilot)] == [1, 1, 1]
    with catalog.write() as session:
        session.execute(sa.update(Attempt).values(shown=True))
    done = prune(catalog)
    assert (done.jobs, done.pilots, done.workflows) == (1, 1, 1)
    assert old.told("task", old.task) == [f"history: {COUNT} jobs, {COUNT} attempts"]


def test_it_goes_on_from_wherever_it_was_stopped(
    catalog: Catalog, begin: Callable[..., Past], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "BATCH", 2)
    pasts = [begin(f"run-{i}") for i in range(2)]
    for past in pasts:
        past.work()
        past.end()
    clock.shift_clock(LONG_AFTER_S)
    runs, total = 0, history.Pruned()
    while total.workflows != 2:
        runs += 1
        steps = itertools.count(1)
        total += prune(catalog, until=lambda: next(steps) >= runs)  # noqa: B023
        assert runs < 50
    assert runs > 5, "it was stopped between its transactions"
    assert (total.jobs, total.attempts, total.workflows) == (2 * COUNT, 2 * COUNT, 2)
    assert [len(past.told("task", past.task)) for past in pasts] == [1, 1]
    assert pasts[0].rows(PastJob) == 2 * COUNT


def test_answered_requests_go_and_the_others_stay(catalog: Catalog) -> None:
    with catalog.write() as session:
        asked = [
            parse({"kind": "dataset.close", "key": str(i), "datasetId": "d"}) for i in range(3)
        ]
        sent = requests.submit(session, asked)
        queue.answer(session, [Answer(sent[0], RequestState.DONE, {})])
        queue.answer(session, [Answer(sent[1], RequestState.ERROR, {})])
    clock.shift_clock(LONG_AFTER_S)
    assert prune(catalog) == history.Pruned(requests=1)
    with catalog.read() as session:
        assert {r.id for r in requests.list_requests(session)} == set(sent[1:])
        (told,) = [e for e in events.recent(session) if e.after == history.PRUNED]
    assert told.message == f"1 answered requests, up to number {sent[0]}"


def test_work_goes_on_while_history_is_pruned_by_two(
    catalog: Catalog, begin: Callable[..., Past], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "BATCH", 5)
    count = 60
    past = begin("run-1", count)
    past.work(count)
    past.end()
    clock.shift_clock(LONG_AFTER_S)
    now = begin("run-2", count)
    results: list[history.Pruned] = []
    pruners = [threading.Thread(target=lambda: results.append(prune(catalog))) for _ in range(2)]
    for thread in pruners:
        thread.start()
    ended = 0
    while ended < count:
        step = now.work(4)
        assert step == 4
        ended += step
    for thread in pruners:
        thread.join()
    assert sum(result.jobs for result in results) == count
    assert past.rows(PastJob) == count and past.rows(Job) == count
    with catalog.read() as session:
        (row,) = tasks.progress(session, now.workflow)
    assert row.jobs == {JobState.FINISHED: count}
    assert len(past.told("task", past.task)) == len(past.told("workflow", past.workflow)) == 1
    assert past.rows(Task) == 2


def test_new_jobs_are_none_of_those_that_were_pruned(
    catalog: Catalog, begin: Callable[..., Past], old: Past
) -> None:
    assert prune(catalog).jobs == COUNT and old.rows(Job) == 0
    now = begin("run-2")
    assert now.work() == COUNT
    with catalog.read() as session:
        gone = set(session.scalars(sa.select(PastJob.id)))  # type: ignore[call-overload]
        made = set(session.scalars(sa.select(Job.id)))  # type: ignore[call-overload]
    assert len(gone) == len(made) == COUNT and not gone & made
    now.end()
    clock.shift_clock(2 * LONG_AFTER_S)
    assert prune(catalog).jobs == COUNT
    assert now.rows(PastJob) == 2 * COUNT, "each is remembered"
