"""Payloads that fail: retried, named, shown, and finished once the cause is gone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.driver import Site

pytestmark = pytest.mark.xdist_group("server")

FAILING = """
cwlVersion: v1.2
class: Workflow
$namespaces: {spdf: "https://spdf.readthedocs.io/ns#"}
requirements: {ScatterFeatureRequirement: {}}
inputs: {files: "File[]", mended: string}
outputs: {out: {type: "File[]", outputSource: check/out}}
steps:
  check:
    scatter: file
    in: {file: files, mended: mended}
    out: [out]
    hints: {"spdf:Stage": {retry: 2}}
    run:
      class: CommandLineTool
      inputs: {file: File, mended: string}
      baseCommand: [sh, -c]
      arguments:
        - 'echo looking at $(inputs.file.basename);
           if test ! -e "$(inputs.mended)"; then case $(inputs.file.basename) in
           f1.dat) exit 0;; f3.dat) echo no calibration >&2; exit 7;; f5.dat) kill -9 $$;; esac; fi;
           cp "$(inputs.file.path)" good.dat'
      outputs: {out: {type: File, outputBinding: {glob: good.dat}}}
"""
FILES = {f"f{i}.dat": f"content {i}\n".encode() for i in range(8)}
BROKEN = {"f1.dat": "OUTPUT_MISSING", "f3.dat": "PAYLOAD_FAILED", "f5.dat": "PAYLOAD_KILLED"}
TRIES = 3
"""`retry: 2` and the first one."""


@dataclass(frozen=True)
class Failed:
    """A workflow in which three of eight jobs failed; its jobs by the name of their file."""

    workflow: int
    report: dict[str, Any]
    jobs: dict[str, dict[str, Any]]
    mended: Path


@pytest.fixture(scope="module")
def failed(site: Site) -> Failed:
    """The workflow, as `submit --wait` left it."""
    mended = site.home / "mended"
    site.dataset("broken-1", site.write("broken-1", FILES))
    path = site.home / "failing.cwl"
    path.write_text(FAILING)
    site.template(path, "broken-[0-9]")
    given = ("--input", f"mended={mended}")
    report = site.json("workflow", "submit", "failing", "broken-1", *given, "--wait", code=1)
    workflow = report["workflow"]["id"]
    jobs = {
        j["key"].rpartition("/")[2]: j for j in site.json("job", "list", "--workflow", workflow)
    }
    return Failed(workflow, report, jobs, mended)


def test_the_three_fail_and_the_rest_is_finished(site: Site, failed: Failed) -> None:
    assert site.jobs(failed.workflow) == {"FAILED": 3, "FINISHED": 5}
    found = {name: job["error"] for name, job in failed.jobs.items() if job["state"] == "FAILED"}
    assert found == BROKEN


def test_the_workflow_says_that_it_failed_and_why(site: Site, failed: Failed) -> None:
    shown = site.json("workflow", "show", failed.workflow)
    assert shown["state"] == "FAILED"
    assert "stage check: 3 of 8 jobs failed" in shown["reason"]
    assert "PAYLOAD_FAILED (exit code 7) × 1" in shown["reason"]
    assert {job["error"] for job in failed.report["failed_jobs"]} == set(BROKEN.values())
    states = {d["dataset"]: d["state"] for d in shown["outputs"]}
    assert states["broken-1.failing.v1.check.out"] == "OPEN", "a retry can still complete it"


def test_each_was_retried_and_keeps_exit_code_and_log(site: Site, failed: Failed) -> None:
    for name, error in BROKEN.items():
        shown = site.json("job", "show", failed.jobs[name]["id"])
        assert [a["error"] for a in shown["attempts"]] == [error] * TRIES
        assert f"looking at {name}" in site.spdf("job", "log", shown["id"])
    shown = site.json("job", "show", failed.jobs["f3.dat"]["id"])
    assert [a["exit_code"] for a in shown["attempts"]] == [7] * TRIES
    assert "no calibration" in site.spdf("job", "log", shown["id"], "--attempt", 1)
    missing = site.json("job", "show", failed.jobs["f1.dat"]["id"])
    assert "good.dat" in missing["attempts"][-1]["message"], "the glob that matched nothing"


def test_prefect_shows_the_failed_attempts_with_their_message(site: Site, failed: Failed) -> None:
    site.shown_as(failed.workflow, {"COMPLETED": 5, "FAILED": 3 * TRIES})
    runs = site.api("POST", "/task_runs/filter", failed_runs(site, failed.workflow))
    told = {run["name"]: run["state"]["message"] for run in runs}
    assert set(told) == {f"broken-1/{name}#{n}" for name in BROKEN for n in range(1, TRIES + 1)}
    for name, error in BROKEN.items():
        assert told[f"broken-1/{name}#1"].startswith(error)
    assert "exit code 7" in told["broken-1/f3.dat#2"]


def failed_runs(site: Site, workflow: int) -> dict[str, Any]:
    pilots = [r["id"] for r in site.flow_runs(workflow) if r["name"].startswith("check · ")]
    return {
        "flow_runs": {"id": {"any_": pilots}},
        "task_runs": {"state": {"type": {"any_": ["FAILED"]}}},
    }


def test_the_run_in_prefect_failed_with_the_reason(site: Site, failed: Failed) -> None:
    (run,) = [r for r in site.flow_runs(failed.workflow) if r["name"] == "failing · broken-1"]
    state = site.api("GET", f"/flow_runs/{run['id']}")["state"]
    assert state["type"] == "FAILED"
    assert "3 of 8 jobs failed" in state["message"]


def test_retry_finishes_just_those_three_once_the_cause_is_gone(site: Site, failed: Failed) -> None:
    failed.mended.touch()
    report = site.json("workflow", "retry", failed.workflow, "--wait")
    assert report["workflow"]["state"] == "FINISHED"
    assert site.jobs(failed.workflow) == {"FINISHED": 8}
    tries = dict(
        site.rows(
            "SELECT key, count(*) FROM attempt JOIN job ON job.id = job_id"
            " JOIN task ON task.id = task_id WHERE workflow_id = ? GROUP BY 1",
            failed.workflow,
        )
    )
    assert tries == {f"broken-1/{n}": TRIES + 1 if n in BROKEN else 1 for n in FILES}
    made = site.outputs(failed.workflow, "check", "out")
    assert {key: path.read_bytes() for key, _, path in made} == {
        f"broken-1/{name}": content for name, content in FILES.items()
    }
    shown = site.json("dataset", "show", "broken-1.failing.v1.check.out")
    assert (shown["state"], shown["file_count"]) == ("CLOSED", 8)
    site.shown_as(failed.workflow, {"COMPLETED": 8, "FAILED": 3 * TRIES})
