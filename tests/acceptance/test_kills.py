"""What is killed with -9 in mid-run: the run ends as if nothing had been, without an operator."""

import os
import signal
from pathlib import Path

import pytest

from tests.acceptance.driver import LEASE_S, Site, until

pytestmark = pytest.mark.xdist_group("acceptance")

SLACK_S = 12.0
"""For processes to be started on a busy machine, beside the lease that is promised."""


def running_pilot(site: Site, workflow: int, done: int = 4) -> int:
    """The pid of a workflow's pilot, once some of its jobs are done."""
    until(lambda: site.jobs(workflow).get("FINISHED", 0) >= done, "some jobs are done", limit_s=90)
    return int(
        site.one(
            "SELECT pid FROM pilot JOIN task ON task.id = task_id"
            " WHERE workflow_id = ? AND pilot.state = 'ACTIVE' ORDER BY pilot.id LIMIT 1",
            workflow,
        )
    )


def test_a_killed_pilot_loses_no_job_and_leaves_no_payload(
    site: Site, nap_files: dict[str, bytes], tmp_path: Path
) -> None:
    for name in ("f05.dat", "f06.dat"):
        (tmp_path / name).touch()
    workflow = site.nap(0.5, tmp_path)
    pilot = running_pilot(site, workflow)
    payloads = until(lambda: (p := site.payloads()) and len(p) >= 2 and p, "payloads run")
    os.kill(pilot, signal.SIGKILL)
    for trap in tmp_path.iterdir():
        trap.unlink()
    until(
        lambda: not payloads & site.payloads(),
        "the payloads of the killed pilot are gone",
        LEASE_S + SLACK_S,
    )
    site.finished(workflow)
    site.whole(workflow, nap_files)
    attempts = site.attempts(workflow)
    assert attempts["LOST"] >= 2, "those two were still at work when their pilot was killed"
    site.shown_as(workflow, {"COMPLETED": len(nap_files), "CRASHED": attempts["LOST"]})
    assert site.rows("SELECT count(*) FROM pilot WHERE pid = ? AND state = 'LOST'", pilot) == [(1,)]


def test_a_killed_flow_run_is_replaced_and_the_work_goes_on(
    site: Site, nap_files: dict[str, bytes]
) -> None:
    workflow = site.nap(1.0)
    running_pilot(site, workflow)
    first = site.flow_run(workflow)
    (engine,) = site.engines(first)
    os.kill(engine, signal.SIGKILL)
    site.finished(workflow)
    site.whole(workflow, nap_files)
    assert site.attempts(workflow) == {"FINISHED": len(nap_files)}, "its pilots worked on"
    last = site.one("SELECT flow_run_id FROM workflow WHERE id = ?", workflow)
    assert last != first
    assert site.one("SELECT epoch FROM workflow WHERE id = ?", workflow) == 2
    ends = {run: site.api("GET", f"/flow_runs/{run}")["state_type"] for run in (first,)}
    assert ends == {first: "CRASHED"}
    until(
        lambda: site.api("GET", f"/flow_runs/{last}")["state_type"] == "COMPLETED",
        "the second flow run ends",
    )
    site.shown_as(workflow, {"COMPLETED": len(nap_files)})


def test_a_flow_run_that_is_killed_before_it_begins_is_replaced_too(
    site: Site, nap_files: dict[str, bytes]
) -> None:
    workflow = site.nap(0.1)
    first = str(site.one("SELECT flow_run_id FROM workflow WHERE id = ?", workflow))
    (engine,) = until(lambda: site.engines(first), "its process is there", 40)
    os.kill(engine, signal.SIGKILL)
    assert site.one("SELECT epoch FROM workflow WHERE id = ?", workflow) == 0
    site.finished(workflow)
    site.whole(workflow, nap_files)


def test_a_killed_recorder_shows_every_attempt_once(
    site: Site, nap_files: dict[str, bytes]
) -> None:
    workflow = site.nap(0.3)
    until(lambda: site.shown(workflow).get("COMPLETED", 0) >= 3, "some are shown", limit_s=90)
    pid = site.service("recorder")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    site.finished(workflow)
    site.whole(workflow, nap_files)
    site.shown_as(workflow, {"COMPLETED": len(nap_files)})
    assert until(lambda: site.service("recorder"), "it was started again") != pid


def test_a_killed_worker_is_started_again_and_its_pilots_work_on(
    site: Site, nap_files: dict[str, bytes]
) -> None:
    workflow = site.nap(0.5)
    running_pilot(site, workflow)
    pid = site.service("worker-cpu")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    site.finished(workflow)
    site.whole(workflow, nap_files)
    assert until(lambda: site.service("worker-cpu"), "it was started again") != pid
