"""The end of attempts: outputs, lineage and states registered in one fenced transaction."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import stamping, usage, verdicts
from catalog.bulk import table_of
from catalog.clock import later_of, now
from catalog.errors import Conflict, ErrorCode
from catalog.models import (
    Attempt,
    Companion,
    Dataset,
    DatasetFile,
    File,
    Job,
    JobOutput,
    Pilot,
    Replica,
)
from catalog.refs import JobResult, NewFile, Outcome, ReplicaRef
from catalog.rowsets import among, insert_rows, update_rows
from catalog.states import AttemptState, DatasetState, JobState, ReplicaState
from catalog.transitions import move
from catalog.verdicts import Past

_job, _attempt, _pilot = table_of(Job), table_of(Attempt), table_of(Pilot)

_ENDS = {
    Outcome.FINISHED: AttemptState.FINISHED,
    Outcome.SKIPPED: AttemptState.FINISHED,
    Outcome.FAILED: AttemptState.FAILED,
    Outcome.LOST: AttemptState.LOST,
}


def finish(
    session: Session, pilot_id: int, results: Sequence[JobResult], *, retry: int
) -> frozenset[int]:
    """Register ends of attempts of one task; gives the ids of the jobs that accepted theirs.

    A job that is no longer RUNNING at that attempt changes nothing and gets no rows. Raises
    `Conflict` where an output dataset isn't OPEN.
    """
    wanted = {r.job_id: r for r in results if r.outcome is not Outcome.STOPPED}
    # By id alone: told the pilot too, PostgreSQL looks through all that the pilot ever had.
    rows = session.execute(
        sa.select(
            _job.c.id, _job.c.task_id, _job.c.attempt, _job.c.failures, _job.c.losses,
            _job.c.key, _job.c.ordinal, _job.c.state, _job.c.pilot_id,
        )
        .where(among(session, _job.c.id, wanted))
        .order_by(_job.c.id)
        .with_for_update()
    ).all()  # fmt: skip
    accepted = [
        (row, wanted[row.id])
        for row in rows
        if row.state is JobState.RUNNING
        and row.pilot_id == pilot_id
        and row.attempt == wanted[row.id].number
    ]
    if not accepted:
        return frozenset()
    places = {row.id: (row.key, row.ordinal) for row, _ in accepted}
    logs = _register_files(session, [result for _, result in accepted], places)
    _end_jobs(session, pilot_id, accepted, retry)
    _end_attempts(session, [result for _, result in accepted], logs)
    _mark_bad(session, [bad for _, result in accepted for bad in result.bad_inputs])
    stamping.stamp_read(session, [copy for _, result in accepted for copy in result.stamped])
    session.execute(
        sa.update(_pilot)
        .where(_pilot.c.id == pilot_id)
        .values(jobs_done=_pilot.c.jobs_done + len(accepted))
    )
    return frozenset(places)


def confirmed(session: Session, results: Sequence[JobResult]) -> frozenset[int]:
    """Of attempts whose commit gave no answer: the jobs in which it did happen."""
    wanted = {(result.attempt_id, result.job_id, result.number) for result in results}
    query = sa.select(_attempt.c.id, _attempt.c.job_id, _attempt.c.number).where(
        among(session, _attempt.c.id, [attempt_id for attempt_id, _, _ in wanted]),
        sa.or_(
            _attempt.c.state.in_((AttemptState.FINISHED, AttemptState.FAILED)),
            # Of those that are LOST the others were taken back, against what their pilot says.
            _attempt.c.error == ErrorCode.PROCESS_LOST,
        ),
    )
    # SQLite may give the id of an attempt that was pruned to another one.
    return frozenset(row.job_id for row in session.execute(query) if tuple(row) in wanted)


def _register_files(
    session: Session, results: Sequence[JobResult], places: Mapping[int, tuple[str, int]]
) -> dict[int, int]:
    """Insert files, replicas, membership and lineage; gives the log's file id by job id."""
    made = [(r.job_id, f) for r in results for f in r.files if r.outcome is Outcome.FINISHED]
    logs = [(r.job_id, r.log) for r in results if r.log is not None]
    everything = made + logs
    if not everything:
        return {}
    names = _lock_datasets(session, {f.dataset_id for _, f in everything})
    ids: dict[tuple[int, str], int] = {}
    for batch in (
        [f for _, f in everything if f.secondary_of is None],
        [f for _, f in everything if f.secondary_of is not None],
    ):
        ids.update(_insert_files(session, batch, names, ids))
    insert_rows(
        session,
        Replica,
        [
            {
                "file_id": ids[f.dataset_id, f.name],
                "storage_id": f.storage_id,
                "path": f.path,
                "in_place": False,
                "mtime_us": f.mtime_us,
            }
            for _, f in everything
        ],
    )
    insert_rows(
        session,
        Companion,
        [
            {"file_id": ids[f.dataset_id, f.name], "primary_id": ids[f.dataset_id, primary]}
            for _, f in everything
            for primary in f.also_of
        ],
    )
    usage.note_all(session, [(f.storage_id, f.size_bytes) for _, f in everything])
    insert_rows(
        session,
        DatasetFile,
        [
            {
                "dataset_id": f.dataset_id,
                "file_id": ids[f.dataset_id, f.name],
                "name": f.name,
                "key": places[job_id][0],
                "position": places[job_id][1],
            }
            for job_id, f in everything
        ],
    )
    insert_rows(
        session,
        JobOutput,
        [
            {
                "job_id": job_id,
                "port": f.port,
                "position": f.index,
                "file_id": ids[f.dataset_id, f.name],
            }
            for job_id, f in made
        ],
    )
    return {job_id: ids[f.dataset_id, f.name] for job_id, f in logs}


