"""Trying a template: every stage on one local file, with the real engine, without a server.

A catalog and storages of its own in a temporary directory, the real advancer and a real shift
for each stage: what works here works in the same way on a node.
"""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from catalog import datasets, intake, jobfiles, jobs, ownership, schema, storages, templates, waits
from catalog.checksums import algorithm_of, file_checksum
from catalog.db import Catalog
from catalog.drivers import Drivers, StorageDriver, driver_for
from catalog.errors import StorageError, Unavailable
from catalog.jobs import AttemptInfo, JobInfo
from catalog.models import StorageKind, StorageRole
from catalog.places import sqlite_url
from catalog.refs import FileRef
from catalog.settings import Settings, get_settings
from catalog.states import AttemptState, JobState
from flows.advance import Chain, NotRunning, advance, load
from flows.compile import compile_template
from flows.fixed import store_files
from flows.plan import Plan, Stage, plan_from_json, plan_to_json
from flows.shift import Roster, Shift
from flows.submit import Submission, submit
from workers.devices import capacity

_NAME = "try"
_LEASE_S = 7 * 86400.0
_PATIENCE_S = 10.0
"""How long somebody who waits for a trial waits for a disk that is full."""


@dataclass(frozen=True)
class Trialled:
    """What became of one stage. `state` is None where no job came to be."""

    stage: str
    state: JobState | None
    reason: str | None = None
    attempt: AttemptInfo | None = None
    files: tuple[tuple[str, str, Path, int], ...] = ()
    """Port, name, place and bytes of each output file, which lie in the trial's own directory.

    The secondary files of one follow it."""
    values: Mapping[str, Any] | None = None
    log: Path | None = None

    @property
    def failed(self) -> bool:
        """Whether the stage gave no valid outputs."""
        return self.state is None or self.state not in (JobState.FINISHED, JobState.SKIPPED)


@dataclass(frozen=True)
class Candidate:
    """A template to be tried: its document and the plan, in which no file is a catalog's."""

    document: dict[str, Any]
    plan: Plan


def from_file(path: Path) -> Candidate:
    """The template in a CWL file; raises `BadTemplate`."""
    compiled = compile_template(path)
    return Candidate(compiled.document, compiled.plan)


def from_catalog(catalog: Catalog, ref: str) -> Candidate:
    """The template that the catalog has under `name` or `name@version`; raises `NotFound`."""
    with catalog.read() as session:
        detail = templates.get(session, ref)
        places = Drivers(storages.list_all(session))

        def local(value: Any) -> Any:
            if isinstance(value, list):
                return [local(item) for item in value]
            if not isinstance(value, Mapping):
                return value
            if value.get("class") != "File" or "file_id" not in value:
                return {key: local(item) for key, item in value.items()}
            file = jobfiles.file_refs(session, [value["file_id"]])[value["file_id"]]
            for replica in file.replicas:
                path = _here(file, places[replica.storage_id], replica.path)
                if path is not None:
                    return {"class": "File", "path": str(path)}
            raise Unavailable(f"file {file.name!r} of template {ref!r} has no replica to be had.")

        return Candidate(detail.document, plan_from_json(local(detail.plan)))


def _here(file: FileRef, driver: StorageDriver, place: str) -> Path | None:
    """A file's path on this machine, fetched once from a remote storage; None if it can't be."""
    path = driver.local_path(place)
    if path is not None:
        return path if path.is_file() else None
    path = get_settings().home / "cache" / str(file.file_id) / file.basename
    if path.exists() and file_checksum(path, algorithm_of(file.checksum)) == file.checksum:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    try:
        found = driver.get(place, path, checksum=algorithm_of(file.checksum))
    except StorageError:
        return None
    return path if found == file.checksum else None


