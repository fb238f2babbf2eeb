"""What is killed with -9 in mid-run: the run ends as if nothing had been, without an operator."""

import os
import signal
from pathlib import Path

import pytest

from tests.acceptance.driver import LEASE_S, Site
from tests.acceptance.machine import until

pytestmark = pytest.mark.xdist_group("server")

SLACK_S = 12.0
"""For processes to be started on a busy machine, beside the lease that is promised."""


def test_a_killed_pilot_loses_no_job_and_leaves_no_payload(
    site: Site, nap_files: dict[str, bytes], tmp_path: Path
) -> None:
    for name in ("f05.dat", "f06.dat"):
        (tmp_path / name).touch()
    workflow = site.nap(0.5, tmp_path)
    site.in_progress(workflow)
    pilot = site.one(
        "SELECT pid FROM pilot JOIN task ON task.id = task_id WHERE workflow_id = ?", workflow
    )
    payloads = until(lambda: len(p := site.payloads()) >= 2 and p, "payloads run")
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
    lost = site.attempts(workflow)["LOST"]
    assert lost >= 2, "those two were still at work when their pilot was killed"
    site.shown_as(workflow, {"COMPLETED": len(nap_files), "CRASHED": lost})
    assert site.one("SELECT state FROM pilot WHERE pid = ?", pilot) == "LOST"


@pytest.fixture(scope="module")
def workflow(site: Site, nap_files: dict[str, bytes]) -> int:
    """A workflow that is to lose whatever drives it, but not its pilot."""
    return site.nap(2)


def test_a_flow_run_that_is_killed_before_it_begins_is_replaced(site: Site, workflow: int) -> None:
    first = str(site.one("SELECT flow_run_id FROM workflow WHERE id = ?", workflow))
    (engine,) = until(lambda: site.engines(first), "its process is there", 40)
    os.kill(engine, signal.SIGKILL)
    assert site.one("SELECT epoch FROM workflow WHERE id = ?", workflow) == 0
    site.in_progress(workflow, 2)
    assert site.flow_run(workflow) != first
    assert site.run_state(first) == "CRASHED"


def test_killed_flow_run_recorder_and_worker_are_replaced_while_the_pilot_works_on(
    site: Site, workflow: int, nap_files: dict[str, bytes]
) -> None:
    first = site.flow_run(workflow)
    (engine,) = site.engines(first)
    os.kill(engine, signal.SIGKILL)
    until(lambda: site.shown(workflow).get("COMPLETED", 0) >= 2, "some jobs are shown")
    services = {name: site.service(name) for name in ("recorder", "worker-cpu")}
    for pid in services.values():
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    site.finished(workflow)
    site.whole(workflow, nap_files)
    assert site.attempts(workflow) == {"FINISHED": len(nap_files)}, "the pilot lost nothing"
    epoch, last = site.rows("SELECT epoch, flow_run_id FROM workflow WHERE id = ?", workflow)[0]
    assert epoch == 2 and last != first
    until(lambda: site.run_state(last) == "COMPLETED", "the last flow run ends")
    assert site.run_state(first) == "CRASHED"
    site.shown_as(workflow, {"COMPLETED": len(nap_files)})
    for name, pid in services.items():
        new = until(lambda name=name: site.service(name), f"{name} was started again")
        assert new != pid
