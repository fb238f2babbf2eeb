"""Outages of storages and nodes: no job pays for them, who needs them waits, all goes on after."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import col

from catalog import (
    attempts,
    causes,
    clock,
    completion,
    holding,
    jobs,
    losses,
    nodes,
    obstacles,
    outages,
    pilots,
    problems,
    waits,
    workflows,
)
from catalog.attempts import Lease
from catalog.errors import ERRORS, ErrorClass, ErrorCode
from catalog.jobs import JobInfo
from catalog.models import Attempt, Job, Outage
from catalog.nodes import Announcement
from catalog.outages import OutageInfo
from catalog.refs import JobResult, Outcome
from catalog.settings import Settings
from catalog.signs import TaskSigns
from catalog.states import AttemptState, JobState, Phase, WorkflowState
from catalog.verdicts import MAX_SYSTEM_ATTEMPTS, OF_JOBS
from flows.dispatch import Dispatcher
from tests.conftest import EVERY_WAY
from tests.unit.test_workload import LEASE_S, Run, link, stage
from tests.unit.test_workload import start as start

pytestmark = EVERY_WAY

OF_STORAGES = [
    ErrorCode.STORAGE_FULL, ErrorCode.STORAGE_UNAVAILABLE, ErrorCode.STORAGE_DENIED,
    ErrorCode.STORAGE_GONE, ErrorCode.STORAGE_FAILED,
]  # fmt: skip
OF_NODES = [ErrorCode.NODE_DISK_FULL, ErrorCode.NODE_DISK_FAILED, ErrorCode.NODE_EXHAUSTED]


class Site:
    """A workflow whose pilots are on the nodes `n` and `m`."""

    def __init__(self, run: Run) -> None:
        self.run, self.catalog = run, run.catalog
        self.task = run.chain.task_ids["a"]
        self._pilots: dict[str, int] = {}
        run.advance()

    def node(self, *names: str) -> None:
        for name in names:
            said = Announcement(name, "cpu", 1, 2, 1024, (), None, "1")
            with self.catalog.write() as session:
                nodes.announce(session, said)

    def pilot(self, node: str) -> int:
        if node not in self._pilots:
            with self.catalog.write() as session:
                self._pilots[node] = pilots.start(
                    session, self.task, pool="cpu", node=node, pid=1, slots=2, flow_run_id=None
                )
        return self._pilots[node]

    def lease(self, node: str = "n", limit: int = 100) -> list[Lease]:
        pilot = self.pilot(node)
        with self.catalog.write() as session:
            return attempts.lease(
                session, pilot, self.task, limit, lease_s=LEASE_S, node=node, program="1",
                tool_digest="d",
            )  # fmt: skip

    def end(
        self,
        leases: Sequence[Lease],
        error: ErrorCode,
        node: str = "n",
        *,
        outcome: Outcome = Outcome.FAILED,
        **more: Any,
    ) -> None:
        results = [
            JobResult(
                one.job_id, one.attempt_id, one.number, outcome, error=error,
                message=f"it is {error}", **more,
            )
            for one in leases
        ]  # fmt: skip
        with self.catalog.write() as session:
            completion.finish(session, self.pilot(node), results, retry=0)

    def full(self, leases: Sequence[Lease], code: ErrorCode, node: str = "n") -> None:
        """The output storage is out when these want to store something."""
        self.end(leases, code, node, phase=Phase.STAGE_OUT, storage_id=self.run.storage)

    def out(self) -> list[OutageInfo]:
        with self.catalog.read() as session:
            return outages.current(session)

    def mend(self) -> None:
        with self.catalog.write() as session:
            for outage in outages.current(session):
                assert outages.end(session, outage)

    def jobs(self) -> list[JobInfo]:
        with self.catalog.read() as session:
            return jobs.list_jobs(session, task_id=self.task)


@pytest.fixture
def site(start: Callable[..., Run]) -> Site:
    return Site(start(stage("a", link(None))))


@pytest.mark.parametrize("code", OF_STORAGES)
def test_an_outage_of_a_storage_costs_no_retry_and_its_producers_wait(
    site: Site, code: ErrorCode
) -> None:
    first = site.lease(limit=2)
    site.full(first, code)
    assert {(job.state, job.failures) for job in site.jobs()} == {(JobState.READY, 0)}
    assert site.lease() == [], "nobody produces for a storage that is out"
    assert [(o.storage, o.code) for o in site.out()] == [("internal", code)]
    assert "storage internal" in outages.sentence(site.out()[0])
    site.mend()
    again = site.lease()
    assert [lease.number for lease in again] == [2, 2, 1, 1]
    site.run.end("a", again, pilot=site.pilot("n"), retry=0)
    assert site.run.advance() is WorkflowState.FINISHED
    with site.catalog.read() as session:
        kept = session.execute(
            sa.select(col(Attempt.error), sa.func.count()).group_by(col(Attempt.error))
        )
        assert dict(kept.tuples().all()) == {code: 2, None: 4}, "what happened is history"


def test_a_full_storage_is_full_for_all_nodes_and_one_that_is_away_may_be_from_one(
    site: Site,
) -> None:
    site.full(site.lease("n", 1), ErrorCode.STORAGE_FULL)
    assert site.lease("m") == []
    site.mend()
    site.full(site.lease("n", 1), ErrorCode.STORAGE_UNAVAILABLE)
    assert site.lease("n") == []
    assert len(site.lease("m", 1)) == 1


@pytest.mark.parametrize("code", OF_NODES)
def test_an_outage_of_a_node_keeps_jobs_from_that_node_alone(site: Site, code: ErrorCode) -> None:
    site.end(site.lease("n", 2), code, phase=Phase.STAGE_IN)
    assert {(job.state, job.failures) for job in site.jobs()} == {(JobState.READY, 0)}
    assert site.lease("n") == []
    with site.catalog.read() as session:
        assert obstacles.glance(session, "n")[0]
        assert not obstacles.glance(session, "m")[0]
    assert len(site.lease("m")) == 4


def test_a_storage_that_is_away_for_reading_stops_who_reads_from_it(
    start: Callable[..., Run],
) -> None:
    site = Site(start(stage("a", link(None)), stage("b", link("a"))))
    with site.catalog.read() as session:
        raw = session.scalars(sa.text("SELECT id FROM storage WHERE name = 'raw'")).one()
    done = site.lease(limit=1)
    site.run.end("a", done, pilot=site.pilot("n"))
    site.run.advance()
    site.end(
        site.lease(limit=1), ErrorCode.STORAGE_UNAVAILABLE, phase=Phase.STAGE_IN, storage_id=raw
    )
    assert site.lease() == []
    assert len(site.run.lease("b")) == 1, "who reads from elsewhere goes on"
    site.mend()
    assert len(site.lease()) == 3


def test_a_look_tells_that_jobs_are_there_and_can_not_be_had(site: Site) -> None:
    signs = TaskSigns(site.catalog, site.task, pool="cpu", node="n", long_s=1.0)
    assert signs.work_there() and not signs.blocked
    site.full(site.lease(limit=1), ErrorCode.STORAGE_FULL)
    assert not signs.work_there() and signs.blocked
    site.mend()
    assert signs.work_there() and not signs.blocked


def test_dispatch_knows_which_tasks_and_nodes_wait(site: Site) -> None:
    site.node("n", "m")
    site.end(site.lease("n", 1), ErrorCode.NODE_DISK_FULL)
    with site.catalog.read() as session:
        assert obstacles.blocked_tasks(session, [site.task]) == set()
        assert obstacles.blocked_nodes(session, "cpu", site.task) == {"n"}
        assert obstacles.live_pilots(session, site.task, {"n"}) == 1
    site.full(site.lease("m", 1), ErrorCode.STORAGE_FULL, "m")
    with site.catalog.read() as session:
        assert obstacles.blocked_tasks(session, [site.task]) == {site.task}
        assert obstacles.blocked_nodes(session, "cpu", site.task) == {"n", "m"}


def test_one_pilot_is_asked_for_where_all_would_wait_and_none_for_a_node_that_is_out(
    site: Site, tmp_path: Path
) -> None:
    settings = Settings(_env_file=None, home=tmp_path, slots=1)
    dispatcher = Dispatcher(site.run.chain, settings, None, "run-1")  # type: ignore[arg-type]

    def need() -> tuple[int, int, int]:
        with site.catalog.read() as session:
            (found,) = dispatcher._needs(session)
        return found.wanted, found.live, found.nodes_online

    site.node("n", "m")
    assert need() == (2, 0, 2)
    site.end(site.lease("n", 1), ErrorCode.NODE_DISK_FULL)
    assert need() == (2, 0, 1), "a pilot that waits there is none that works"
    site.full(site.lease("m", 1), ErrorCode.STORAGE_FULL, "m")
    assert need() == (1, 2, 0)
    site.mend()
    assert need() == (2, 2, 2)


def test_looks_are_put_off_twice_as_far_each_time_and_nobody_else_has_the_same(site: Site) -> None:
    site.full(site.lease(limit=1), ErrorCode.STORAGE_FULL)
    waits, clock_s = [], 1.1
    clock.shift_clock(clock_s)
    for _ in range(8):
        with site.catalog.write() as session:
            (mine,) = outages.claim(session, "n")
            assert outages.claim(session, "m") == [], "it was just looked at"
        waits.append(mine.wait_s)
        with site.catalog.read() as session:
            assert not obstacles.glance(session, "m")[1]
        clock_s += mine.wait_s + 0.1
        clock.shift_clock(clock_s)
        with site.catalog.read() as session:
            assert obstacles.glance(session, "m")[1]
    assert waits == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


def test_what_is_out_again_soon_is_looked_at_as_seldom_as_before(site: Site) -> None:
    site.full(site.lease(limit=1), ErrorCode.STORAGE_FULL)
    for _ in range(3):
        with site.catalog.write() as session:
            session.execute(sa.update(Outage).values(next_at=clock.now(-1)))
            outages.claim(session, "n")
    before = site.out()[0]
    site.mend()
    site.full(site.lease(limit=1), ErrorCode.STORAGE_FULL)
    (again,) = site.out()
    assert again.wait_s == 2 * before.wait_s
    assert again.since > before.since
    with site.catalog.read() as session:
        assert not obstacles.glance(session, "n")[1]


def test_the_room_that_was_not_there_is_remembered(site: Site) -> None:
    for lease, size in zip(site.lease(), (10, 30, 20, 5), strict=True):
        site.end(
            [lease], ErrorCode.STORAGE_FULL, phase=Phase.STAGE_OUT, storage_id=site.run.storage,
            needed_bytes=size,
        )  # fmt: skip
    (outage,) = site.out()
    assert (outage.needed_bytes, outage.writing) == (30, True)


@pytest.mark.parametrize("code", [*OF_NODES, ErrorCode.PILOT_STOPPED])
def test_a_long_outage_of_a_node_holds_nobody_however_often_it_is_met(
    site: Site, code: ErrorCode
) -> None:
    for number in range(MAX_SYSTEM_ATTEMPTS + 2):
        (lease,) = site.lease(limit=1)
        assert (lease.number, lease.ordinal) == (number + 1, 0)
        site.end([lease], code)
        site.mend()
    assert [job.state for job in site.jobs()] == [JobState.READY] * 4
    site.end(site.lease(limit=1), ErrorCode.INTERNAL)
    assert site.jobs()[0].state is JobState.READY, "outages are no faults of ours"


def test_a_release_forgets_the_faults_before_it(site: Site) -> None:
    def faults(count: int) -> JobState:
        for _ in range(count):
            (lease,) = site.lease(limit=1)
            assert lease.ordinal == 0
            site.end([lease], ErrorCode.CONTAINER_FAILED)
            with site.catalog.write() as session:
                session.execute(sa.update(Job).values(not_before=None))
        return site.jobs()[0].state

    assert faults(MAX_SYSTEM_ATTEMPTS - 1) is JobState.READY
    assert faults(1) is JobState.HELD
    with site.catalog.write() as session:
        assert holding.release(session, task_id=site.task) == 1
    assert faults(MAX_SYSTEM_ATTEMPTS - 1) is JobState.READY
    assert faults(1) is JobState.HELD


def test_an_outage_of_a_storage_holds_nobody_however_often_it_is_met(site: Site) -> None:
    for _ in range(MAX_SYSTEM_ATTEMPTS + 2):
        site.full(site.lease(limit=1), ErrorCode.STORAGE_FULL)
        site.mend()
    (job, *_) = site.jobs()
    assert (job.state, job.attempt, job.failures) == (JobState.READY, MAX_SYSTEM_ATTEMPTS + 2, 0)
    site.end(site.lease(limit=1), ErrorCode.CONTAINER_FAILED)
    assert site.jobs()[0].state is JobState.READY, "only faults of its own kind count to the limit"


LACKING = [code for code, info in ERRORS.items() if info.elsewhere and code not in OF_JOBS]


@pytest.mark.parametrize("code", LACKING)
def test_what_one_node_lacks_is_tried_on_each_other_before_the_job_pays(
    site: Site, code: ErrorCode
) -> None:
    site.node("n", "m", "o")
    final = JobState.FAILED if ERRORS[code].error_class is ErrorClass.PERMANENT else JobState.HELD
    for node in ("n", "m"):
        (lease,) = site.lease(node, 1)
        site.end([lease], code, node)
        assert (site.jobs()[0].state, site.jobs()[0].failures) == (JobState.READY, 0)
        assert site.lease(node) == [], "another node is tried first"
        assert f"node {node} can't run stage a" in outages.sentence(site.out()[-1])
    site.end(site.lease("o", 1), code, "o")
    (job, *_) = site.jobs()
    assert (job.state, job.error) == (final, code)
    assert str(code) in str(job.reason)
    assert len(site.lease("n")) == 3, "no node is better than another now"


def test_where_there_is_no_other_node_a_missing_program_fails_at_once(site: Site) -> None:
    site.node("n")
    site.end(site.lease(limit=1), ErrorCode.PROGRAM_NOT_FOUND)
    assert site.jobs()[0].state is JobState.FAILED
    assert len(site.lease()) == 3, "the other jobs may need another program"


def test_a_node_is_tried_again_where_the_others_have_left_or_an_operator_says_so(
    site: Site,
) -> None:
    site.node("n", "m")
    site.end(site.lease("n", 1), ErrorCode.PROGRAM_NOT_FOUND)
    assert site.lease("n") == []
    with site.catalog.write() as session:
        (other,) = nodes.find(session, "m")
        nodes.leave(session, other.id, 1, "gone")
    site.end(site.lease("n", 1), ErrorCode.PROGRAM_NOT_FOUND)
    assert site.jobs()[0].state is JobState.FAILED
    site.node("m")
    assert site.lease("n") == []
    assert len(site.lease("m")) == 3


def test_a_job_ends_that_every_node_has_tried_however_long_that_takes(site: Site) -> None:
    """Each node is tried again for the task's other jobs after a while, but not for this one."""
    site.node("n", "m")
    site.end(site.lease("n", 1), ErrorCode.PROGRAM_NOT_FOUND)
    clock.shift_clock(outages.LACKS_S + 1)
    site.node("n", "m")
    site.end(site.lease("m", 1), ErrorCode.PROGRAM_NOT_FOUND, "m")
    assert site.jobs()[0].state is JobState.FAILED


