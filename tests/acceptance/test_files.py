"""Real files through a template: what comes out, what is known of it, and what Prefect shows."""

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.driver import EXAMPLES, Site
from tests.acceptance.machine import until
from tests.integration.test_examples_cwltool import cwl_file, run_cwltool

pytestmark = pytest.mark.xdist_group("server")

LIBRARY = Path("/usr/lib")
COUNT = 200
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]*")


@dataclass(frozen=True)
class Digested:
    """The workflow over files of the operating system; `paths` by key."""

    workflow: int
    paths: dict[str, Path]
    seen: dict[str, tuple[int, int, int]]


def library_files() -> Iterator[Path]:
    """Regular files of the operating system below 1 MB, in the order of their names."""
    for path in sorted(LIBRARY.rglob("*")):
        plain = _PLAIN.fullmatch(path.relative_to(LIBRARY).as_posix())
        if plain and not path.is_symlink() and path.is_file() and path.stat().st_size < 2**20:
            yield path


def fingerprint(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_mode, found.st_mtime_ns


@pytest.fixture(scope="module")
def digested(site: Site) -> Digested:
    """200 files, registered where they lie, through the md5 template."""
    paths = [path for path, _ in zip(library_files(), range(COUNT), strict=False)]
    assert len(paths) == COUNT
    seen = {str(path): fingerprint(path) for path in paths}
    site.spdf("storage", "add", "syslib", LIBRARY, "--role", "input")
    site.dataset("files-1", paths)
    site.template(EXAMPLES / "md5" / "md5.cwl", "files-*[0-9]")
    end = site.json("workflow", "submit", "md5", "files-1", "--wait", limit_s=200)
    keys = {path.relative_to(LIBRARY).as_posix(): path for path in paths}
    return Digested(end["workflow"]["id"], keys, seen)


def test_outputs_are_what_md5sum_says(site: Site, digested: Digested) -> None:
    said = subprocess.run(
        ["md5sum", "--", *digested.paths.values()], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    expected = {
        f"{key}/{path.name}.md5": f"{line[:32]}  {path.name}\n"
        for (key, path), line in zip(digested.paths.items(), said, strict=True)
    }
    made = site.outputs(digested.workflow, "md5sum", "digest")
    assert {name: path.read_text() for _, name, path in made} == expected
    now = {name: fingerprint(Path(name)) for name in digested.seen}
    assert now == digested.seen, "what was registered in place is as it was"


@pytest.mark.cwltool
def test_outputs_are_what_cwltool_gives(site: Site, digested: Digested, tmp_path: Path) -> None:
    order = {"files": [cwl_file(path) for path in digested.paths.values()]}
    given, _ = run_cwltool(EXAMPLES / "md5" / "md5.cwl", order, tmp_path / "cwltool")
    theirs = sorted(Path(file["path"]).read_bytes() for file in given["digests"])
    made = site.outputs(digested.workflow, "md5sum", "digest")
    assert sorted(path.read_bytes() for _, _, path in made) == theirs


def test_a_copy_of_the_output_dataset_has_the_same_files(
    site: Site, digested: Digested, tmp_path: Path
) -> None:
    site.spdf("dataset", "get", "files-1.md5.v1.md5sum.digest", tmp_path)
    made = site.outputs(digested.workflow, "md5sum", "digest")
    got = {p.relative_to(tmp_path).as_posix(): p for p in tmp_path.rglob("*") if p.is_file()}
    assert {name: path.read_bytes() for name, path in got.items()} == {
        name: path.read_bytes() for _, name, path in made
    }


def test_the_catalog_says_that_all_of_it_is_done(site: Site, digested: Digested) -> None:
    assert site.state(digested.workflow) == "FINISHED"
    where = "WHERE workflow_id = ?"
    assert site.rows(f"SELECT state FROM task {where}", digested.workflow) == [("FINISHED",)]
    datasets = site.rows(
        f"SELECT d.port, d.state FROM dataset d JOIN task ON task.id = d.task_id {where}"
        " ORDER BY 1",
        digested.workflow,
    )
    assert datasets == [("digest", "CLOSED"), ("log", "CLOSED")]
    jobs = f"SELECT count(*) FROM job JOIN task ON task.id = task_id {where}"
    assert site.one(jobs, digested.workflow) == COUNT
    shown = site.json("dataset", "show", "files-1.md5.v1.md5sum.digest")
    assert (shown["state"], shown["file_count"], shown["now"]["files"]) == ("CLOSED", COUNT, COUNT)


def test_lineage_of_every_output_names_its_input(site: Site, digested: Digested) -> None:
    found = site.rows(
        "SELECT made.name, source.name FROM job_output o"
        " JOIN file made ON made.id = o.file_id"
        " JOIN job_input i ON i.job_id = o.job_id JOIN file source ON source.id = i.file_id"
        " JOIN job ON job.id = o.job_id JOIN task ON task.id = job.task_id WHERE workflow_id = ?",
        digested.workflow,
    )
    assert sorted(found) == sorted(
        (f"{key}/{path.name}.md5", key) for key, path in digested.paths.items()
    )
    key, path = next(iter(digested.paths.items()))
    member = site.one("SELECT file_id FROM dataset_file WHERE name = ?", f"{key}/{path.name}.md5")
    shown = site.json("file", "show", member)
    assert [raw["name"] for raw in shown["raw"]] == [key]


def test_prefect_has_one_completed_task_run_for_each_attempt(
    site: Site, digested: Digested
) -> None:
    attempts = site.attempts(digested.workflow)
    assert attempts == {"FINISHED": COUNT}
    site.shown_as(digested.workflow, {"COMPLETED": COUNT})
    names = set()
    for run in pilot_runs(site, digested.workflow):
        for offset in range(0, COUNT, 200):
            body = {"flow_runs": {"id": {"any_": [run["id"]]}}, "offset": offset, "limit": 200}
            names |= {found["name"] for found in site.api("POST", "/task_runs/filter", body)}
    assert names == {f"{key}#1" for key in digested.paths}


def pilot_runs(site: Site, workflow: int) -> list[dict[str, Any]]:
    return [run for run in site.flow_runs(workflow) if run["name"] == "md5sum · files-1"]


def test_runs_in_prefect_say_what_they_are(site: Site, digested: Digested) -> None:
    runs = {run["name"] for run in site.flow_runs(digested.workflow)}
    assert runs == {"md5 · files-1", "md5sum · files-1"}
    driver = next(r for r in site.flow_runs(digested.workflow) if r["name"] == "md5 · files-1")
    assert site.api("GET", f"/flows/{driver['flow_id']}")["name"] == "md5"
    assert site.api("GET", "/deployments/name/md5/md5")["id"] == driver["deployment_id"]
    ended = until(
        lambda: (r := site.api("GET", f"/flow_runs/{driver['id']}"))["end_time"] and r,
        "the workflow's flow run ends",
    )
    assert ended["state_type"] == "COMPLETED"


def test_progress_and_summary_are_artifacts_of_the_run(site: Site, digested: Digested) -> None:
    ended = site.one("SELECT ended_at FROM workflow WHERE id = ?", digested.workflow)
    assert ended is not None
    (driver,) = {r["id"] for r in site.flow_runs(digested.workflow) if r["name"] == "md5 · files-1"}

    def artifacts() -> dict[str, dict[str, Any]]:
        body = {"artifacts": {"flow_run_id": {"any_": [driver]}}}
        return {a["type"]: a for a in site.api("POST", "/artifacts/filter", body)}

    found = until(lambda: len(a := artifacts()) == 2 and a, "both artifacts are there")
    assert found["progress"]["data"] == 100.0
    (row,) = json.loads(found["table"]["data"])
    assert (row["stage"], row["jobs"], row["finished"], row["files out"]) == (
        "md5sum", COUNT, COUNT, COUNT,
    )  # fmt: skip
    assert row["wall s"] > 0
