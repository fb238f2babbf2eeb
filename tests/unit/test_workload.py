"""Defining, leasing, ending and settling jobs: the catalog and the advancer without a node."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import col

from catalog import (
    attempts,
    clock,
    completion,
    datasets,
    definition,
    jobfiles,
    losses,
    ownership,
    pilots,
    storages,
    tasks,
    templates,
    workflows,
)
from catalog.attempts import Lease
from catalog.db import Catalog
from catalog.definition import NewTask
from catalog.errors import Conflict, ErrorCode, StateConflict
from catalog.models import (
    Attempt,
    DatasetFile,
    File,
    Job,
    Replica,
    StorageKind,
    StorageRole,
)
from catalog.refs import JobResult, NewFile, Outcome, ReplicaRef
from catalog.settings import Settings
from catalog.signs import Outlook, TaskSigns, WorkflowSigns
from catalog.states import (
    AttemptState,
    DatasetState,
    JobState,
    Phase,
    ReplicaState,
    TaskState,
    WorkflowState,
)
from flows.advance import Chain, OwnershipLost, advance, load, take_back
from flows.dispatch import Dispatcher
from flows.plan import Link, Pick, Plan, Source, Stage, StageKind, plan_to_json
from flows.share import Share
from flows.shift.hand import Hand
from flows.shift.leases import Leases
from tests.conftest import EVERY_WAY
from workers.spec import OutputPort, Resources, StepSpec

pytestmark = EVERY_WAY

LEASE_S = 60.0


def stage(name: str, *links: Link, kind: StageKind = StageKind.MAP, **more: object) -> Stage:
    fields = {"descent": "", "resources": Resources(), "fixed": ()} | more
    step = StepSpec({"class": "CommandLineTool"}, (), (OutputPort("out", "File"),))
    return Stage(name=name, kind=kind, step=step, links=links, **fields)  # type: ignore[arg-type]


def link(source: str | None, *others: str, **more: object) -> Link:
    sources = [Source(source, "files" if source is None else "out")]
    sources += [Source(other, "out") for other in others]
    return Link("x", tuple(sources), **more)  # type: ignore[arg-type]


@dataclass
class Run:
    """A workflow that is advanced by hand."""

    catalog: Catalog
    chain: Chain
    storage: int
    pilots: dict[str, int] = field(default_factory=dict)

    def advance(self) -> WorkflowState:
        return advance(self.chain)

    def pilot(self, stage: str, *, new: bool = False) -> int:
        if new or stage not in self.pilots:
            with self.catalog.write() as session:
                self.pilots[stage] = pilots.start(
                    session,
                    self.chain.task_ids[stage],
                    pool="cpu",
                    node="n",
                    pid=1,
                    slots=2,
                    flow_run_id=None,
                )
        return self.pilots[stage]

    def lease(self, stage: str, limit: int = 100, *, alone: bool = False) -> list[Lease]:
        pilot = self.pilot(stage)
        with self.catalog.write() as session:
            return attempts.lease(
                session,
                pilot,
                self.chain.task_ids[stage],
                limit,
                lease_s=LEASE_S,
                node="n",
                program="1",
                tool_digest="d",
                alone=alone,
            )

    def end(
        self,
        stage: str,
        leases: Sequence[Lease],
        *,
        outcome: Outcome = Outcome.FINISHED,
        error: ErrorCode | None = None,
        empty: Sequence[str] = (),
        retry: int = 1,
        pilot: int | None = None,
    ) -> frozenset[int]:
        task_id = self.chain.task_ids[stage]
        with self.catalog.write() as session:
            out = tasks.outputs(session, [task_id])[task_id]["out"]
            return completion.finish(
                session,
                pilot or self.pilot(stage),
                [
                    JobResult(
                        job_id=lease.job_id,
                        attempt_id=lease.attempt_id,
                        number=lease.number,
                        outcome=outcome,
                        error=error,
                        exit_code=3 if error else 0,
                        files=(self._file(out, lease),)
                        if outcome is Outcome.FINISHED and lease.key not in empty
                        else (),
                    )
                    for lease in leases
                ],
                retry=retry,
            )

    def _file(self, out: tasks.OutputDataset, lease: Lease) -> NewFile:
        return NewFile(
            port="out",
            index=0,
            name=f"{lease.key}/o",
            size_bytes=1,
            checksum="adler32:00010001",
            storage_id=self.storage,
            path=f"{out.name}/{lease.key}/a{lease.number}/o",
            dataset_id=out.dataset_id,
        )

    def finish_all(self, stage: str, **more: object) -> None:
        self.end(stage, self.lease(stage), **more)  # type: ignore[arg-type]

    def states(self, stage: str) -> dict[JobState, int]:
        with self.catalog.read() as session:
            rows = tasks.progress(session, self.chain.workflow_id)
        return dict(next(row.jobs for row in rows if row.task.stage == stage))

    def task(self, stage: str) -> tasks.TaskInfo:
        with self.catalog.read() as session:
            return tasks.get(session, self.chain.task_ids[stage])

    def output(self, stage: str) -> datasets.DatasetInfo:
        task_id = self.chain.task_ids[stage]
        with self.catalog.read() as session:
            out = tasks.outputs(session, [task_id])[task_id]["out"]
            return datasets.get(session, out.dataset_id)


@pytest.fixture
def start(
    catalog: Catalog, add_files: Callable[[int, Sequence[str]], list[int]], tmp_path: Path
) -> Callable[..., Run]:
    """Start a workflow over a dataset of so many files."""

    def begin(*stages: Stage, files: int = 4, close: bool = True) -> Run:
        with catalog.write() as session:
            dataset = datasets.create(session, "run-1")
            internal = storages.add(
                session, "internal", StorageKind.LOCAL, StorageRole.INTERNAL, str(tmp_path / "i")
            )
        add_files(dataset, [f"f{i}" for i in range(files)])
        plan = Plan("files", stages)
        with catalog.write() as session:
            if close:
                datasets.close(session, dataset)
            template = templates.create(session, "t", "run-*[0-9]", {}, plan_to_json(plan), "d")
            templates.activate(session, template.id)
        new = [NewTask(s.name, "cpu", 0, {"out": internal.id, "log": internal.id}) for s in stages]
        with catalog.write() as session:
            workflow, _ = definition.define(
                session, template.id, dataset, new, inputs={}, rank=0, again=False
            )
            epoch = ownership.claim(session, workflow, "me", LEASE_S, None)
        assert epoch == 1
        return Run(catalog, load(catalog, workflow, epoch, LEASE_S), internal.id)

    return begin


def test_two_map_stages_finish_with_every_file_once(start: Callable[..., Run]) -> None:
    run = start(stage("a", link(None)), stage("b", link("a")), files=5)
    run.advance()
    assert run.states("a") == {JobState.READY: 5}
    assert run.states("b") == {}
    some = run.lease("a", 2)
    assert [lease.key for lease in some] == ["f0", "f1"]
    run.end("a", some)
    run.advance()
    assert run.states("b") == {JobState.READY: 2}, "a file goes on as soon as it is registered"
    run.finish_all("a")
    run.advance()
    assert run.task("a").state is TaskState.FINISHED
    assert run.output("a").state is DatasetState.CLOSED
    run.finish_all("b")
    assert run.advance() is WorkflowState.FINISHED
    closed = run.output("b")
    assert (closed.state, closed.file_count) == (DatasetState.CLOSED, 5)
    assert run.output("b").name == "run-1.t.v1.b.out"


def test_advancing_again_changes_nothing(start: Callable[..., Run]) -> None:
    run = start(stage("a", link(None)), stage("b", link("a")))
    for _ in range(3):
        run.advance()
    assert run.states("a") == {JobState.READY: 4}
    run.finish_all("a")
    for _ in range(3):
        run.advance()
    assert run.states("b") == {JobState.READY: 4}


def test_files_that_arrive_later_become_jobs(
    start: Callable[..., Run], add_files: Callable[[int, Sequence[str]], list[int]]
) -> None:
    run = start(stage("a", link(None)), files=2, close=False)
    run.advance()
    run.finish_all("a")
    assert run.advance() is WorkflowState.IN_PROGRESS, "an OPEN dataset may still grow"
    add_files(run.chain.dataset_id, ["late"])
    run.advance()
    assert run.states("a") == {JobState.FINISHED: 2, JobState.READY: 1}
    with run.catalog.write() as session:
        datasets.close(session, run.chain.dataset_id)
    run.finish_all("a")
    assert run.advance() is WorkflowState.FINISHED


def test_lineage_names_the_input_of_every_output(start: Callable[..., Run]) -> None:
    run = start(stage("a", link(None)), stage("b", link("a")))
    run.advance()
    run.finish_all("a")
    run.advance()
    leases = run.lease("b")
    with run.catalog.read() as session:
        given = jobfiles.inputs(session, [lease.job_id for lease in leases])
    for lease in leases:
        (ref,) = given[lease.job_id]["x"]
        assert ref.name == f"{lease.key}/o"
        assert ref.replicas[0].path == f"run-1.t.v1.a.out/{lease.key}/a1/o"


def test_a_failing_file_is_retried_and_then_fails_the_workflow(start: Callable[..., Run]) -> None:
    run = start(stage("a", link(None)), stage("b", link("a")), files=3)
    run.advance()
    leases = run.lease("a")
    run.end("a", leases[1:])
    bad = leases[:1]
    for expected in (1, 2):
        assert bad[0].number == expected
        run.end("a", bad, outcome=Outcome.FAILED, error=ErrorCode.PAYLOAD_FAILED, retry=1)
        bad = run.lease("a")
    assert bad == [], "no third attempt with retry 1"
    run.advance()
    run.finish_all("b")
    assert run.advance() is WorkflowState.FAILED
    assert run.states("a") == {JobState.FINISHED: 2, JobState.FAILED: 1}
    assert run.states("b") == {JobState.FINISHED: 2}
    assert run.output("a").state is DatasetState.OPEN
    with run.catalog.read() as session:
        info = workflows.get(session, run.chain.workflow_id)
    assert "1 of 3 jobs failed: PAYLOAD_FAILED (exit code 3)" in (info.reason or "")
    assert run.task("b").reason == "stage a failed before it"


def test_a_permanent_failure_is_not_retried(start: Callable[..., Run]) -> None:
    run = start(stage("a", link(None)), files=1)
    run.advance()
    leases = run.lease("a")
    run.end("a", leases, outcome=Outcome.FAILED, error=ErrorCode.PAYLOAD_PERMANENT, retry=5)
    assert run.states("a") == {JobState.FAILED: 1}


def test_a_report_makes_the_copy_bad_that_was_read_and_no_other(
    start: Callable[..., Run], storage: storages.StorageInfo
) -> None:
    run = start(stage("a", link(None)), files=2)
    run.advance()
    first, second = run.lease("a")
    copies = [
        Replica(file_id=i, storage_id=run.storage, path=f"copies/{i}", in_place=False)
        for i in (1, 2)
    ]
    with run.catalog.write() as session:
        session.add_all(copies)
    ends = [
        JobResult(
            first.job_id, first.attempt_id, first.number, Outcome.FAILED,
            error=ErrorCode.INPUT_CORRUPT, bad_inputs=(ReplicaRef(storage.id, "f0"),),
        ),
        JobResult(
            second.job_id, second.attempt_id, second.number, Outcome.SKIPPED,
            bad_inputs=(ReplicaRef(run.storage, "copies/2"),),
        ),
    ]  # fmt: skip
    with run.catalog.write() as session:
        completion.finish(session, run.pilot("a"), ends, retry=0)
    with run.catalog.read() as session:
        bad = session.scalars(
            sa.select(col(Replica.path)).where(col(Replica.state) == ReplicaState.BAD)
        )
        assert sorted(bad) == ["copies/2", "f0"]


def test_retry_finishes_just_the_failed_ones(start: Callable[..., Run]) -> None:
    run = start(stage("a", link(None)), stage("b", link("a")), files=3)
    run.advance()
    leases = run.lease("a")
    run.end("a", leases[:2])
    run.end("a", leases[2:], outcome=Outcome.FAILED, error=ErrorCode.PAYLOAD_PERMANENT)
    run.advance()
    run.finish_all("b")
    assert run.advance() is WorkflowState.FAILED
    with run.catalog.write() as session:
        assert workflows.retry(session, run.chain.workflow_id) == 1
    with pytest.raises(OwnershipLost):
        run.advance()
    clock.shift_clock(1.0)
    with run.catalog.write() as session:
        epoch = ownership.claim(session, run.chain.workflow_id, "other", LEASE_S, None)
    assert epoch is not None
    again = Run(run.catalog, load(run.catalog, run.chain.workflow_id, epoch, LEASE_S), run.storage)
    again.advance()
    leases = again.lease("a")
    assert [lease.key for lease in leases] == ["f2"]
    again.end("a", leases)
    again.advance()
    again.finish_all("b")
    assert again.advance() is WorkflowState.FINISHED
    assert again.output("b").file_count == 3


def test_a_superseded_attempt_changes_nothing(start: Callable[..., Run]) -> None:
    run = start(stage("a", link(None)), files=1)
    run.advance()
    old, first = run.lease("a"), run.pilot("a")
    clock.shift_clock(LEASE_S + 1)
    with run.catalog.write() as session:
        ownership.beat(session, run.chain.workflow_id, 1, 10 * LEASE_S)
    assert take_back(run.chain, LEASE_S) == 1
    run.pilot("a", new=True)
    new = run.lease("a")
    assert (old[0].number, new[0].number) == (1, 2)
    assert run.end("a", old, pilot=first) == frozenset()
    with run.catalog.read() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Replica)) == 1
    assert run.end("a", new) == {new[0].job_id}
    run.advance()
    with run.catalog.read() as session:
        rows = session.execute(
            sa.select(col(Attempt.number), col(Attempt.state)).order_by(col(Attempt.number))
        ).all()
    assert [tuple(row) for row in rows] == [(1, AttemptState.LOST), (2, AttemptState.FINISHED)]
    assert run.output("a").file_count == 1


def test_an_attempt_number_fences_a_pilot_from_its_own_past(start: Callable[..., Run]) -> None:
    run = start(stage("a", link(None)), files=1)
    run.advance()
    old = run.lease("a")
    clock.shift_clock(LEASE_S + 1)
    with run.catalog.write() as session:
        assert losses.take_back(session, [run.chain.task_ids["a"]]) == 1
    new = run.lease("a")
    assert new[0].number == old[0].number + 1
    assert run.end("a", old) == frozenset(), "the same pilot, but an earlier attempt"
    assert run.end("a", new) == {new[0].job_id}


def test_a_draining_pilot_leases_nothing(start: Callable[..., Run]) -> None:
    run = start(stage("a", link(None)), files=2)
    run.advance()
    pilot = run.pilot("a")
    with run.catalog.write() as session:
        assert pilots.drain(session, [pilot], "test") == [pilot]
    assert run.lease("a") == []
    run.pilot("a", new=True)
    assert len(run.lease("a")) == 2


def test_a_pilot_makes_room_only_for_a_task_that_has_none(start: Callable[..., Run]) -> None:
    run = start(stage("a", link(None)), stage("b", link("a")), files=2)
    run.advance()
    run.finish_all("a")
    run.advance()

    def wanted(pool: str) -> bool:
        query = tasks.others_ready_query(pool, run.chain.task_ids["a"])
        with run.catalog.read() as session:
            return session.execute(query).scalar() is not None

    assert wanted("cpu") and not wanted("gpu")
    run.pilot("b")
    assert not wanted("cpu"), "somebody works on them"


def outlook(run: Run, stage: str, long_s: float = 1e6) -> Outlook:
    task_id = run.chain.task_ids[stage]
    return TaskSigns(run.catalog, task_id, pool="cpu", node="n", long_s=long_s).outlook()


def test_a_pilot_sees_whether_more_may_come(
    start: Callable[..., Run], add_files: Callable[[int, Sequence[str]], list[int]]
) -> None:
    run = start(stage("a", link(None)), stage("b", link("a")), files=1, close=False)
    run.advance()
    assert outlook(run, "a").more_may_come
    run.finish_all("a")
    with run.catalog.write() as session:
        datasets.close(session, run.chain.dataset_id)
    assert not outlook(run, "a").more_may_come, "the input is closed"
    assert outlook(run, "b").more_may_come, "the stage before has not ended"
    run.advance()
    assert outlook(run, "a").ended
    assert not outlook(run, "b").more_may_come
    assert not outlook(run, "b").ended


def test_a_pilot_sees_who_waits_for_its_place(start: Callable[..., Run]) -> None:
    run = start(stage("a", link(None)), stage("b", link("a")), files=2, close=False)
    run.advance()
    run.finish_all("a")
    assert outlook(run, "a", 0.0).here == 1
    assert not outlook(run, "a", 0.0).others_wait
    run.advance()
    seen = outlook(run, "a")
    assert seen.others_wait
    assert not seen.others_waited, "its pilot may be on its way"
    assert outlook(run, "a", 0.0).others_waited
    run.pilot("b")
    assert not outlook(run, "a", 0.0).others_wait
    assert outlook(run, "a").here == 2


def test_a_look_tells_whether_a_job_can_be_leased(start: Callable[..., Run]) -> None:
    run = start(stage("a", link(None)), files=2, close=False)
    signs = TaskSigns(run.catalog, run.chain.task_ids["a"], pool="cpu", node="n", long_s=1.0)
    assert not signs.work_there()
    run.advance()
    assert signs.work_there()
    first, second = run.lease("a")
    assert not signs.work_there()
    run.end("a", [first], outcome=Outcome.FAILED, error=ErrorCode.CONTAINER_FAILED)
    assert not signs.work_there(), "its next attempt is not due"
    with run.catalog.write() as session:
        pair = (second.job_id, second.number)
        attempts.hand_back(session, run.pilot("a"), [pair])
    assert signs.work_there()


def test_the_signs_of_a_workflow_change_with_what_an_advance_would_find(
    start: Callable[..., Run], add_files: Callable[[int, Sequence[str]], list[int]]
) -> None:
    run = start(stage("a", link(None)), stage("b", link("a")), files=1, close=False)
    chain = run.chain
    signs = WorkflowSigns(run.catalog, chain.workflow_id, list(chain.task_ids.values()))
    seen = [signs.look()]

    def changed() -> bool:
        seen.append(signs.look())
        return seen[-1] != seen[-2]

    assert not changed()
    add_files(chain.dataset_id, ["late"])
    assert changed(), "a file came"
    run.advance()
    assert changed(), "jobs for which there is no pilot"
    run.pilot("a")
    assert changed(), "a pilot came"
    leases = run.lease("a")
    assert not changed(), "a lease is nothing to advance"
    run.end("a", leases[:1])
    assert changed(), "a job ended"
    run.pilot("b")
    assert changed()
    run.advance()
    assert not changed(), "what an advance does itself, for pilots that are there, is no sign"
    with run.catalog.write() as session:
        datasets.close(session, chain.dataset_id)
    assert changed(), "the dataset is closed"
    with run.catalog.write() as session:
        workflows.cancel(session, chain.workflow_id, "test")
    assert changed(), "the workflow is cancelled"


class Asking(Dispatcher):
    """Remembers for which stages it would ask Prefect for a pilot."""

    def _submit(self, stage: Stage) -> None:
        self._asked.setdefault(-1, {})[f"{len(self.asked())}:{stage.name}"] = 0.0

    def asked(self) -> list[str]:
        return [key.partition(":")[2] for key in self._asked.get(-1, {})]


def test_a_pilot_is_asked_for_once_while_the_stage_before_works(
    start: Callable[..., Run], tmp_path: Path
) -> None:
    merge = stage("all", link("a"), kind=StageKind.MERGE, descent="m")
    run = start(
        stage("a", link(None)), stage("b", link("a")), stage("c", link("b")), merge,
        stage("late", link("a"), barrier=True), files=4,
    )  # fmt: skip
    settings = Settings(_env_file=None, home=tmp_path, slots=2, max_pilots=1)
    dispatcher = Asking(run.chain, settings, None, "run-1")  # type: ignore[arg-type]
    dispatcher._looking = Share(0.0, math.inf)
    dispatcher.dispatch()
    assert dispatcher.asked() == [], "nothing moves yet"
    run.advance()
    dispatcher.dispatch()
    assert dispatcher.asked() == ["a", "b"], "one for its jobs, one ahead, none for what waits"
    run.pilot("a")
    dispatcher.dispatch()
    assert dispatcher.asked() == ["a", "b"], "ahead once"
    run.end("a", run.lease("a", 1))
    run.advance()
    run.pilot("b")
    dispatcher.dispatch()
    assert dispatcher.asked() == ["a", "b", "c"]


def test_a_group_waits_for_keys_that_have_no_job_yet(start: Callable[..., Run]) -> None:
    merge = stage("m", link("b"), kind=StageKind.MERGE, descent="m", files_per_job=2)
    run = start(stage("a", link(None)), stage("b", link("a")), merge, files=3)
    run.advance()
    leases = run.lease("a")
    run.end("a", leases[1:])
    run.advance()
    run.finish_all("b")
    run.advance()
    assert run.states("m") == {}, "f0 is still to come, and comes first"
    run.end("a", leases[:1])
    run.advance()
    run.finish_all("b")
    run.advance()
    assert run.states("m") == {JobState.READY: 2}


def test_an_attempt_ends_only_once(start: Callable[..., Run]) -> None:
    run = start(stage("a", link(None)), files=2)
    run.advance()
    leases = run.lease("a")
    assert run.end("a", leases) == {lease.job_id for lease in leases}
    assert run.end("a", leases) == frozenset()
    with run.catalog.read() as session:
        made = sa.select(sa.func.count()).select_from(DatasetFile)
        here = made.where(col(DatasetFile.dataset_id) == run.output("a").id)
        assert session.scalar(here) == 2


def test_leases_never_started_go_back_without_an_attempt(start: Callable[..., Run]) -> None:
    run = start(stage("a", link(None)), files=3)
    run.advance()
    leases = run.lease("a")
    with run.catalog.write() as session:
        back = attempts.hand_back(
            session, run.pilot("a"), [(lease.job_id, lease.number) for lease in leases[1:]]
        )
    assert back == 2
    assert run.states("a") == {JobState.RUNNING: 1, JobState.READY: 2}
    with run.catalog.read() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Attempt)) == 1
    assert [lease.number for lease in run.lease("a")] == [1, 1]


def test_a_heartbeat_renews_and_tells_what_is_lost(start: Callable[..., Run]) -> None:
    run = start(stage("a", link(None)), files=2)
    run.advance()
    leases = run.lease("a")
    clock.shift_clock(LEASE_S - 1)
    with run.catalog.write() as session:
        beat = attempts.heartbeat(session, run.pilot("a"), LEASE_S, {})
    assert beat.held == {lease.job_id for lease in leases}
    clock.shift_clock(LEASE_S + 5)
    with run.catalog.write() as session:
        ownership.beat(session, run.chain.workflow_id, 1, LEASE_S)
    assert take_back(run.chain, LEASE_S) == 0
    with run.catalog.write() as session:
        workflows.cancel(session, run.chain.workflow_id, "test")
    with run.catalog.write() as session:
        assert attempts.heartbeat(session, run.pilot("a"), LEASE_S, {}).held == frozenset()


@pytest.mark.parametrize(("phase", "times"), [(Phase.PAYLOAD, 3), (None, 6)])
def test_a_job_that_kills_its_pilots_is_held(
    start: Callable[..., Run], phase: Phase | None, times: int
) -> None:
    run = start(stage("a", link(None)), files=1)
    run.advance()
    for loss in range(times):
        pilot = run.pilot("a", new=True)
        leases = run.lease("a") or run.lease("a", alone=True)
        assert len(leases) == 1, loss
        if phase is not None:
            with run.catalog.write() as session:
                attempts.heartbeat(session, pilot, LEASE_S, {leases[0].attempt_id: phase})
        clock.shift_clock((loss + 1) * (LEASE_S + 1))
        with run.catalog.write() as session:
            ownership.beat(session, run.chain.workflow_id, 1, 10 * LEASE_S)
        take_back(run.chain, LEASE_S)
    assert run.states("a") == {JobState.HELD: 1}
    assert run.advance() is WorkflowState.IN_PROGRESS


def test_filtered_keys_are_skipped_and_merged_groups_keep_the_order(
    start: Callable[..., Run],
) -> None:
    merge = stage(
        "m", link("a", pick=Pick.ALL_NON_NULL), kind=StageKind.MERGE, descent="m", files_per_job=2
    )
    run = start(stage("a", link(None)), stage("b", link("a")), merge, files=6)
    run.advance()
    leases = run.lease("a")
    run.end("a", leases[3:])
    run.advance()
    assert run.states("m") == {}, "a group is cut only from the settled prefix"
    run.end("a", leases[:3], empty=["f1"])
    run.advance()
    assert run.states("b") == {JobState.READY: 5, JobState.SKIPPED: 1}
    assert run.states("m") == {JobState.READY: 3}
    groups = run.lease("m")
    with run.catalog.read() as session:
        given = jobfiles.inputs(session, [lease.job_id for lease in groups])
    names = [[ref.name for ref in given[lease.job_id]["x"]] for lease in groups]
    assert names == [["f0/o", "f2/o"], ["f3/o", "f4/o"], ["f5/o"]]
    run.end("m", groups)
    run.finish_all("b")
    assert run.advance() is WorkflowState.FINISHED
    assert run.output("m").file_count == 3


def test_a_merge_of_two_sources_takes_one_source_after_the_other(
    start: Callable[..., Run],
) -> None:
    both = Link("x", (Source("a", "out"), Source("b", "out")), pick=Pick.ALL_NON_NULL)
    first = Link("y", (Source("b", "out"), Source("a", "out")), pick=Pick.FIRST_NON_NULL)
    merge = stage("m", both, first, kind=StageKind.MERGE, descent="m")
    run = start(stage("a", link(None)), stage("b", link(None)), merge, files=2)
    run.advance()
    run.finish_all("a")
    run.finish_all("b", empty=["f0"])
    run.advance()
    (group,) = run.lease("m")
    with run.catalog.read() as session:
        given = jobfiles.inputs(session, [group.job_id])[group.job_id]
    places = {
        port: [ref.replicas[0].path.split(".v1.")[1] for ref in refs]
        for port, refs in given.items()
    }
    assert places == {
        "x": ["a.out/f0/a1/o", "a.out/f1/a1/o", "b.out/f1/a1/o"],
        "y": ["a.out/f0/a1/o", "b.out/f1/a1/o"],
    }


def test_a_merge_of_all_waits_for_all(start: Callable[..., Run]) -> None:
    merge = stage("m", link("a"), kind=StageKind.MERGE, descent="m")
    run = start(stage("a", link(None)), merge, files=3)
    run.advance()
    leases = run.lease("a")
    run.end("a", leases[:2])
    run.advance()
    assert run.states("m") == {}
    run.end("a", leases[2:])
    run.advance()
    assert run.states("m") == {JobState.READY: 1}


def test_a_join_waits_for_both_and_is_by_key(start: Callable[..., Run]) -> None:
    join = stage(
        "j",
        Link("raw", (Source(None, "files"),)),
        Link("x", (Source("a", "out"),)),
        Link("y", (Source("b", "out"),), null_skips=False),
    )
    run = start(stage("a", link(None)), stage("b", link(None)), join, files=3)
    run.advance()
    run.finish_all("a")
    run.advance()
    assert run.states("j") == {}
    run.finish_all("b", empty=["f1"])
    run.advance()
    leases = run.lease("j")
    assert len(leases) == 3
    with run.catalog.read() as session:
        given = jobfiles.inputs(session, [lease.job_id for lease in leases])
    for lease in leases:
        files = {port: [ref.name for ref in refs] for port, refs in given[lease.job_id].items()}
        assert files.pop("raw") == [lease.key]
        both = {"x": [f"{lease.key}/o"], "y": [f"{lease.key}/o"]}
        assert files == ({"x": both["x"]} if lease.key == "f1" else both)


def test_branches_that_meet_take_the_first_that_is_there(start: Callable[..., Run]) -> None:
    meet = stage("m", link("a", "b", pick=Pick.FIRST_NON_NULL))
    run = start(stage("a", link(None)), stage("b", link(None)), meet, files=2)
    run.advance()
    run.finish_all("a", empty=["f0"])
    run.finish_all("b")
    run.advance()
    leases = run.lease("m")
    with run.catalog.read() as session:
        given = jobfiles.inputs(session, [lease.job_id for lease in leases])
    paths = [given[lease.job_id]["x"][0].replicas[0].path for lease in leases]
    assert paths == ["run-1.t.v1.b.out/f0/a1/o", "run-1.t.v1.a.out/f1/a1/o"]


def test_a_barrier_waits_for_the_closed_dataset(start: Callable[..., Run]) -> None:
    run = start(stage("a", link(None)), stage("b", link("a"), barrier=True), files=3)
    run.advance()
    leases = run.lease("a")
    run.end("a", leases[:2])
    run.advance()
    assert run.states("b") == {}
    run.end("a", leases[2:])
    run.advance()
    assert run.states("b") == {JobState.READY: 3}


def test_a_goal_tolerates_the_rest(start: Callable[..., Run]) -> None:
    run = start(stage("a", link(None), goal=0.75), stage("b", link("a")), files=4)
    run.advance()
    leases = run.lease("a")
    run.end("a", leases[:3])
    run.end("a", leases[3:], outcome=Outcome.FAILED, error=ErrorCode.PAYLOAD_PERMANENT)
    run.advance()
    assert run.task("a").state is TaskState.FINISHED
    run.finish_all("b")
    assert run.advance() is WorkflowState.FINISHED
    assert run.output("b").file_count == 3


def test_the_same_submission_is_one_workflow(start: Callable[..., Run]) -> None:
    run = start(stage("a", link(None)))
    with run.catalog.read() as session:
        info = workflows.get(session, run.chain.workflow_id)
    new = [NewTask("a", "cpu", 0, {"out": run.storage, "log": run.storage})]

    def define(again: bool) -> tuple[int, bool]:
        with run.catalog.write() as session:
            return definition.define(
                session, info.template_id, info.dataset_id, new, inputs={}, rank=0, again=again
            )

    assert define(again=False) == (info.id, False)
    other, created = define(again=True)
    assert created
    with run.catalog.read() as session:
        datasets.by_name(session, "run-1.t.v1.r2.a.out")
    with run.catalog.write() as session:
        assert workflows.cancel(session, info.id, "test")
        assert workflows.cancel(session, other, "test")
    third, created = define(again=False)
    assert created
    assert third not in (info.id, other)


def test_a_cancelled_workflow_has_nothing_running(start: Callable[..., Run]) -> None:
    run = start(stage("a", link(None)), files=3)
    run.advance()
    leases = run.lease("a", 2)
    with run.catalog.write() as session:
        workflows.cancel(session, run.chain.workflow_id, "by hand")
        assert not workflows.cancel(session, run.chain.workflow_id, "twice")
    assert run.states("a") == {JobState.CANCELLED: 3}
    assert run.end("a", leases) == frozenset()
    assert run.lease("a") == []
    with run.catalog.read() as session:
        states = set(session.scalars(sa.select(col(Attempt.state))))
        files = session.scalar(
            sa.select(sa.func.count()).select_from(File).where(col(File.scope) != "raw")
        )
    assert states == {AttemptState.CANCELLED}
    assert files == 0
    with pytest.raises(StateConflict), run.catalog.write() as session:
        workflows.retry(session, run.chain.workflow_id)


def test_only_one_run_owns_a_workflow(start: Callable[..., Run]) -> None:
    run = start(stage("a", link(None)))
    workflow = run.chain.workflow_id

    def claim() -> int | None:
        with run.catalog.write() as session:
            return ownership.claim(session, workflow, "other", LEASE_S, None)

    assert claim() is None
    clock.shift_clock(LEASE_S + 1)
    assert claim() == 2
    with pytest.raises(OwnershipLost):
        run.advance()


def test_outputs_for_a_closed_dataset_are_refused(start: Callable[..., Run]) -> None:
    run = start(stage("a", link(None)), files=1)
    run.advance()
    leases = run.lease("a")
    with run.catalog.write() as session:
        datasets.close(session, run.output("a").id)
    with pytest.raises(Conflict, match="not OPEN"):
        run.end("a", leases)
    with run.catalog.read() as session:
        job = session.execute(sa.select(col(Job.state))).scalar_one()
    assert job is JobState.RUNNING


def test_nothing_is_taken_on_beside_a_job_that_runs_alone(
    start: Callable[..., Run], tmp_path: Path
) -> None:
    run = start(stage("a", link(None)), files=3)
    run.advance()
    task: Any = SimpleNamespace(task_id=run.chain.task_ids["a"], tool_digest="d")
    settings = Settings(home=tmp_path, lease_s=LEASE_S)
    hand = Hand()
    with run.catalog.read() as session:
        known = [place.id for place in storages.list_all(session)]
    leases = Leases(run.catalog, settings, run.pilot("a"), task, hand, known)
    with run.catalog.write() as session:
        session.execute(sa.update(Job).where(col(Job.ordinal) == 0).values(losses=2))
        session.execute(sa.update(Job).where(col(Job.ordinal) == 2).values(state=JobState.HELD))

    def take() -> list[int]:
        until = time.monotonic() + 30
        while not (new := leases.take(10)) and not len(hand) and time.monotonic() < until:
            time.sleep(0.05)
        hand.add(new)
        return [job.spec.ordinal for job in new]

    assert take() == [1]
    assert take() == [], "another is in hand"
    hand.drop([(job.spec.job_id, job.spec.number) for job in hand.all()])
    assert take() == [0]
    with run.catalog.write() as session:
        session.execute(sa.update(Job).where(col(Job.ordinal) == 2).values(state=JobState.READY))
    time.sleep(1.1)
    assert take() == [], "the one in hand runs alone"
    hand.drop([(job.spec.job_id, job.spec.number) for job in hand.all()])
    assert take() == [2]


def test_a_pilot_takes_no_job_whose_files_are_on_a_storage_that_it_does_not_know(
    start: Callable[..., Run], tmp_path: Path
) -> None:
    run = start(stage("a", link(None)), files=3)
    run.advance()
    task: Any = SimpleNamespace(task_id=run.chain.task_ids["a"], tool_digest="d")
    settings = Settings(home=tmp_path, lease_s=LEASE_S)
    leases = Leases(run.catalog, settings, run.pilot("a"), task, Hand(), [run.storage])
    assert leases.take(10) == []
    assert leases.stale and leases.count == 0
    assert run.states("a") == {JobState.READY: 3}
    with run.catalog.read() as session:
        assert session.execute(sa.select(sa.func.count()).select_from(Attempt)).scalar() == 0