def _lock_datasets(session: Session, dataset_ids: set[int]) -> dict[int, str]:
    """Hold these datasets OPEN until the transaction ends; gives their names by id."""
    rows = session.execute(
        sa.select(col(Dataset.id), col(Dataset.name))
        .where(col(Dataset.id).in_(dataset_ids), col(Dataset.state) == DatasetState.OPEN)
        .order_by(col(Dataset.id))
        .with_for_update(read=True)
    ).all()
    names = {row.id: row.name for row in rows}
    if missing := dataset_ids - names.keys():
        raise Conflict(f"output datasets {sorted(missing)} are not OPEN; their jobs can't end.")
    return names


def _insert_files(
    session: Session,
    batch: Sequence[NewFile],
    scopes: Mapping[int, str],
    known: Mapping[tuple[int, str], int],
) -> dict[tuple[int, str], int]:
    """File ids by dataset and name; the scope of a file is the name of its dataset."""
    rows = [
        {
            "scope": scopes[f.dataset_id],
            "name": f.name,
            "size_bytes": f.size_bytes,
            "checksum": f.checksum,
            "primary_id": known[f.dataset_id, f.secondary_of] if f.secondary_of else None,
        }
        for f in batch
    ]
    datasets = {name: dataset_id for dataset_id, name in scopes.items()}
    new = insert_rows(session, File, rows, col(File.id), col(File.scope), col(File.name))
    return {(datasets[row.scope], row.name): row.id for row in new}


def _end_jobs(
    session: Session, pilot_id: int, ended: Sequence[tuple[Any, JobResult]], retry: int
) -> None:
    """Put each job (a row of its table, and its result) where the verdict says."""
    results = [result for _, result in ended]
    others = verdicts.note_outages(
        session, pilot_id, results, {job.id: job.task_id for job, _ in ended}
    )
    excused = verdicts.excused(session, results)
    rows: list[dict[str, Any]] = []
    delays: dict[float, list[int]] = {}
    for job, result in ended:
        past = Past(job.failures, job.losses, excused.get(job.id, 0), job.id in others)
        verdict = verdicts.judge(result, past, retry=retry)
        good = result.outcome is Outcome.FINISHED
        rows.append(
            {
                "id": result.job_id,
                "state": verdict.state,
                "error": verdict.error or result.error,
                "exit_code": result.exit_code,
                "reason": verdict.reason or result.message,
                "outputs": dict(result.values) if good and result.values else None,
                "failures": job.failures + verdict.counts,
                "losses": job.losses + verdict.lost,
            }
        )
        if verdict.delay_s:
            delays.setdefault(verdict.delay_s, []).append(result.job_id)
    common = {"ended_at": now(), "pilot_id": None, "lease_until": None}
    update_rows(session, Job, rows, lambda _cells: common)
    for delay_s, job_ids in delays.items():
        session.execute(
            sa.update(_job)
            .where(among(session, _job.c.id, job_ids))
            .values(not_before=now(delay_s))
        )


def _end_attempts(session: Session, results: Sequence[JobResult], logs: Mapping[int, int]) -> None:
    rows = [
        {
            "id": r.attempt_id,
            "state": _ENDS[r.outcome],
            "phase": r.phase,
            "error": r.error,
            "exit_code": r.exit_code,
            "message": "skipped" if r.outcome is Outcome.SKIPPED else r.message,
            "log_tail": r.log_tail,
            "log_file_id": logs.get(r.job_id),
            "wall_s": r.usage.wall_s,
            "cpu_s": r.usage.cpu_s,
            "peak_rss_bytes": r.usage.peak_rss_bytes,
            "bytes_in": r.usage.bytes_in,
            "bytes_out": r.usage.bytes_out,
        }
        for r in results
    ]
    # An attempt begins with its lease, and may then have waited for its turn.
    update_rows(
        session,
        Attempt,
        rows,
        lambda cells: {
            "started_at": later_of(_attempt.c.started_at, now(-cells.c.wall_s)),
            "ended_at": now(),
        },
    )


def _mark_bad(session: Session, copies: Sequence[ReplicaRef]) -> None:
    """What jobs have read is BAD; other copies of the same files nobody has read."""
    paths: dict[int, list[str]] = {}
    for copy in copies:
        paths.setdefault(copy.storage_id, []).append(copy.path)
    replicas: list[int] = []
    for storage_id, there in sorted(paths.items()):
        query = sa.select(col(Replica.id)).where(
            col(Replica.storage_id) == storage_id, among(session, col(Replica.path), there)
        )
        replicas += session.scalars(query)
    move(
        session,
        Replica,
        replicas,
        ReplicaState.BAD,
        only_from=[ReplicaState.AVAILABLE],
        message="found by a job",
    )
