"""A workflow of one stage, advanced and worked on by the catalog's own functions, without payloads.

Every transaction is one that a pilot or an advancer makes; a pilot's are timed one by one.
"""

import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from benchmarks.database import Database
from catalog import (
    attempts,
    completion,
    datasets,
    definition,
    files,
    jobfiles,
    ownership,
    pilots,
    storages,
    tasks,
    templates,
    workflows,
)
from catalog.attempts import Lease
from catalog.datasets import Member
from catalog.db import Catalog
from catalog.definition import NewTask
from catalog.files import NewFileRow
from catalog.refs import JobResult, NewFile, Outcome, Usage
from flows.advance import advance, load, take_back
from flows.plan import Link, Plan, Source, Stage, StageKind, plan_to_json
from flows.shift.turn import Turn
from workers.spec import OutputPort, Resources, StepSpec

LEASE_S = 60.0
GROUP = 16
"""Jobs in one lease and in one commit."""
_CHUNK = 10_000

_MIDDLE = (
    """UPDATE job SET state = 'RUNNING', attempt = 1, pilot_id = :pilot, lease_until = now()
       WHERE task_id = :task AND state = 'READY' AND ordinal >= :first AND ordinal < :last""",
    """INSERT INTO attempt (job_id, number, pilot_id, state, started_at, ended_at, shown, shown_try)
       SELECT id, 1, :pilot, 'FINISHED', now(), now(), true, 1 FROM job
       WHERE task_id = :task AND ordinal >= :first AND ordinal < :last""",
    """UPDATE job SET state = 'FINISHED', pilot_id = NULL, lease_until = NULL, ended_at = now()
       WHERE task_id = :task AND ordinal >= :first AND ordinal < :last""",
)


class _Statements:
    """Adds up the time from each statement's way to the database to its answer."""

    def __init__(self) -> None:
        self.total_s, self._begun = 0.0, 0.0

    def listen(self, engine: sa.Engine) -> None:
        """Time those of an engine."""
        sa.event.listen(engine, "before_cursor_execute", self.begin)
        sa.event.listen(engine, "after_cursor_execute", self._end)

    def begin(self, *_: object) -> None:
        """Before a statement."""
        self._begun = time.perf_counter()

    def _end(self, *_: object) -> None:
        self.total_s += time.perf_counter() - self._begun


_statements = _Statements()


@dataclass
class Costs:
    """What was spent on some jobs: CPU seconds on either side, and seconds by transaction."""

    jobs: int = 0
    server_s: float = 0.0
    client_s: float = 0.0
    wall_s: float = 0.0
    took_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    @contextmanager
    def timed(self, kind: str) -> Iterator[None]:
        """Time one transaction, and in it the statements: what the database takes, and the way."""
        begun, before = time.perf_counter(), _statements.total_s
        yield
        self.took_s[kind].append(time.perf_counter() - begun)
        self.took_s[f"{kind}: statements"].append(_statements.total_s - before)


