"""The pilot: a flow run on a compute node that maps `run_job` over the jobs of one task."""

import gc
import os
import sys
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import prefect
from prefect import flow, task, unmapped

from catalog import schema, tasks
from catalog.db import get_catalog
from catalog.outage import ride_out
from catalog.settings import get_settings
from flows.shift import Roster, Shift
from flows.taskrunner import SlotTaskRunner
from workers.devices import capacity
from workers.job import RunningJob
from workers.spec import JobResult

_RUNNER: Any = SlotTaskRunner()


@task(name="run_job")
def run_job(running: RunningJob, shift: Shift) -> "Future[JobResult]":
    """One file through one stage: stage-in, payload, stage-out."""
    return shift.begin_job(running)


@flow(name="pilot", task_runner=_RUNNER)
def pilot(task: int, slots: int | None = None) -> int:
    """Lease jobs of a task and run them, one file per job, until none are left."""
    roster = make_roster(task, slots)
    # What was imported stays: garbage is looked for among what comes and goes with jobs.
    gc.freeze()
    with Shift(get_catalog(), get_settings(), roster) as shift:
        return shift.work(lambda window: map_window(window, shift))


def map_window(window: Sequence[RunningJob], shift: Shift) -> list[object]:
    """Map `run_job` over a bounded window of leased jobs."""
    return list(run_job.map(list(window), shift=unmapped(shift)))


def make_roster(task_id: int, slots: int | None) -> Roster:
    """Who this process is as a pilot; puts this environment's programs first on PATH.

    Raises `SchemaMismatch` for a catalog that this program can't work with.
    """
    settings = get_settings()
    programs = str(Path(sys.executable).parent)
    if programs not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join((programs, os.environ.get("PATH", os.defpath)))
    pool = ride_out(lambda: _pool_of(task_id), limit_s=settings.outage_s)
    offered = capacity(settings)
    run_id = prefect.runtime.flow_run.id
    return Roster(
        task_id=task_id,
        pool=pool,
        capacity=replace(offered, cores=slots or offered.cores),
        flow_run_id=str(run_id) if run_id else None,
    )


def _pool_of(task_id: int) -> str:
    schema.require(get_catalog())
    with get_catalog().read() as session:
        return tasks.get(session, task_id).pool
