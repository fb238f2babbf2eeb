"""What is killed with -9 in mid-run: the run ends as if nothing had been, without an operator."""

import os
import signal

import pytest

from tests.acceptance.driver import LEASE_S, Site
from tests.acceptance.machine import until

pytestmark = pytest.mark.xdist_group("server")

SLACK_S = 12.0
"""For processes to be started on a busy machine, beside the lease that is promised."""


def test_a_killed_pilot_loses_no_job_and_leaves_no_payload(
    site: Site, nap_files: dict[str, bytes]
) -> None:
    workflow = site.nap(5, 6)
    site.in_progress(workflow)
    pilots = "SELECT pid FROM pilot JOIN task ON task.id = task_id WHERE workflow_id = ?"
    pilot = site.one(pilots, workflow)
    payloads = until(lambda: len(p := site.payloads()) >= 2 and p, "payloads run")
    os.kill(pilot, signal.SIGKILL)
    until(
        lambda: not payloads & site.payloads(),
        "the payloads of the killed pilot are gone",
        LEASE_S + SLACK_S,
    )
    site.release(workflow)
    site.finished(workflow)
    site.whole(workflow, nap_files)
    lost = site.attempts(workflow)["LOST"]
    assert lost >= 2, "those two were still at work when their pilot was killed"
    site.shown_as(workflow, {"COMPLETED": len(nap_files), "CRASHED": lost})
    assert site.one("SELECT state FROM pilot WHERE pid = ?", pilot) == "LOST"


@pytest.fixture(scope="module")
def workflow(site: Site, nap_files: dict[str, bytes]) -> int:
    """A workflow that is to lose whatever drives it, but not its pilot."""
    return site.nap(28, 29, seconds=0.3)


def test_a_flow_run_that_is_killed_before_it_begins_is_replaced(site: Site, workflow: int) -> None:
    first = str(site.one("SELECT flow_run_id FROM workflow WHERE id = ?", workflow))
    (engine,) = until(lambda: site.engines(first), "its process is there")
    os.kill(engine, signal.SIGKILL)
    assert site.one("SELECT epoch FROM workflow WHERE id = ?", workflow) == 0
    site.in_progress(workflow)
    assert site.flow_run(workflow) != first
    assert site.run_state(first) == "CRASHED"


def test_killed_flow_run_recorder_and_worker_are_replaced_while_the_pilot_works_on(
    site: Site, workflow: int, nap_files: dict[str, bytes]
) -> None:
    services = {name: site.service(name) for name in ("recorder", "worker-cpu")}
    first = site.flow_run(workflow)
    (engine,) = site.engines(first)
    until(lambda: site.shown(workflow).get("COMPLETED", 0) >= 2, "some attempts are shown")
    for pid in (*services.values(), engine):
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    epoch = "SELECT epoch FROM workflow WHERE id = ?"
    until(lambda: site.one(epoch, workflow) == 2, "another flow run has taken it")
    site.release(workflow)
    site.finished(workflow)
    site.whole(workflow, nap_files)
    assert site.attempts(workflow) == {"FINISHED": len(nap_files)}, "the pilot lost nothing"
    last = site.one("SELECT flow_run_id FROM workflow WHERE id = ?", workflow)
    assert site.one(epoch, workflow) == 2 and last != first
    until(lambda: site.run_state(last) == "COMPLETED", "the last flow run ends")
    assert site.run_state(first) == "CRASHED"
    site.shown_as(workflow, {"COMPLETED": len(nap_files)})
    for name, pid in services.items():
        new = until(lambda name=name: site.service(name), f"{name} was started again")
        assert new != pid