def test_a_retry_forgets_what_nodes_lacked(site: Site) -> None:
    site.node("n", "m")
    site.end(site.lease("n", 1), ErrorCode.PROGRAM_NOT_FOUND)
    site.end(site.lease("m"), ErrorCode.PROGRAM_NOT_FOUND, "m")
    site.end(site.lease("n"), ErrorCode.PROGRAM_NOT_FOUND)
    assert site.run.advance() is WorkflowState.FAILED
    with site.catalog.write() as session:
        workflows.retry(session, site.run.chain.workflow_id)
    assert site.out() == []


def test_a_release_forgets_what_nodes_lacked(site: Site) -> None:
    site.node("n")
    site.end(site.lease("n"), ErrorCode.CONTAINER_ENGINE_MISSING)
    site.node("m")
    with site.catalog.write() as session:
        assert holding.release(session, task_id=site.task) == 4
    assert site.out() == []
    assert len(site.lease("n")) == 4


def test_a_process_of_a_pilot_that_dies_costs_no_retry_but_suspects_are_counted(
    site: Site,
) -> None:
    (lease,) = site.lease(limit=1)
    site.end([lease], ErrorCode.PROCESS_LOST, outcome=Outcome.LOST, phase=Phase.STAGE_IN)
    (job, *_) = site.jobs()
    assert (job.state, job.failures, job.losses) == (JobState.READY, 0, 0)
    for count in (1, 2):
        (lease,) = site.lease(limit=1)
        site.end([lease], ErrorCode.PROCESS_LOST, outcome=Outcome.LOST, phase=Phase.PAYLOAD)
        (job, *_) = site.jobs()
        assert (job.state, job.failures, job.losses) == (JobState.READY, 0, count)
    alone = site.run.lease("a", alone=True)
    assert [lease.job_id for lease in alone] == [job.id]
    with site.catalog.write() as session:
        results = [
            JobResult(
                one.job_id, one.attempt_id, one.number, Outcome.LOST,
                error=ErrorCode.PROCESS_LOST, phase=Phase.PAYLOAD,
            )
            for one in alone
        ]  # fmt: skip
        completion.finish(session, site.run.pilot("a"), results, retry=0)
    (job, *_) = site.jobs()
    assert (job.state, job.error) == (JobState.HELD, ErrorCode.KILLS_PILOT)
    with site.catalog.read() as session:
        states = {a.state for a in jobs.attempts(session, [job.id])[job.id]}
    assert states == {AttemptState.LOST}


