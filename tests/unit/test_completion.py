"""What a group commit leaves of each attempt: every column, and nothing of another's."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import col

from catalog import clock, completion, jobfiles, storages, tasks, usage
from catalog.attempts import Lease
from catalog.errors import ErrorCode
from catalog.models import Attempt, DatasetFile, Event, File, Job, JobOutput, Pilot, Replica
from catalog.refs import JobResult, NewFile, Outcome, ReplicaRef, Usage
from catalog.states import AttemptState, JobState, Phase, ReplicaState
from catalog.verdicts import MAX_LOSSES, MAX_SYSTEM_ATTEMPTS
from tests.conftest import EVERY_WAY
from tests.unit.test_workload import Run, link, stage
from tests.unit.test_workload import start as start

pytestmark = EVERY_WAY


@pytest.fixture
def run(start: Callable[..., Run]) -> Run:
    begun = start(stage("a", link(None)), files=3)
    begun.advance()
    return begun


def result(lease: Lease, outcome: Outcome = Outcome.FINISHED, **more: Any) -> JobResult:
    return JobResult(lease.job_id, lease.attempt_id, lease.number, outcome, **more)


def pairs(run: Run, *columns: Any) -> dict[Any, Any]:
    with run.catalog.read() as session:
        return dict(session.execute(sa.select(*columns)).all())


def finish(run: Run, *results: JobResult, retry: int = 0) -> frozenset[int]:
    with run.catalog.write() as session:
        return completion.finish(session, run.pilot("a"), results, retry=retry)


def row(run: Run, model: Any, row_id: int) -> Any:
    with run.catalog.read() as session:
        return session.get_one(model, row_id)


def made(run: Run, lease: Lease, name: str, port: str = "out", **more: Any) -> NewFile:
    task = run.chain.task_ids["a"]
    with run.catalog.read() as session:
        out = tasks.outputs(session, [task])[task][port]
    return NewFile(
        port, more.pop("index", 0), f"{lease.key}/{name}", more.pop("size_bytes", 1),
        "adler32:00010001", run.storage, f"{out.name}/{lease.key}/{name}", out.dataset_id, **more,
    )  # fmt: skip


def test_each_attempt_keeps_its_own_figures_log_and_words(run: Run) -> None:
    first, second, third = run.lease("a")
    used = Usage(wall_s=1.5, cpu_s=0.5, peak_rss_bytes=3, bytes_in=4, bytes_out=5)
    finish(
        run,
        result(
            first,
            files=(made(run, first, "o", size_bytes=7),),
            log=made(run, first, "log", "log"),
            values={"n": 1},
            exit_code=0,
            phase=Phase.STAGE_OUT,
            usage=used,
        ),
        result(
            second,
            Outcome.FAILED,
            error=ErrorCode.PAYLOAD_PERMANENT,
            message="no luck",
            exit_code=3,
            phase=Phase.PAYLOAD,
            log_tail="the end",
            log=made(run, second, "log", "log"),
        ),
        result(third, Outcome.SKIPPED, message="not told"),
    )
    names = pairs(run, col(File.id), col(File.name))
    attempts = [row(run, Attempt, lease.attempt_id) for lease in (first, second, third)]
    assert [names.get(a.log_file_id) for a in attempts] == [
        f"{first.key}/log", f"{second.key}/log", None,
    ]  # fmt: skip
    assert [a.state for a in attempts] == [
        AttemptState.FINISHED, AttemptState.FAILED, AttemptState.FINISHED,
    ]  # fmt: skip
    assert [a.phase for a in attempts] == [Phase.STAGE_OUT, Phase.PAYLOAD, None]
    assert [a.error for a in attempts] == [None, ErrorCode.PAYLOAD_PERMANENT, None]
    assert [a.exit_code for a in attempts] == [0, 3, None]
    assert [a.message for a in attempts] == [None, "no luck", "skipped"]
    assert [a.log_tail for a in attempts] == [None, "the end", None]
    assert all(a.ended_at is not None and a.started_at <= a.ended_at for a in attempts)
    of_first = attempts[0]
    kept = (of_first.wall_s, of_first.cpu_s, of_first.peak_rss_bytes)
    assert (*kept, of_first.bytes_in, of_first.bytes_out) == (1.5, 0.5, 3, 4, 5)
    jobs = [row(run, Job, lease.job_id) for lease in (first, second, third)]
    assert [j.state for j in jobs] == [JobState.FINISHED, JobState.FAILED, JobState.SKIPPED]
    assert [j.outputs for j in jobs] == [{"n": 1}, None, None]
    assert [(j.error, j.reason, j.exit_code, j.failures) for j in jobs] == [
        (None, None, 0, 0), (ErrorCode.PAYLOAD_PERMANENT, "no luck", 3, 1),
        (None, "not told", None, 0),
    ]  # fmt: skip
    assert {(j.pilot_id, j.lease_until) for j in jobs} == {(None, None)}
    assert row(run, Pilot, run.pilot("a")).jobs_done == 3


def test_an_index_of_several_files_goes_with_each(run: Run) -> None:
    lease, *_ = run.lease("a")
    key = lease.key
    index = made(run, lease, "i", secondary_of=f"{key}/a", also_of=(f"{key}/b", f"{key}/c"))
    rest = (made(run, lease, name, index=n) for n, name in enumerate("abcd", 1))
    finish(run, result(lease, files=(index, *rest)))
    ids = pairs(run, col(File.name), col(File.id))
    with run.catalog.read() as session:
        refs = jobfiles.file_refs(session, [ids[f"{key}/{name}"] for name in "bcda"])
        alone = jobfiles.file_refs(session, [ids[f"{key}/i"]])
    assert {ref.name: [one.name for one in ref.secondary] for ref in refs.values()} == {
        f"{key}/a": [f"{key}/i"],
        f"{key}/b": [f"{key}/i"],
        f"{key}/c": [f"{key}/i"],
        f"{key}/d": [],
    }
    assert all(one.replicas for ref in refs.values() for one in ref.secondary)
    assert [ref.secondary for ref in alone.values()] == [()]


def test_files_are_registered_with_size_key_order_and_companions(run: Run) -> None:
    lease, other, _ = run.lease("a")
    finish(
        run,
        result(
            lease,
            files=(
                made(run, lease, "o.idx", secondary_of=f"{lease.key}/o", size_bytes=2),
                made(run, lease, "o", index=1, size_bytes=7),
            ),
        ),
        result(other, files=(made(run, other, "o"),)),
    )
    out = run.output("a").id
    with run.catalog.read() as session:
        rows = session.execute(
            sa.select(
                col(DatasetFile.name), col(DatasetFile.key), col(DatasetFile.position),
                col(File.size_bytes), col(File.scope), col(JobOutput.job_id),
                col(JobOutput.port), col(JobOutput.position).label("place"),
                col(Replica.path), col(Replica.in_place), col(Replica.state),
            )
            .join(File, col(File.id) == col(DatasetFile.file_id))
            .join(Replica, col(Replica.file_id) == col(File.id))
            .join(JobOutput, col(JobOutput.file_id) == col(File.id))
            .where(col(DatasetFile.dataset_id) == out)
        ).all()  # fmt: skip
    found = {r.name: (r.key, r.position, r.size_bytes, r.job_id, r.port, r.place) for r in rows}
    assert found == {
        f"{lease.key}/o": (lease.key, 0, 7, lease.job_id, "out", 1),
        f"{lease.key}/o.idx": (lease.key, 0, 2, lease.job_id, "out", 0),
        f"{other.key}/o": (other.key, 1, 1, other.job_id, "out", 0),
    }
    assert {(r.scope, r.in_place, r.state) for r in rows} == {
        (run.output("a").name, False, ReplicaState.AVAILABLE)
    }
    assert {r.path for r in rows} == {f"{run.output('a').name}/{name}" for name in found}
    primary = pairs(run, col(File.name), col(File.primary_id))
    assert (
        primary[f"{lease.key}/o.idx"] == pairs(run, col(File.name), col(File.id))[f"{lease.key}/o"]
    )
    assert primary[f"{lease.key}/o"] is None
    with run.catalog.read() as session:
        (used,) = (u for u in usage.of_storages(session) if u.storage_id == run.storage)
    assert (used.files, used.size_bytes) == (3, 10)


def test_what_has_ended_is_confirmed_and_nothing_else(run: Run) -> None:
    good, failed, running = run.lease("a")
    finish(run, result(good), result(failed, Outcome.FAILED, error=ErrorCode.PAYLOAD_PERMANENT))
    asked = [result(one) for one in (good, failed, running)]
    with run.catalog.read() as session:
        assert completion.confirmed(session, asked) == {good.job_id, failed.job_id}
    lost = result(running, Outcome.LOST, error=ErrorCode.PROCESS_LOST, phase=Phase.STAGE_IN)
    finish(run, lost)
    assert row(run, Attempt, running.attempt_id).state is AttemptState.LOST
    with run.catalog.read() as session:
        assert running.job_id in completion.confirmed(session, [lost])


def test_only_an_available_copy_becomes_bad_and_that_is_told(
    run: Run, storage: storages.StorageInfo
) -> None:
    (lease,) = run.lease("a", 1)
    with run.catalog.write() as session:
        session.execute(
            sa.update(Replica).where(col(Replica.path) == "f1").values(state=ReplicaState.MISSING)
        )
    bad = (ReplicaRef(storage.id, "f0"), ReplicaRef(storage.id, "f1"))
    finish(run, result(lease, Outcome.FAILED, error=ErrorCode.INPUT_CORRUPT, bad_inputs=bad))
    states = pairs(run, col(Replica.path), col(Replica.state))
    with run.catalog.read() as session:
        told = session.scalars(sa.select(col(Event.message)).where(col(Event.entity) == "replica"))
        assert [m for m in told if m == "found by a job"] == ["found by a job"]
    assert states == {
        "f0": ReplicaState.BAD, "f1": ReplicaState.MISSING, "f2": ReplicaState.AVAILABLE,
    }  # fmt: skip


def test_new_stamps_come_with_the_commit_and_only_to_what_may_be_used(
    run: Run, storage: storages.StorageInfo
) -> None:
    (lease,) = run.lease("a", 1)
    with run.catalog.write() as session:
        session.execute(
            sa.update(Replica).where(col(Replica.path) == "f1").values(state=ReplicaState.BAD)
        )
    read = ReplicaRef(storage.id, "f0", 5), ReplicaRef(storage.id, "f1", 6)
    finish(run, result(lease, stamped=read))
    with run.catalog.read() as session:
        rows = session.execute(sa.select(col(Replica.path), col(Replica.mtime_us)))
        found = dict(row for row in rows.all() if row.path in ("f0", "f1"))
    assert found == {"f0": 5, "f1": None}


def test_losses_in_the_payload_are_counted_until_the_job_is_held(start: Callable[..., Run]) -> None:
    run = start(stage("a", link(None)), files=1)
    run.advance()
    for loss in range(MAX_LOSSES + 1):
        (lease,) = run.lease("a") or run.lease("a", alone=True)
        assert row(run, Job, lease.job_id).losses == loss
        finish(run, result(lease, Outcome.LOST, error=ErrorCode.PROCESS_LOST, phase=Phase.PAYLOAD))
    held = row(run, Job, lease.job_id)
    assert (held.state, held.error) == (JobState.HELD, ErrorCode.KILLS_PILOT)
    assert held.reason == "Pilots died each time this job ran." and held.failures == 0


def test_a_defect_of_ours_is_tried_so_often_and_no_more(start: Callable[..., Run]) -> None:
    run = start(stage("a", link(None)), files=1)
    run.advance()
    states = []
    for _ in range(MAX_SYSTEM_ATTEMPTS):
        with run.catalog.write() as session:
            session.execute(sa.update(Job).values(not_before=None))
        (lease,) = run.lease("a")
        finish(run, result(lease, Outcome.FAILED, error=ErrorCode.INTERNAL))
        states.append(row(run, Job, lease.job_id).state)
    assert states == [*[JobState.READY] * (MAX_SYSTEM_ATTEMPTS - 1), JobState.HELD]


def test_only_what_failed_for_a_while_waits(run: Run) -> None:
    first, second, third = run.lease("a")
    finish(
        run,
        result(first, Outcome.FAILED, error=ErrorCode.PAYLOAD_TEMPORARY),
        result(second, Outcome.FAILED, error=ErrorCode.PAYLOAD_FAILED),
        retry=2,
    )
    waits = pairs(run, col(Job.id), sa.func.coalesce(col(Job.not_before) > clock.now(0.25), False))
    assert {job: bool(late) for job, late in waits.items() if job != third.job_id} == {
        first.job_id: True, second.job_id: False,
    }  # fmt: skip
    assert {row(run, Job, one.job_id).state for one in (first, second)} == {JobState.READY}