class Trial:
    """One template on one file. Use as a context manager; what it made is gone afterwards."""

    def __init__(self, candidate: Candidate, file: Path, inputs: Mapping[str, Any]) -> None:
        self._candidate, self._file, self._inputs = candidate, file.resolve(), inputs

    def __enter__(self) -> "Trial":
        """Lay down the catalog, the dataset of the one file and the workflow over it."""
        self._directory = tempfile.TemporaryDirectory(prefix="spdf-try-")
        home = Path(self._directory.name).resolve()
        url = sqlite_url(home / "catalog.db")
        self._settings = Settings(
            _env_file=None,
            home=home,
            catalog_url=url,
            work_dir=home / "work",
            pilot_shift_jobs=1,
            commit_s=0.01,
            drain_s=0.1,
            outage_s=_PATIENCE_S,
            pilot_idle_s=_PATIENCE_S,
        )
        self._catalog = Catalog(url)
        try:
            schema.upgrade(self._catalog)
            self._chain = self._define(home)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Remove everything."""
        self._catalog.close()
        self._directory.cleanup()

    def _define(self, home: Path) -> Chain:
        catalog = self._catalog
        with catalog.write() as session:
            places = [("input", str(self._file.parent))]
            places += [(role, str(home / "storage" / role)) for role in ("internal", "output")]
            known = [
                storages.add(
                    session, role, StorageKind.LOCAL, StorageRole(role), place, alone=False
                )
                for role, place in places
            ]
        measured = intake.measure([self._file, *self._companions()], known[:1])
        single = tuple(replace(stage, retry=0) for stage in self._candidate.plan.stages)
        plan = plan_to_json(replace(self._candidate.plan, stages=single))
        stored: dict[str, Any] = store_files(catalog, plan)
        with catalog.write() as session:
            dataset = datasets.create(session, _NAME)
            intake.add(session, dataset, measured)
            datasets.close(session, dataset)
            template = templates.create(
                session, _NAME, _NAME, self._candidate.document, stored, digest=_NAME
            )
            templates.activate(session, template.id)
        workflow, _ = submit(catalog, Submission(_NAME, _NAME, self._inputs))
        with catalog.write() as session:
            epoch = ownership.claim(session, workflow, _NAME, _LEASE_S, None)
        assert epoch is not None
        return load(catalog, workflow, epoch, _LEASE_S)

    def _companions(self) -> list[Path]:
        """The secondary files of the file that lie beside it."""
        names = {item.of(self._file.name) for item in self._candidate.plan.companions} - {
            self._file.name
        }
        paths = [self._file.with_name(name) for name in sorted(names)]
        return [path for path in paths if path.is_file()]

    def stages(self) -> Iterator[Trialled]:
        """Run one job of each stage, in order, up to the first that fails."""
        for stage in self._chain.plan.stages:
            self._advance()
            job = self._job(stage)
            if job is not None and job.state is JobState.READY:
                self._run(stage)
                job = self._job(stage)
            result = self._result(stage, job)
            yield result
            if result.failed:
                return

    def _advance(self) -> None:
        try:
            advance(self._chain)
        except NotRunning:
            return

    def _job(self, stage: Stage) -> JobInfo | None:
        with self._catalog.read() as session:
            found = jobs.list_jobs(session, task_id=self._chain.task_ids[stage.name], limit=1)
        return found[0] if found else None

    def _run(self, stage: Stage) -> None:
        offered = capacity(self._settings)
        if stage.resources.devices > len(offered.devices):
            raise Unavailable(
                f"stage {stage.name!r} needs {stage.resources.devices} GPU, this machine has "
                f"{len(offered.devices)}; try it where there is one."
            )
        task_id = self._chain.task_ids[stage.name]
        roster = Roster(task_id, stage.pool, replace(offered, cores=1), flow_run_id=None)
        with Shift(self._catalog, self._settings, roster) as shift:
            shift.work(lambda window: [shift.begin_job(job) for job in window])

    def _result(self, stage: Stage, job: JobInfo | None) -> Trialled:
        if job is None:
            return Trialled(stage.name, None, "no file came to it")
        with self._catalog.read() as session:
            attempts = jobs.attempts(session, [job.id])[job.id]
            last = attempts[-1] if attempts else None
            ports = [port.name for port in stage.step.outputs]
            found = jobfiles.outputs(session, [job.id], ports)
            ids = [file_id for made in found.values() for file_id in made]
            log_id = last.log_file_id if last else None
            refs = jobfiles.file_refs(session, [*ids, *([log_id] if log_id else [])])
            ended = jobs.ended_by_key(session, job.task_id, [job.key])
            waiting = waits.of_tasks(session, [job.task_id])
        # A fault of this machine would be tried again without end: here once is enough.
        failed = last is not None and last.state is not AttemptState.FINISHED
        files = tuple(
            (port, file.basename, self._place(file), file.size_bytes)
            for (_, port), made in found.items()
            for i in made
            for file in (refs[i], *refs[i].secondary)
        )
        return Trialled(
            stage.name,
            JobState.FAILED if failed else job.state,
            job.reason or (last.message if last else "; ".join(waiting) or None),
            last,
            files,
            ended[job.key].outputs if job.key in ended else None,
            self._place(refs[log_id]) if log_id else None,
        )

    def _place(self, file: FileRef) -> Path:
        replica = file.replicas[0]
        with self._catalog.read() as session:
            path = driver_for(storages.get(session, replica.storage_id)).local_path(replica.path)
        assert path is not None
        return path