def test_what_nobody_looks_at_any_more_is_forgotten(site: Site) -> None:
    site.end(site.lease("n", 1), ErrorCode.NODE_DISK_FULL)
    site.full(site.lease("m", 1), ErrorCode.STORAGE_FULL, "m")
    with site.catalog.write() as session:
        outages.forget(session)
    assert len(site.out()) == 2
    clock.shift_clock(3600.0)
    with site.catalog.write() as session:
        outages.forget(session)
    assert [outage.storage for outage in site.out()] == ["internal"], "the node has left"
    site.mend()
    clock.shift_clock(3 * 3600.0)
    with site.catalog.write() as session:
        outages.forget(session)
        assert session.execute(sa.select(sa.func.count()).select_from(Outage)).scalar() == 0


def test_outages_are_in_the_history_of_the_storage(site: Site) -> None:
    from catalog import events

    site.full(site.lease(limit=2), ErrorCode.STORAGE_FULL)
    site.mend()
    with site.catalog.read() as session:
        told = [e.after for e in events.history(session, "storage", site.run.storage)]
    assert told == [outages.OUT, outages.BACK]


def test_why_says_what_a_job_and_a_dataset_wait_for(site: Site) -> None:
    site.node("n", "m")
    site.end(site.lease("n", 1), ErrorCode.PROGRAM_NOT_FOUND)
    site.full(site.lease("m", 1), ErrorCode.STORAGE_FULL, "m")
    output = site.run.output("a")
    with site.catalog.read() as session:
        job, *_ = jobs.list_jobs(session, task_id=site.task)
        of_job = "\n".join(cause.fact for cause in causes.why_job(session, job))
        of_output = "\n".join(cause.fact for cause in causes.why_dataset(session, output))
        all_told = [p.message for p in problems.problems(session) if p.source == "outages"]
        assert waits.of_workflow(session, site.run.chain.workflow_id) == all_told
    assert "attempt 1 on node n ended as PROGRAM_NOT_FOUND" in of_job
    for told in (of_job, of_output, "\n".join(all_told)):
        assert "storage internal is full since" in told and "its producers wait" in told
        assert "node n can't run stage a" in told
    site.mend()
    with site.catalog.read() as session:
        assert waits.of_all(session) == []


