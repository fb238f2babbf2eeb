"""What operators do in Prefect's web page, and two of them at once on the command line."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from tests.acceptance.driver import LEASE_S, Site
from tests.acceptance.machine import until

pytestmark = pytest.mark.xdist_group("server")

HEARTBEAT_S, ASKED_EVERY_S, SLACK_S = 1.0, 3.0, 12.0


@dataclass(frozen=True)
class Cancelled:
    """A workflow that was cancelled while payloads of five minutes ran; `at` is the time."""

    workflow: int
    flow_run: str
    at: str


def set_state(site: Site, flow_run: str, kind: str) -> None:
    """What the buttons of the web page send."""
    body = {"state": {"type": kind, "name": kind.title()}, "force": True}
    site.api("POST", f"/flow_runs/{flow_run}/set_state", body)


def start(site: Site, **parameters: Any) -> Any:
    """The answer to a start of template `nap` with these values in its form."""
    deployment = site.api("GET", "/deployments/name/nap/nap")["id"]
    path = f"/deployments/{deployment}/create_flow_run"
    return site.ask("POST", path, {"parameters": parameters})


@pytest.fixture(scope="module")
def cancelled(site: Site, nap_files: dict[str, bytes]) -> Cancelled:
    workflow = site.nap(seconds=300)
    until(lambda: len(site.payloads()) >= 2, "payloads run", limit_s=90)
    flow_run = site.flow_run(workflow)
    set_state(site, flow_run, "CANCELLING")
    at = site.one("SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now', ?)", f"{LEASE_S} seconds")
    return Cancelled(workflow, flow_run, at)


@pytest.fixture(scope="module")
def submitted(site: Site, nap_files: dict[str, bytes]) -> list[dict[str, Any]]:
    """The answers to two submits at once."""
    words = ("workflow", "submit", "nap", "nap-files", "--input", "seconds=0", "--json")
    both = [site.start(*words, "--input", "hold=/both") for _ in range(2)]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    return [json.loads(out) for out, _ in said]


@pytest.fixture(scope="module")
def started(site: Site, nap_files: dict[str, bytes]) -> tuple[int, str]:
    """The workflow and the flow run of a start from the form; its last payload waits."""
    folder = site.holds / "form"
    folder.mkdir(parents=True)
    (folder / "f29.dat").touch()
    given = {"seconds": "0", "hold": str(folder)}
    answer = start(site, template="nap@1", dataset="nap-files", inputs=given, again=True)
    assert answer.status_code == 201, answer.text
    run = str(answer.json()["id"])
    query = "SELECT id FROM workflow WHERE flow_run_id = ?"
    ((workflow,),) = until(lambda: site.rows(query, run), "the run has defined its workflow")
    return workflow, run


def test_cancelling_a_run_cancels_the_workflow_and_kills_its_payloads(
    site: Site, cancelled: Cancelled, nap_files: dict[str, bytes]
) -> None:
    workflow = cancelled.workflow
    until(
        lambda: site.state(workflow) == "CANCELLED" and not site.payloads(),
        "the workflow is cancelled and its payloads are gone",
        ASKED_EVERY_S + HEARTBEAT_S + SLACK_S,
    )
    assert site.jobs(workflow) == {"CANCELLED": len(nap_files)}
    assert set(site.attempts(workflow)) == {"CANCELLED"}
    until(lambda: site.run_state(cancelled.flow_run) == "CANCELLED", "the run is shown as that")
    site.shown_as(workflow, site.attempts(workflow))


def test_two_submits_at_once_give_one_workflow(site: Site, submitted: list[dict[str, Any]]) -> None:
    assert len({answer["id"] for answer in submitted}) == 1
    assert sorted(answer["new"] for answer in submitted) == [False, True]
    same = "SELECT count(*) FROM workflow WHERE inputs LIKE '%\"/both\"%'"
    assert site.one(same) == 1


def test_a_template_is_started_from_its_form(site: Site, started: tuple[int, str]) -> None:
    workflow, run = started
    inputs = site.one("SELECT inputs FROM workflow WHERE id = ?", workflow)
    assert json.loads(inputs) == {"seconds": "0", "hold": str(site.holds / "form")}
    flow = site.api("GET", f"/flow_runs/{run}")["flow_id"]
    assert site.api("GET", f"/flows/{flow}")["name"] == "nap"


def test_a_live_run_that_is_rescheduled_has_one_owner_all_the_same(
    site: Site, started: tuple[int, str], nap_files: dict[str, bytes]
) -> None:
    workflow, run = started
    site.in_progress(workflow)
    assert len(site.engines(run)) == 1
    workflows = site.one("SELECT count(*) FROM workflow")
    set_state(site, run, "SCHEDULED")
    until(lambda: len(site.engines(run)) == 2, "there are two processes of it")
    (site.holds / "form" / "f29.dat").unlink()
    site.finished(workflow)
    site.whole(workflow, nap_files)
    assert site.attempts(workflow) == {"FINISHED": len(nap_files)}
    assert site.one("SELECT epoch FROM workflow WHERE id = ?", workflow) == 1, "one owner"
    until(lambda: not site.engines(run), "both processes end")
    assert site.one("SELECT count(*) FROM workflow") == workflows, "none was defined by the second"
    assert site.run_state(run) == "COMPLETED"
    site.shown_as(workflow, {"COMPLETED": len(nap_files)})


@pytest.mark.parametrize(
    ("inputs", "field"),
    [
        ({"seconds": 1, "hold": "/none"}, "seconds"),
        ({"hold": "/none"}, "seconds"),
        ({"seconds": "1", "hold": "/none", "spoon": "x"}, "spoon"),
    ],
    ids=["of another type", "missing", "unknown"],
)
def test_a_form_that_does_not_fit_is_refused(
    site: Site, nap_files: dict[str, bytes], inputs: dict[str, Any], field: str
) -> None:
    before = site.one("SELECT count(*) FROM workflow")
    answer = start(site, template="nap@1", dataset="nap-files", inputs=inputs, again=True)
    assert answer.status_code == 409
    assert field in answer.text
    assert site.one("SELECT count(*) FROM workflow") == before


def test_the_one_workflow_of_two_submits_is_driven_once(
    site: Site, submitted: list[dict[str, Any]], nap_files: dict[str, bytes]
) -> None:
    workflow = submitted[0]["id"]
    site.finished(workflow)
    site.whole(workflow, nap_files)
    pilots = {run for (run,) in site.rows("SELECT flow_run_id FROM pilot")}
    drivers = {run["id"] for run in site.flow_runs(workflow)} - pilots
    assert drivers == {site.one("SELECT flow_run_id FROM workflow WHERE id = ?", workflow)}


def test_nothing_revives_a_cancelled_workflow(site: Site, cancelled: Cancelled) -> None:
    body = {
        "flows": {"name": {"any_": ["watchdog"]}},
        "flow_runs": {
            "start_time": {"after_": cancelled.at},
            "state": {"type": {"any_": ["COMPLETED"]}},
        },
    }
    watched = "a watchdog began and ended after the lease had run out"
    until(lambda: site.api("POST", "/flow_runs/count", body), watched, 90)
    assert site.state(cancelled.workflow) == "CANCELLED"
    owned = "SELECT owner, flow_run_id FROM workflow WHERE id = ?"
    assert site.rows(owned, cancelled.workflow) == [(None, cancelled.flow_run)]
    pilots = "SELECT count(*) FROM pilot JOIN task ON task.id = task_id WHERE workflow_id = ?"
    runs = site.flow_runs(cancelled.workflow)
    assert len(runs) == 1 + site.one(pilots, cancelled.workflow), "nothing was started for it"
    assert all(run["end_time"] for run in runs)
    assert not site.payloads()
