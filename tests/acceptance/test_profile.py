"""`up` and `down`, also in mid-run, and after the supervisor was killed."""

import json
import os
import signal
from collections.abc import Iterator

import pytest

from tests.acceptance.driver import Site, until

pytestmark = pytest.mark.xdist_group("acceptance")


@pytest.fixture
def _up_again(site: Site) -> Iterator[None]:
    """Whatever the test did: the others find the site up."""
    yield
    site.spdf("up", limit_s=240)


def working(site: Site) -> int:
    """A workflow in mid-run: half a minute of work is left."""
    workflow = site.nap(1.5)
    until(lambda: site.jobs(workflow).get("FINISHED", 0) >= 3, "some jobs are done", limit_s=90)
    return workflow


def test_a_second_up_says_that_it_is_up(site: Site) -> None:
    before = {p.pid for p in site.mine() if "prefect.engine" not in p.command}
    assert "spdf is up already." in site.spdf("up")
    status = site.json("status")
    assert status["up"] and all(service["healthy"] for service in status["services"])
    assert before <= {p.pid for p in site.mine()}, "nothing was started anew"


@pytest.mark.usefixtures("_up_again")
def test_down_in_mid_run_hands_everything_back_and_up_resumes_it(
    site: Site, nap_files: dict[str, bytes]
) -> None:
    workflow = working(site)
    assert site.payloads()
    assert "supervisor" in site.spdf("down")
    assert site.mine() == []
    counts = site.jobs(workflow)
    assert set(counts) == {"READY", "FINISHED"}, "nothing is left as running"
    assert site.state(workflow) == "IN_PROGRESS"
    assert "spdf was not up." in site.spdf("down")
    status = json.loads(site.run("status", "--json").stdout)
    assert not status["up"] and status["jobs"] == {"READY": counts["READY"]}

    site.spdf("up", limit_s=240)
    site.finished(workflow)
    site.whole(workflow, nap_files)
    attempts = site.attempts(workflow)
    assert set(attempts) <= {"FINISHED", "FAILED"}
    errors = site.rows(
        "SELECT DISTINCT attempt.error FROM attempt JOIN pilot ON pilot.id = pilot_id"
        " JOIN task ON task.id = task_id WHERE attempt.state = 'FAILED' AND workflow_id = ?",
        workflow,
    )
    assert errors in ([], [("PILOT_STOPPED",)])
    names = {"FINISHED": "COMPLETED", "FAILED": "FAILED"}
    site.shown_as(workflow, {names[state]: count for state, count in attempts.items()})


@pytest.mark.usefixtures("_up_again")
def test_up_cleans_up_after_a_killed_supervisor_and_the_run_goes_on(
    site: Site, nap_files: dict[str, bytes]
) -> None:
    workflow = working(site)
    before = {p.pid for p in site.mine()}
    os.kill(site.json("status")["supervisor_pid"], signal.SIGKILL)
    assert "spdf is up." in site.spdf("up", limit_s=240)
    assert not before & {p.pid for p in site.mine()}, "what was left of it is gone"
    site.finished(workflow)
    site.whole(workflow, nap_files)