class OnePilot:
    """One workflow, and the pilot that works on it."""

    def __init__(self, database: Database, catalog: Catalog, name: str, size: int) -> None:
        self._database, self._catalog, self.size = database, catalog, size
        self._turn = Turn()
        if not sa.event.contains(catalog.engine, "before_cursor_execute", _statements.begin):
            _statements.listen(catalog.engine)
        with catalog.write() as session:
            place = database.cluster.directory.parent / name
            disk = storages.add(session, name, "local", "internal", str(place))
            dataset = datasets.create(session, f"{name}-1")
        for first in range(0, size, _CHUNK):
            numbers = range(first, min(first + _CHUNK, size))
            rows = [
                NewFileRow(name, f"{i:07d}", f"{name}/{i:07d}", 4096, f"adler32:{i:08x}")
                for i in numbers
            ]
            with catalog.write() as session:
                ids = files.register(session, disk.id, rows)
                members = [Member(i, row.name) for i, row in zip(ids, rows, strict=True)]
                datasets.attach(session, dataset, members)
        plan = Plan("files", (_stage(),))
        with catalog.write() as session:
            datasets.close(session, dataset)
            template = templates.create(session, name, f"{name}-*", {}, plan_to_json(plan), "d")
            templates.activate(session, template.id)
        new = NewTask("step", "cpu", 0, {"out": disk.id, "log": disk.id})
        with catalog.write() as session:
            self._workflow, _ = definition.define(
                session, template.id, dataset, [new], inputs={}, rank=0
            )
            epoch = ownership.claim(session, self._workflow, "bench", 1e6, None)
        assert epoch is not None
        self._chain = load(catalog, self._workflow, epoch, 1e6)
        (self._task,) = self._chain.task_ids.values()
        with catalog.write() as session:
            self._pilot = pilots.start(
                session, self._task, pool="cpu", node="bench", pid=os.getpid(), slots=2,
                flow_run_id="bench",
            )  # fmt: skip
            self._out = tasks.outputs(session, [self._task])[self._task]["out"]

    @contextmanager
    def spending(self, jobs: int) -> Iterator[Costs]:
        """Count what is spent meanwhile, on so many jobs."""
        costs = Costs(jobs)
        server, client, wall = self._database.cpu_s(), time.process_time(), time.monotonic()
        yield costs
        costs.wall_s = time.monotonic() - wall
        costs.client_s = time.process_time() - client
        costs.server_s = self._database.cpu_s() - server

    def define(self) -> Costs:
        """Define the jobs of all files."""
        with self.spending(self.size) as costs:
            advance(self._chain)
        return costs

    def work(self, count: int) -> Costs:
        """Lease and finish about so many jobs, a file each, with a heartbeat every ten groups."""
        with self.spending(0) as costs:
            while costs.jobs < count:
                with costs.timed("lease"), self._catalog.write() as session:
                    leases = attempts.lease(
                        session, self._pilot, self._task, GROUP, lease_s=LEASE_S, node="bench",
                        program="bench", tool_digest="d", after=self._turn.after(),
                    )  # fmt: skip
                    self._turn.took(leases)
                if not leases:
                    break
                with costs.timed("read inputs"), self._catalog.read() as session:
                    jobfiles.inputs(session, [lease.job_id for lease in leases])
                if len(costs.took_s["lease"]) % 10 == 1:
                    with costs.timed("heartbeat"), self._catalog.write() as session:
                        attempts.heartbeat(session, self._pilot, LEASE_S, {})
                with costs.timed("commit"), self._catalog.write() as session:
                    ends = self._ends(leases)
                    costs.jobs += len(completion.finish(session, self._pilot, ends, retry=0))
        return costs

    def _ends(self, leases: Sequence[Lease]) -> list[JobResult]:
        out = self._out
        return [
            JobResult(
                lease.job_id, lease.attempt_id, lease.number, Outcome.FINISHED, exit_code=0,
                usage=Usage(1.0, 1.0, 1, 4096, 32),
                files=(
                    NewFile(
                        "out", 0, f"{lease.key}/out", 32, f"adler32:{lease.ordinal:08x}",
                        out.storage_id, f"{out.name}/{lease.key}/a1/out", out.dataset_id,
                    ),
                ),
            )
            for lease in leases
        ]  # fmt: skip

    def pass_middle(self, last: int) -> None:
        """Take the jobs up to that ordinal through the same states inside the database, fast."""
        done = self._count("FINISHED")
        for first in range(done, last, _CHUNK):
            part = {"task": self._task, "pilot": self._pilot}
            part |= {"first": first, "last": min(first + _CHUNK, last)}
            with self._catalog.write() as session:
                for statement in _MIDDLE:
                    session.execute(sa.text(statement), part)

    def turns(self, count: int) -> Costs:
        """What an advancer, a dispatcher and the progress do every second or so."""
        with self.spending(0) as costs:
            for _ in range(count):
                with costs.timed("advance"):
                    advance(self._chain)
                with costs.timed("take back"):
                    take_back(self._chain, LEASE_S)
                with costs.timed("count ready"), self._catalog.read() as session:
                    tasks.count_ready(session, self._task, 128)
                with costs.timed("progress"), self._catalog.read() as session:
                    tasks.progress(session, self._workflow)
        return costs

    def end(self) -> Costs:
        """Settle the task: count, close, end the workflow."""
        with self.spending(self.size) as costs:
            advance(self._chain)
        return costs

    def faults(self) -> list[str]:
        """What isn't as it must be at the end."""
        with self._catalog.read() as session:
            state = workflows.get(session, self._workflow).state
        found = self._count("FINISHED")
        good = state == "FINISHED" and found == self.size
        return [] if good else [f"{state}: {found} of {self.size} jobs are FINISHED"]

    def _count(self, state: str) -> int:
        with self._catalog.read() as session:
            (row,) = tasks.progress(session, self._workflow)
        counts: dict[Any, int] = dict(row.jobs)
        return counts.get(state, 0)


def _stage() -> Stage:
    step = StepSpec({"class": "CommandLineTool"}, (), (OutputPort("out", "File"),))
    link = Link("x", (Source(None, "files"),))
    return Stage("step", StageKind.MAP, step, (link,), (), Resources(), "")
