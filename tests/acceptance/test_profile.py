"""`up` and `down`, also in mid-run, and after the supervisor was killed."""

import json
import os
import signal
from collections.abc import Iterator

import pytest

from tests.acceptance.driver import Site
from tests.acceptance.machine import until

pytestmark = pytest.mark.xdist_group("server")


@pytest.fixture
def _up_again(site: Site) -> Iterator[None]:
    """Whatever the test did: the others find the site up."""
    yield
    site.spdf("up", limit_s=240)


@pytest.fixture(scope="module")
def workflow(site: Site, nap_files: dict[str, bytes]) -> int:
    """A workflow that is to be interrupted: most of its payloads wait."""
    return site.nap(*range(10, 30))


def test_a_second_up_says_that_it_is_up(site: Site) -> None:
    before = {service["name"]: service["pid"] for service in site.json("status")["services"]}
    assert all(before.values())
    assert "spdf is up already." in site.spdf("up")
    status = site.json("status")
    assert status["up"] and all(service["healthy"] for service in status["services"])
    after = {service["name"]: service["pid"] for service in status["services"]}
    assert after == before, "nothing was started anew"


@pytest.mark.usefixtures("_up_again")
def test_down_in_mid_run_hands_everything_back_and_up_resumes_it(site: Site, workflow: int) -> None:
    site.in_progress(workflow)
    assert "supervisor" in site.spdf("down")
    assert site.mine() == []
    left = site.jobs(workflow)
    assert set(left) == {"READY", "FINISHED"}, "nothing is left as running"
    assert left["READY"] >= 20, "those that wait"
    assert site.state(workflow) == "IN_PROGRESS"
    assert "spdf was not up." in site.spdf("down")
    status = json.loads(site.run("status", "--json").stdout)
    assert not status["up"] and status["jobs"] == {"READY": left["READY"]}

    site.spdf("up", limit_s=240)
    until(lambda: len(site.payloads()) >= 2, "payloads run again")


@pytest.mark.usefixtures("_up_again")
def test_up_cleans_up_after_a_killed_supervisor_and_the_run_goes_on(
    site: Site, workflow: int, nap_files: dict[str, bytes]
) -> None:
    before = {p.pid for p in site.mine()}
    assert site.payloads()
    os.kill(site.json("status")["supervisor_pid"], signal.SIGKILL)
    assert "spdf is up." in site.spdf("up", limit_s=240)
    assert not before & {p.pid for p in site.mine()}, "what was left of it is gone"
    site.release(workflow)
    site.finished(workflow)
    site.whole(workflow, nap_files)
    attempts = site.attempts(workflow)
    errors = site.rows(
        "SELECT DISTINCT attempt.error FROM attempt JOIN pilot ON pilot.id = pilot_id"
        " JOIN task ON task.id = task_id WHERE attempt.state <> 'FINISHED' AND workflow_id = ?",
        workflow,
    )
    assert errors == [("PILOT_STOPPED",)], "two pilots were asked to stop, none was lost"
    names = {"FINISHED": "COMPLETED", "FAILED": "FAILED"}
    site.shown_as(workflow, {names[state]: count for state, count in attempts.items()})
