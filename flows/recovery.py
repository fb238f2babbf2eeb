"""Recovery: a file that is lost or corrupt is made again, by the job that made it before.

The job runs on this machine, in a directory of its own; nothing of its state changes. What it makes
becomes a replica only where its bytes are the catalog's.
"""

import logging
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import files, jobfiles, jobs, lineage, removal, storages, usage
from catalog.bulk import insert_new
from catalog.checksums import algorithm_of
from catalog.db import Catalog
from catalog.drivers import Drivers, StorageDriver, undo
from catalog.drivers.local import LocalDriver
from catalog.errors import Conflict, ErrorCode, NotFound, SpdfError, StorageError
from catalog.failpoints import reach
from catalog.files import FileInfo, ReplicaInfo
from catalog.models import Dataset, DatasetFile, Finding, Job, JobOutput, Replica
from catalog.names import beside
from catalog.outage import is_outage, sentence
from catalog.refs import FindingKind, NewFile, Outcome
from catalog.settings import Settings
from catalog.states import DatasetState, FindingState, ReplicaState
from catalog.transitions import record
from flows.taskspecs import load_task
from workers.cwl.containers import Containers
from workers.devices import capacity
from workers.job import RunningJob, run_attempt
from workers.node import Node
from workers.orphans import PayloadLedger
from workers.prepare import prepare
from workers.slots import Slots
from workers.spec import JobSpec, TaskSpec

log = logging.getLogger(__name__)

_MOST_PLACES = 100
_SCRATCH = 0
"""Id of the storage, which no catalog has, that what is made anew goes to first."""


class NotRecovered(Conflict):
    """A file could not be made again; the sentence says why, and nothing was changed."""


@dataclass(frozen=True)
class Recovered:
    """A file that is AVAILABLE: where, and by which job it was made again (None: it was there)."""

    file: str
    storage: str
    path: str
    job_id: int | None


def recover(catalog: Catalog, settings: Settings, file_id: int) -> Recovered:
    """Have a file's bytes again. Raises `NotRecovered`, `StorageError`."""
    with catalog.read() as session:
        info = files.by_ids(session, [file_id])[file_id]
        there = files.replicas(session, [file_id])[file_id]
        if there:
            storage = storages.get(session, there[0].storage_id)
            return Recovered(info.ref, storage.name, there[0].path, None)
        job, task = _maker(session, info)
        port = session.execute(
            sa.select(col(JobOutput.port)).where(col(JobOutput.file_id) == file_id)
        ).scalar_one_or_none()
        if port is None:
            raise NotRecovered(
                f"file {info.ref} is the log of a job, and another run writes another one; "
                "it is lost."
            )
        drivers = Drivers(storages.list_all(session))
    with tempfile.TemporaryDirectory(prefix="spdf-recover-", dir=_scratch(settings)) as text:
        folder = Path(text)
        made = _run(settings, folder, job, task, drivers)
        file = _same(made, port, info)
        place = folder / "made" / file.path
        checksum = LocalDriver("scratch", folder / "made").checksum(
            file.path, algorithm_of(info.checksum)
        )
        if (file.size_bytes, checksum) != (info.size_bytes, info.checksum):
            raise NotRecovered(
                f"job {job.job_id} makes another {info.ref} now ({file.size_bytes} bytes, "
                f"{checksum}) than it did ({info.size_bytes} bytes, {info.checksum}); "
                "its bytes are not kept. Is the program the same, and does it give the same twice?"
            )
        return _store(catalog, info, job.job_id, place, drivers)


def _scratch(settings: Settings) -> Path:
    assert settings.work_dir is not None
    settings.work_dir.mkdir(parents=True, exist_ok=True)
    return settings.work_dir


def _maker(session: Session, info: FileInfo) -> tuple[JobSpec, TaskSpec]:
    """The job that made a file, with its inputs, which must be there."""
    step = lineage.lineage(session, info.id, limit=1).steps[0]
    if step.made_by is None:
        raise NotRecovered(
            f"file {info.ref} comes from outside, so nothing here can make it again; "
            "register it anew where you have it."
        )
    try:
        job = jobs.get(session, step.made_by.job_id)
    except NotFound as error:
        raise NotRecovered(
            f"job {step.made_by.job_id}, which made {info.ref}, is history that was pruned; "
            "submit its workflow once more."
        ) from error
    values = session.execute(sa.select(col(Job.values)).where(col(Job.id) == job.id)).scalar()
    inputs = jobfiles.inputs(session, [job.id])[job.id]
    for refs in inputs.values():
        for ref in refs:
            if not ref.replicas:
                raise NotRecovered(
                    f"file {info.ref} is made from {ref.name}, which isn't AVAILABLE either; "
                    f"`spdf file recover {ref.file_id}` first."
                )
    spec = JobSpec(job.id, 0, job.task_id, job.key, job.ordinal, job.attempt, inputs, values or {})
    return spec, load_task(session, job.task_id)


def _run(
    settings: Settings,
    folder: Path,
    job: JobSpec,
    task: TaskSpec,
    drivers: Drivers,
) -> tuple[NewFile, ...]:
    """Run the job once, its outputs going to a directory of this run."""
    assert settings.work_dir is not None
    made = folder / "made"
    made.mkdir()
    targets = {port: replace(target, storage_id=_SCRATCH) for port, target in task.targets.items()}
    # Of no pilot: its number is this process's, below those that pilots have.
    ledger = PayloadLedger(settings.work_dir, -os.getpid())
    slots = Slots(settings.work_dir / "slots", capacity(settings))
    engine = settings.container_engine
    try:
        node = Node(
            name=settings.node,
            ledger=ledger,
            slots=slots,
            storages=drivers.also(_SCRATCH, LocalDriver("scratch", made)),
            verify_linked=True,
            patience_s=settings.outage_s,
            containers=Containers(engine, str(ledger.directory)) if engine else None,
        )
        spec = replace(task, targets=targets)
        try:
            result = run_attempt(node, prepare(node, spec), RunningJob(job))
        except SpdfError as error:
            raise NotRecovered(f"job {job.job_id} can't be run here: {error}") from error
        finally:
            node.reapers.close()
    finally:
        ledger.close()
        slots.close()
    if result.outcome is not Outcome.FINISHED:
        raise NotRecovered(
            f"job {job.job_id} ended as {result.outcome} when it was run again: "
            f"{result.error}, {result.message or 'it said nothing'}; nothing was changed."
        )
    return tuple(result.files)


