"""What light pilots work on: a workflow whose files arrive, and are advanced, at a set rate."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlmodel import col

from catalog import datasets, definition, files, ownership, storages, tasks, templates
from catalog.datasets import Member
from catalog.db import Catalog
from catalog.definition import NewTask
from catalog.files import NewFileRow
from catalog.models import Attempt, DatasetFile, Job, JobOutput, StorageKind, StorageRole
from catalog.states import AttemptState, JobState, WorkflowState
from catalog.tasks import OutputDataset
from flows.advance import Chain, advance, load
from flows.plan import Link, Plan, Source, Stage, StageKind, plan_to_json
from workers.spec import OutputPort, Resources, StepSpec

STAGE, PORT, LOG = "sleep", "out", "log"
CHECKSUM = "adler32:00010001"
EVERY_S = 1.0
"""Time between advances, as SPDF_ADVANCE_S."""
_LEASE_S = 600.0


@dataclass(frozen=True)
class Storages:
    """Where inputs are said to lie, and where outputs go; nothing is ever written there."""

    input_id: int
    internal_id: int
    template_id: int


def lay_down(catalog: Catalog) -> Storages:
    """Storages, and a template of one stage, one job per file."""
    step = StepSpec({"class": "CommandLineTool"}, (), (OutputPort(PORT, "File"),))
    stage = Stage(
        name=STAGE,
        kind=StageKind.MAP,
        step=step,
        links=(Link("x", (Source(None, "files"),)),),
        descent="",
        resources=Resources(),
        fixed=(),
    )
    with catalog.write() as session:
        ids = [
            storages.add(session, str(role), StorageKind.LOCAL, role, f"/nowhere/{role}").id
            for role in (StorageRole.INPUT, StorageRole.INTERNAL)
        ]
        plan = plan_to_json(Plan("files", (stage,)))
        template = templates.create(session, "light", "light-*[0-9]", {}, plan, "d")
        templates.activate(session, template.id)
    return Storages(ids[0], ids[1], template.id)


def age(catalog: Catalog, places: Storages, jobs: int) -> None:
    """Jobs of another task that have ended: statements get the plans of a large catalog."""
    old = Load(catalog, places, "light-old-1")
    with catalog.engine.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO job (task_id, key, ordinal, state, attempt, failures, losses, passed,"
                " created_at)"
                " SELECT :task, 'k' || n, n, 'FINISHED', 1, 0, 0, true, now()"
                " FROM generate_series(1, :count) AS n"
            ),
            {"task": old.task_id, "count": jobs},
        )
        connection.execute(sa.text("ANALYZE"))


class Load:
    """One workflow over a dataset that grows."""

    def __init__(self, catalog: Catalog, places: Storages, name: str) -> None:
        self._catalog, self._places, self._name = catalog, places, name
        self.count = self.advances = 0
        outputs = {PORT: places.internal_id, LOG: places.internal_id}
        with catalog.write() as session:
            self._dataset = datasets.create(session, name)
            self._workflow, _ = definition.define(
                session, places.template_id, self._dataset,
                [NewTask(STAGE, "cpu", 0, outputs)], inputs={}, rank=0, again=False,
            )  # fmt: skip
            epoch = ownership.claim(session, self._workflow, "bench", _LEASE_S, None)
        assert epoch is not None
        self._chain: Chain = load(catalog, self._workflow, epoch, _LEASE_S)
        advance(self._chain)

    @property
    def task_id(self) -> int:
        """The only task."""
        return self._chain.task_ids[STAGE]

    def outputs(self) -> tuple[OutputDataset, OutputDataset]:
        """The datasets of the payloads' files and of their logs."""
        with self._catalog.read() as session:
            found = tasks.outputs(session, [self.task_id])[self.task_id]
        return found[PORT], found[LOG]

    def feed(self, per_s: float, until: float) -> None:
        """Register files at that rate and advance, once a second, until that time of the clock.

        The rate is kept whatever becomes of the jobs.
        """
        begun, before = time.time(), self.count
        due = begun
        while due < until:
            wanted = round(per_s * (due - begun + EVERY_S))
            self._register(wanted - (self.count - before))
            self.settle()
            due += EVERY_S
            time.sleep(max(0.0, min(due, until) - time.time()))

    def settle(self) -> None:
        """One advance."""
        advance(self._chain)
        self.advances += 1

    def _register(self, count: int) -> None:
        if count <= 0:
            return
        names = [f"{self._name}-{self.count + i:07d}" for i in range(count)]
        rows = [
            NewFileRow(self._name, n, f"{self._name}/{n}", 1, "adler32:00010001") for n in names
        ]
        with self._catalog.write() as session:
            ids = files.register(session, self._places.input_id, rows)
            datasets.attach(session, self._dataset, [*map(Member, ids, names)])
        self.count += count

    def close(self) -> list[str]:
        """Close the dataset and end the workflow; gives what is wrong with its jobs."""
        with self._catalog.write() as session:
            datasets.close(session, self._dataset)
        state = advance(self._chain)
        return self._faults(state, [dataset.dataset_id for dataset in self.outputs()])

    def _faults(self, state: WorkflowState, outputs: Sequence[int]) -> list[str]:
        mine = sa.select(col(Job.id)).where(col(Job.task_id) == self.task_id)
        ended = col(Attempt.state) == AttemptState.FINISHED
        members = sa.select(sa.func.count(col(DatasetFile.name).distinct()))
        with self._catalog.read() as session:
            counts = {
                "jobs FINISHED": sa.select(sa.func.count()).where(
                    col(Job.task_id) == self.task_id, col(Job.state) == JobState.FINISHED
                ),
                "attempts": sa.select(sa.func.count()).where(col(Attempt.job_id).in_(mine)),
                "attempts FINISHED": sa.select(sa.func.count()).where(
                    col(Attempt.job_id).in_(mine), ended
                ),
                "outputs": sa.select(sa.func.count()).where(col(JobOutput.job_id).in_(mine)),
                "files in the output dataset": members.where(
                    col(DatasetFile.dataset_id) == outputs[0]
                ),
                "logs": members.where(col(DatasetFile.dataset_id) == outputs[1]),
            }
            found = {name: session.execute(query).scalar_one() for name, query in counts.items()}
        wrong = [
            f"{self._name}: {count} {name} of {self.count}"
            for name, count in found.items()
            if count != self.count
        ]
        if state is not WorkflowState.FINISHED:
            wrong.append(f"{self._name}: the workflow is {state}")
        return wrong
