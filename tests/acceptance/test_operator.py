"""What an operator does in Prefect's web page: start, cancel and reschedule runs."""

import json
from typing import Any

import pytest

from tests.acceptance.driver import LEASE_S, Site, until

pytestmark = pytest.mark.xdist_group("acceptance")

HEARTBEAT_S, ASKED_EVERY_S, SLACK_S = 1.0, 3.0, 8.0


def set_state(site: Site, flow_run: str, kind: str) -> None:
    """What the buttons of the web page send."""
    body = {"state": {"type": kind, "name": kind.title()}, "force": True}
    site.api("POST", f"/flow_runs/{flow_run}/set_state", body)


def start(site: Site, **parameters: Any) -> Any:
    """The answer to a start of template `nap` with these values in its form."""
    deployment = site.api("GET", "/deployments/name/nap/nap")["id"]
    return site.ask(
        "POST", f"/deployments/{deployment}/create_flow_run", {"parameters": parameters}
    )


def test_a_cancelled_run_ends_its_payloads_and_stays_cancelled(
    site: Site, nap_files: dict[str, bytes]
) -> None:
    workflow = site.nap(300)
    until(lambda: len(site.payloads()) >= 2, "payloads run", limit_s=90)
    flow_run = site.flow_run(workflow)
    set_state(site, flow_run, "CANCELLING")
    until(
        lambda: site.state(workflow) == "CANCELLED" and not site.payloads(),
        "the workflow is cancelled and its payloads are gone",
        ASKED_EVERY_S + HEARTBEAT_S + SLACK_S,
    )
    assert site.jobs(workflow) == {"CANCELLED": len(nap_files)}
    until(
        lambda: site.api("GET", f"/flow_runs/{flow_run}")["state_type"] == "CANCELLED",
        "the run is shown as cancelled",
    )
    assert set(site.attempts(workflow)) == {"CANCELLED"}
    site.shown_as(workflow, site.attempts(workflow))
    runs = {run["id"] for run in site.flow_runs(workflow)}
    watched_once_more(site)
    assert site.state(workflow) == "CANCELLED"
    assert {run["id"] for run in site.flow_runs(workflow)} == runs, "nothing was started for it"
    assert not site.payloads()


def watched_once_more(site: Site) -> None:
    """Wait until the watchdog has begun and ended its watch after leases ran out."""
    now = site.one("SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now', ?)", f"{LEASE_S} seconds")
    body = {
        "flows": {"name": {"any_": ["watchdog"]}},
        "flow_runs": {"start_time": {"after_": now}, "state": {"type": {"any_": ["COMPLETED"]}}},
    }
    until(lambda: site.api("POST", "/flow_runs/count", body), "the watchdog looked", 90)


def test_a_live_run_that_is_rescheduled_has_one_owner_all_the_same(
    site: Site, nap_files: dict[str, bytes]
) -> None:
    workflow = site.nap(1.0)
    until(lambda: site.jobs(workflow).get("FINISHED", 0) >= 2, "some jobs are done", limit_s=90)
    flow_run = site.flow_run(workflow)
    assert len(site.engines(flow_run)) == 1
    set_state(site, flow_run, "SCHEDULED")
    until(lambda: len(site.engines(flow_run)) == 2, "there are two processes of it", 30)
    site.finished(workflow)
    site.whole(workflow, nap_files)
    assert site.attempts(workflow) == {"FINISHED": len(nap_files)}
    assert site.one("SELECT epoch FROM workflow WHERE id = ?", workflow) == 1, "one owner"
    until(lambda: not site.engines(flow_run), "both processes end", 30)
    assert site.api("GET", f"/flow_runs/{flow_run}")["state_type"] == "COMPLETED"
    site.shown_as(workflow, {"COMPLETED": len(nap_files)})


def test_a_template_is_started_from_its_form(site: Site, nap_files: dict[str, bytes]) -> None:
    given = {"seconds": "0.1", "trap": "/none"}
    answer = start(site, template="nap@1", dataset="nap-files", inputs=given, again=True)
    assert answer.status_code == 201, answer.text
    run = answer.json()["id"]
    query = "SELECT id FROM workflow WHERE flow_run_id = ?"
    ((workflow,),) = until(lambda: site.rows(query, run), "the run has defined its workflow")
    inputs = json.loads(site.one("SELECT inputs FROM workflow WHERE id = ?", workflow))
    assert inputs == given
    site.finished(workflow)
    site.whole(workflow, nap_files)


@pytest.mark.parametrize(
    ("inputs", "field"),
    [
        ({"seconds": 1, "trap": "/none"}, "seconds"),
        ({"trap": "/none"}, "seconds"),
        ({"seconds": "1", "trap": "/none", "spoon": "x"}, "spoon"),
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


def test_two_submits_at_once_give_one_workflow(site: Site, nap_files: dict[str, bytes]) -> None:
    words = ("workflow", "submit", "nap", "nap-files", "--input", "seconds=0", "--json")
    both = [site.start(*words, "--input", "trap=/both") for _ in range(2)]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    answers = [json.loads(out) for out, _ in said]
    (workflow,) = {answer["id"] for answer in answers}
    assert sorted(answer["new"] for answer in answers) == [False, True]
    same = "SELECT count(*) FROM workflow WHERE inputs LIKE '%\"/both\"%'"
    assert site.one(same) == 1
    site.finished(workflow)
    site.whole(workflow, nap_files)
    drivers = [r for r in site.flow_runs(workflow) if r["name"].startswith("nap · nap-files")]
    assert len([run for run in drivers if run["parent_task_run_id"] is None]) == 1