def _same(made: tuple[NewFile, ...], port: str, info: FileInfo) -> NewFile:
    for file in made:
        if (file.port, file.name) == (port, info.name):
            return file
    raise NotRecovered(f"the job that made {info.ref} gives no such file any more; it is lost.")


def _store(
    catalog: Catalog,
    info: FileInfo,
    job_id: int,
    place: Path,
    drivers: Drivers,
) -> Recovered:
    """Bytes to a new path beside the old one, then its row; the findings of it are over."""
    with catalog.read() as session:
        lost = files.all_replicas(session, info.id)
    if not lost:
        raise NotRecovered(f"file {info.ref} never was on a storage.")
    old = lost[0]
    path = _put(drivers[old.storage_id], place, old, len(lost))
    reach("recovery.put")
    told = f"made again by job {job_id}"
    row = {
        "file_id": info.id,
        "storage_id": old.storage_id,
        "path": path,
        "state": ReplicaState.AVAILABLE,
        "in_place": False,
    }
    gone = None
    with catalog.write() as session:
        if _is_wanted(session, info.id):
            for (replica_id,) in insert_new(session, Replica, [row], col(Replica.id)):
                usage.note(session, old.storage_id, 1, info.size_bytes)
                record(session, Replica, [(replica_id, None)], ReplicaState.AVAILABLE, told)
            _close_findings(session, [replica.id for replica in lost], info.ref)
            gone = removal.retire(session, [replica.id for replica in lost], told)
    if gone is None:
        undo(drivers[old.storage_id], [path])
        raise NotRecovered(f"file {info.ref} was deleted meanwhile; its bytes are not kept.")
    with ThreadPoolExecutor(1) as pool:
        removal.remove_replicas(catalog, gone, removal.drivers(catalog), pool)
    return Recovered(info.ref, old.storage, path, job_id)


def _put(driver: StorageDriver, place: Path, old: ReplicaInfo, count: int) -> str:
    """Bytes to the first free path beside the old one, from the number `count` on.

    What lies under another may be what a recovery that died has left, or anybody's: it stays, as
    dark data.
    """
    for number in range(count, count + _MOST_PLACES):
        path = beside(old.path, f"~{number}")
        try:
            driver.put(place, path)
        except StorageError as error:
            if error.code is not ErrorCode.OUTPUT_EXISTS:
                raise
        else:
            return path
    raise NotRecovered(
        f"storage {old.storage!r}: something lies under each of {_MOST_PLACES} paths beside "
        f"{old.path!r}, up to {path!r}; find what is dark: `spdf inspect run {old.storage}`."
    )


def _is_wanted(session: Session, file_id: int) -> bool:
    """Whether a dataset that isn't going holds a file; it doesn't go until the transaction ends."""
    query = (
        sa.select(col(Dataset.id))
        .join(DatasetFile, col(DatasetFile.dataset_id) == col(Dataset.id))
        .where(
            col(DatasetFile.file_id) == file_id,
            col(Dataset.state).in_((DatasetState.OPEN, DatasetState.CLOSED)),
        )
        .order_by(col(Dataset.id))
        .with_for_update(read=True, of=Dataset)
    )
    return bool(session.scalars(query).all())


def _close_findings(session: Session, replica_ids: list[int], name: str) -> None:
    from catalog.inspection import findings

    ids = session.scalars(
        sa.select(col(Finding.id)).where(
            col(Finding.replica_id).in_(replica_ids),
            col(Finding.state) == FindingState.MARKED,
            col(Finding.kind) != FindingKind.DARK,
        )
    )
    findings.settle(session, list(ids), FindingState.RECOVERED, f"{name} was made again")


def recover_marked(
    catalog: Catalog, settings: Settings, storage_id: int
) -> tuple[list[Recovered], list[str]]:
    """Make again what is missing or corrupt on a storage, as far as that can be.

    Gives what is there again, and sentences on what isn't. What is made from another lost file
    comes after it.
    """
    from catalog.inspection import findings

    done: list[Recovered] = []
    faults: dict[int, str] = {}
    while True:
        before, faults, after = len(done), {}, 0
        while True:
            with catalog.read() as session:
                page = findings.findings(
                    session, storage_id=storage_id, states=(FindingState.MARKED,), after=after
                )
                owners = dict(
                    session.execute(
                        sa.select(col(Replica.id), col(Replica.file_id)).where(
                            col(Replica.id).in_([item.replica_id for item in page])
                        )
                    )
                    .tuples()
                    .all()
                )
            if not page:
                break
            for item in page:
                if item.replica_id is None:
                    # Dark bytes whose removal was begun.
                    continue
                try:
                    done.append(recover(catalog, settings, owners[item.replica_id]))
                except Exception as error:
                    if is_outage(error):
                        raise
                    if not isinstance(error, SpdfError):
                        log.exception("file not made again", extra={"finding": item.id})
                    faults[item.id] = sentence(error)
            after = page[-1].id
        if len(done) == before or not faults:
            return done, list(faults.values())