def test_a_storage_that_many_nodes_miss_is_one_sentence(site: Site) -> None:
    for node in ("n", "m", "o"):
        site.full(site.lease(node, 1), ErrorCode.STORAGE_UNAVAILABLE, node)
    with site.catalog.read() as session:
        (told,) = waits.of_all(session)
    assert "can't be reached, as node n sees it" in told
    assert "and 2 more nodes see it so" in told


def test_only_what_a_pilot_said_itself_is_confirmed_to_it(site: Site) -> None:
    mine, taken = site.lease(limit=2)
    site.end([mine], ErrorCode.PROCESS_LOST, outcome=Outcome.LOST)
    clock.shift_clock(LEASE_S + 1)
    with site.catalog.write() as session:
        assert losses.take_back(session, [site.task]) == 1
    ends = [JobResult(j.job_id, j.attempt_id, j.number, Outcome.FINISHED) for j in (mine, taken)]
    with site.catalog.read() as session:
        assert completion.confirmed(session, ends) == {mine.job_id}


def test_an_attempt_that_has_the_id_of_another_confirms_nothing(site: Site) -> None:
    mine, other = site.lease(limit=2)
    site.end([mine], ErrorCode.PAYLOAD_FAILED)
    ends = [
        JobResult(other.job_id, mine.attempt_id, mine.number, Outcome.FINISHED),
        JobResult(mine.job_id, mine.attempt_id, mine.number + 1, Outcome.FINISHED),
    ]
    with site.catalog.read() as session:
        for end in ends:
            assert completion.confirmed(session, [end]) == frozenset()
        mended = replace(ends[1], number=mine.number)
        assert completion.confirmed(session, [mended]) == {mine.job_id}
