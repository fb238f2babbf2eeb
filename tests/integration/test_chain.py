"""Whole chains on real files, with a pilot's shift and the advancer, without a Prefect server."""

import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from catalog import (
    datasets,
    intake,
    jobfiles,
    jobs,
    lineage,
    manifests,
    ownership,
    pilots,
    storages,
    tasks,
    templates,
    workflows,
)
from catalog.backup import back_up, restore
from catalog.db import Catalog
from catalog.drivers import driver_for
from catalog.errors import ErrorCode
from catalog.models import StorageKind, StorageRole
from catalog.refs import JobResult
from catalog.settings import Settings
from catalog.states import (
    AttemptState,
    DatasetState,
    JobState,
    PilotState,
    WorkflowState,
    is_final,
)
from flows import templates as template_files
from flows.advance import Chain, advance, load
from flows.shift import Roster, Shift, idle
from flows.submit import Submission, submit
from workers.job import RunningJob
from workers.slots import Capacity

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@dataclass
class Site:
    """A catalog with its storages in a directory of the test's own."""

    catalog: Catalog
    settings: Settings
    home: Path
    chains: dict[int, Chain] = field(default_factory=dict)

    def dataset(self, name: str, files: Mapping[str, bytes]) -> int:
        """A closed dataset of these files."""
        with self.catalog.write() as session:
            dataset = datasets.create(session, name)
        self.add(dataset, name, files)
        with self.catalog.write() as session:
            datasets.close(session, dataset)
        return dataset

    def add(self, dataset: int, name: str, files: Mapping[str, bytes]) -> None:
        root = self.home / "input"
        paths = []
        for file, content in files.items():
            path = root / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            paths.append(path)
        with self.catalog.read() as session:
            places = storages.list_all(session)
        measured = intake.measure(paths, places)
        with self.catalog.write() as session:
            intake.add(session, dataset, measured)

    def template(self, path: Path, mask: str | None = None) -> str:
        info, _ = template_files.create(self.catalog, path, mask=mask)
        with self.catalog.write() as session:
            return templates.activate(session, info.id).ref

    def submit(self, template: str, dataset: str, **inputs: Any) -> Chain:
        workflow, _ = submit(self.catalog, Submission(template, dataset, inputs))
        return self.own(workflow)

    def own(self, workflow: int) -> Chain:
        with self.catalog.write() as session:
            epoch = ownership.claim(session, workflow, "test", 600.0, None)
        assert epoch is not None
        return load(self.catalog, workflow, epoch, 600.0)

    def shift(self, chain: Chain, stage: str) -> int:
        """A pilot's whole shift for one stage."""
        roster = Roster(chain.task_ids[stage], "cpu", Capacity(2, 8192), None)
        with Shift(self.catalog, self.settings, roster) as shift:
            return shift.work(submitter(shift))

    def run(self, chain: Chain, rounds: int = 30) -> WorkflowState:
        """Advance and send pilots in turn until the workflow ends."""
        for _ in range(rounds):
            state = advance(chain)
            if is_final(state):
                return state
            with self.catalog.read() as session:
                ready = {i: tasks.count_ready(session, i, 10_000) for i in chain.task_ids.values()}
            for stage, task_id in chain.task_ids.items():
                if ready[task_id]:
                    self.shift(chain, stage)
            time.sleep(0.05)
        raise AssertionError("the workflow did not end")

    def contents(self, dataset: str) -> dict[str, bytes]:
        found = {}
        with self.catalog.read() as session:
            info = datasets.by_name(session, dataset)
            drivers = {s.id: driver_for(s) for s in storages.list_all(session)}
            for file in manifests.members(session, info.id, limit=10_000, with_replicas=True):
                replica = file.replicas[0]
                with drivers[replica.storage_id].open(replica.path) as stream:
                    found[file.name] = stream.read()
        return found


def submitter(shift: Shift) -> Callable[[Sequence[RunningJob]], list[Any]]:
    return lambda window: [shift.begin_job(job) for job in window]


@pytest.fixture
def site(catalog: Catalog, tmp_path: Path) -> Site:
    """An empty site with an input, an internal and an output storage."""
    settings = Settings(
        home=tmp_path / "home",
        slots=2,
        heartbeat_s=0.2,
        lease_s=5.0,
        drain_s=1.0,
        commit_s=0.05,
        pilot_idle_s=0.2,
    )
    with catalog.write() as session:
        for role in StorageRole:
            storages.add(session, role, StorageKind.LOCAL, role, str(tmp_path / role))
    return Site(catalog, settings, tmp_path)


def slices(count: int) -> dict[str, bytes]:
    return {f"slice-{i:03d}.raw": f"payload {i}\n".encode() * (i + 1) for i in range(count)}


def test_md5_of_every_file_is_that_of_its_content(site: Site) -> None:
    files = slices(12)
    site.dataset("files-1", files)
    chain = site.submit(site.template(EXAMPLES / "md5" / "md5.cwl"), "files-1")
    assert site.run(chain) is WorkflowState.FINISHED
    (stage,) = chain.plan.stages
    out = f"files-1.md5.v1.{stage.name}.{stage.step.outputs[0].name}"
    made = site.contents(out)
    assert len(made) == 12
    for name, content in made.items():
        key = name.rpartition("/")[0]
        assert hashlib.md5(files[key.partition("/")[2]]).hexdigest() in content.decode()
    with site.catalog.read() as session:
        assert datasets.by_name(session, out).state is DatasetState.CLOSED
        for file in manifests.members(session, datasets.by_name(session, out).id):
            roots = lineage.lineage(session, file.id).raw
            assert [root.name for root in roots] == [file.name.rpartition("/")[0]]
        assert pilots.list_pilots(session)[0].state is PilotState.DONE
    assert not list((site.settings.work_dir or Path()).glob("pilot-*")), "no work is left behind"


def test_a_restored_catalog_does_again_what_it_does_not_know(site: Site, tmp_path: Path) -> None:
    def let_go(chain: Chain) -> None:
        with site.catalog.write() as session:
            ownership.release(session, chain.workflow_id, chain.epoch)

    site.dataset("files-1", slices(3))
    chain = site.submit(site.template(EXAMPLES / "md5" / "md5.cwl"), "files-1")
    advance(chain)
    let_go(chain)
    made = back_up(site.catalog, tmp_path / "backup")
    chain = site.own(chain.workflow_id)
    assert site.run(chain) is WorkflowState.FINISHED
    let_go(chain)
    (stage,) = chain.plan.stages
    out = f"files-1.md5.v1.{stage.name}.{stage.step.outputs[0].name}"
    before = site.contents(out)

    restore(site.catalog, made.path, replace=True)
    with site.catalog.read() as session:
        assert datasets.by_name(session, out).state is DatasetState.OPEN
    chain = site.own(chain.workflow_id)
    assert site.run(chain, rounds=300) is WorkflowState.FINISHED
    assert site.contents(out) == before
    with site.catalog.read() as session:
        rows = jobs.list_jobs(session, workflow_id=chain.workflow_id)
        history = jobs.attempts(session, [row.id for row in rows])
    tries = [[attempt.error for attempt in history[row.id]] for row in rows]
    assert tries == [["OUTPUT_EXISTS", None]] * 3, "what was stored since is not overwritten"


FAILING = """
cwlVersion: v1.2
class: Workflow
$namespaces: {spdf: "https://spdf.readthedocs.io/ns#"}
requirements: {ScatterFeatureRequirement: {}}
inputs: {files: "File[]", flag: string}
outputs: {out: {type: "File[]", outputSource: check/out}}
steps:
  check:
    scatter: file
    in: {file: files, flag: flag}
    out: [out]
    hints: {"spdf:Stage": {retry: 1}}
    run:
      class: CommandLineTool
      inputs: {file: File, flag: string}
      baseCommand: [sh, -c]
      arguments:
        - |
          echo about $(inputs.file.basename) >&2
          test -e "$(inputs.flag)" && { cp "$(inputs.file.path)" good; exit 0; }
          case $(inputs.file.basename) in
            *000.raw) exit 0;;
            *001.raw) exit 7;;
            *002.raw) kill -9 $$;;
            *) cp "$(inputs.file.path)" good;;
          esac
      outputs: {out: {type: File, outputBinding: {glob: good}}}
"""


def test_three_that_fail_are_retried_named_and_finished_after_the_cause_is_gone(
    site: Site, tmp_path: Path
) -> None:
    path = tmp_path / "failing.cwl"
    path.write_text(FAILING)
    site.dataset("run-1", slices(6))
    flag = tmp_path / "mended"
    chain = site.submit(site.template(path, "run-[0-9]"), "run-1", flag=str(flag))
    assert site.run(chain) is WorkflowState.FAILED
    with site.catalog.read() as session:
        rows = jobs.list_jobs(session, workflow_id=chain.workflow_id)
        history = jobs.attempts(session, [row.id for row in rows])
        info = workflows.get(session, chain.workflow_id)
    by_key = {row.key.partition("/")[2]: row for row in rows}
    failed = {key for key, row in by_key.items() if row.state is JobState.FAILED}
    assert failed == {"slice-000.raw", "slice-001.raw", "slice-002.raw"}
    assert by_key["slice-000.raw"].error == "OUTPUT_MISSING"
    assert (by_key["slice-001.raw"].error, by_key["slice-001.raw"].exit_code) == (
        "PAYLOAD_FAILED",
        7,
    )
    assert by_key["slice-002.raw"].error == "PAYLOAD_KILLED"
    for key in failed:
        tries = history[by_key[key].id]
        assert [a.state for a in tries] == [AttemptState.FAILED] * 2, "retry: 1 means two attempts"
        assert f"about {key}" in (tries[-1].log_tail or "")
        assert tries[-1].log_file_id is not None
    assert "3 of 6 jobs failed" in (info.reason or "")
    flag.touch()
    with site.catalog.write() as session:
        assert workflows.retry(session, chain.workflow_id) == 3
    time.sleep(0.01)
    assert site.run(site.own(chain.workflow_id)) is WorkflowState.FINISHED
    with site.catalog.read() as session:
        history = jobs.attempts(session, [row.id for row in rows])
    again = {row.key.partition("/")[2] for row in rows if len(history[row.id]) == 3}
    assert again == failed, "just those three ran again"
    assert len(site.contents("run-1.failing.v1.check.out")) == 6


def test_an_input_that_the_payload_changes_is_found_and_its_replica_is_bad(
    site: Site, tmp_path: Path
) -> None:
    path = tmp_path / "vandal.cwl"
    head, _, tail = FAILING.partition("          echo about")
    script = """          chmod u+w "$(inputs.file.path)"
          echo more >> "$(inputs.file.path)"
          touch good
"""
    path.write_text(f"{head}{script}      outputs:{tail.partition('      outputs:')[2]}")
    site.dataset("run-1", slices(1))
    chain = site.submit(site.template(path, "run-[0-9]"), "run-1", flag=str(tmp_path / "no"))
    assert site.run(chain) is WorkflowState.FAILED
    with site.catalog.read() as session:
        (row,) = jobs.list_jobs(session, workflow_id=chain.workflow_id)
        (refs,) = jobfiles.file_refs(session, [1]).values()
    assert (row.error, row.attempt) == ("INPUT_MODIFIED", 1)
    assert refs.replicas == (), "a replica that was written to is no longer AVAILABLE"


MERGING = """
cwlVersion: v1.2
class: Workflow
requirements: {ScatterFeatureRequirement: {}, InlineJavascriptRequirement: {}}
inputs: {files: "File[]", x: double}
outputs: {all: {type: File, outputSource: merge/all}}
steps:
  map:
    scatter: file
    in: {file: files}
    out: [sum]
    run: {class: CommandLineTool, baseCommand: cat, stdin: $(inputs.file.path),
          stdout: sum.txt, inputs: {file: File}, outputs: {sum: stdout}}
  merge:
    in: {sums: map/sum, x: x}
    out: [all]
    run:
      class: CommandLineTool
      requirements:
        InitialWorkDirRequirement: {listing: [LISTED]}
      baseCommand: [sh, -c, 'cat "$@"; echo $0']
      arguments: [$(inputs.x)]
      stdout: all.txt
      inputs: {sums: {type: "File[]", inputBinding: {position: 1}}, x: double}
      outputs: {all: stdout}
"""
LINES = {f"{n}.raw": f"line {n}\n".encode() for n in range(3)}


def test_inputs_of_one_name_in_one_work_folder_fail_and_are_named(
    site: Site, tmp_path: Path
) -> None:
    path = tmp_path / "listing.cwl"
    path.write_text(MERGING.replace("LISTED", '"$(inputs.sums.slice())"'))
    site.dataset("run-1", LINES)
    chain = site.submit(site.template(path, "run-[0-9]"), "run-1", x="1")
    assert site.run(chain) is WorkflowState.FAILED
    with site.catalog.read() as session:
        rows = jobs.list_jobs(session, task_id=chain.task_ids["merge"])
        history = jobs.attempts(session, [row.id for row in rows])
    (row,) = rows
    assert (row.error, len(history[row.id])) == (ErrorCode.BAD_JOB_INPUT, 1)
    message = history[row.id][0].message or ""
    assert message.count(".sum.txt") == 2 and "at 'sum.txt'" in message


@pytest.mark.parametrize("spelt", ["1e16", "10000000000000000"])
def test_a_merge_has_every_input_of_one_name_and_a_number_as_it_was(
    site: Site, tmp_path: Path, spelt: str
) -> None:
    path = tmp_path / "merging.cwl"
    path.write_text(MERGING.replace("LISTED", ""))
    site.dataset("run-1", LINES)
    chain = site.submit(site.template(path, "run-[0-9]"), "run-1", x=spelt)
    assert site.run(chain) is WorkflowState.FINISHED
    (made,) = site.contents("run-1.merging.v1.merge.all").values()
    assert made == b"line 0\nline 1\nline 2\n10000000000000000\n"
    with site.catalog.read() as session:
        kept = workflows.get(session, chain.workflow_id).inputs["x"]
    assert (kept, type(kept)) == (1e16, float)


SLEEPER = """
cwlVersion: v1.2
class: Workflow
requirements: {ScatterFeatureRequirement: {}}
inputs: {files: "File[]", seconds: string}
outputs: {out: {type: "File[]", outputSource: nap/out}}
steps:
  nap:
    scatter: file
    in: {file: files, seconds: seconds}
    out: [out]
    run:
      class: CommandLineTool
      inputs: {file: File, seconds: {type: string, inputBinding: {position: 1}}}
      baseCommand: sleep
      stdout: out.txt
      outputs: {out: stdout}
"""


def test_cancelling_kills_payloads_within_a_heartbeat(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "nap.cwl"
    path.write_text(SLEEPER)
    site.dataset("run-1", slices(4))
    chain = site.submit(site.template(path, "run-[0-9]"), "run-1", seconds="300")
    advance(chain)
    thread = threading.Thread(target=site.shift, args=(chain, "nap"), daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not children("sleep") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert children("sleep")
    with site.catalog.write() as session:
        workflows.cancel(session, chain.workflow_id, "by hand")
    thread.join(20)
    assert not thread.is_alive()
    assert not children("sleep")
    with site.catalog.read() as session:
        states = {row.state for row in jobs.list_jobs(session, workflow_id=chain.workflow_id)}
    assert states == {JobState.CANCELLED}


class Watched:
    """A pilot on an OPEN dataset, given files one at a time; counts its thoughts of going."""

    def __init__(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        self.site, self.thoughts = site, 0
        think = idle.Idle.reason_to_go

        def counted(pilot: idle.Idle) -> str | None:
            self.thoughts += 1
            return think(pilot)

        monkeypatch.setattr(idle.Idle, "reason_to_go", counted)
        monkeypatch.setattr(idle, "_THINK_S", 0.0)
        monkeypatch.setattr(idle, "_OVER_S", 0.0)
        with site.catalog.write() as session:
            self.dataset = datasets.create(session, "files-1")
        template = site.template(EXAMPLES / "md5" / "md5.cwl")
        self.chain = site.submit(template, "files-1")
        (self.stage,) = self.chain.plan.stages
        self.thread = threading.Thread(
            target=site.shift, args=(self.chain, self.stage.name), daemon=True
        )

    def give(self, number: int) -> None:
        """One more file becomes a job."""
        self.site.add(self.dataset, "files-1", {f"f{number}": b"%d" % number})
        advance(self.chain)

    def finished(self) -> int:
        with self.site.catalog.read() as session:
            rows = jobs.list_jobs(session, workflow_id=self.chain.workflow_id)
        return sum(row.state is JobState.FINISHED for row in rows)

    def until(self, there: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not there():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def pilot(self) -> pilots.PilotInfo:
        with self.site.catalog.read() as session:
            (info,) = pilots.list_pilots(session, workflow_id=self.chain.workflow_id)
        return info


def test_a_pilot_stays_while_its_input_is_open_and_goes_when_it_is_closed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.settings = site.settings.model_copy(update={"pilot_idle_s": 3600.0})
    watched = Watched(site, monkeypatch)
    watched.give(0)
    watched.thread.start()
    for count in range(1, 4):
        watched.until(lambda count=count: watched.finished() == count)  # type: ignore[misc]
        begun = watched.thoughts
        watched.until(lambda begun=begun: watched.thoughts > begun + 2)  # type: ignore[misc]
        assert watched.pilot().state is PilotState.ACTIVE
        if count < 3:
            watched.give(count)
    with site.catalog.write() as session:
        datasets.close(session, watched.dataset)
    watched.thread.join(30)
    assert (watched.pilot().state, watched.pilot().jobs_done) == (PilotState.DONE, 3)


def test_a_pilot_without_files_goes_after_its_time_though_its_input_is_open(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(site, monkeypatch)
    watched.give(0)
    watched.thread.start()
    watched.thread.join(30)
    assert (watched.pilot().state, watched.pilot().jobs_done) == (PilotState.DONE, 1)


def test_the_end_of_a_lone_job_is_committed_without_waiting_for_company(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.settings = site.settings.model_copy(update={"commit_s": 3600.0, "drain_s": 1.0})
    watched = Watched(site, monkeypatch)
    watched.give(0)
    watched.thread.start()
    watched.thread.join(30)
    assert not watched.thread.is_alive()
    assert watched.finished() == 1


def test_a_shift_that_is_over_keeps_nothing_of_the_node_open(site: Site) -> None:
    site.dataset("files-1", {"a": b"a", "b": b"b"})
    chain = site.submit(site.template(EXAMPLES / "md5" / "md5.cwl"), "files-1")
    advance(chain)
    roster = Roster(chain.task_ids["md5sum"], "cpu", Capacity(2, 8192), None)
    with Shift(site.catalog, site.settings, roster) as shift:
        assert shift.work(submitter(shift)) == 2
    assert site.settings.work_dir is not None
    opened = [fd.readlink() for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()]
    assert [path for path in opened if path.is_relative_to(site.settings.work_dir)] == []


def children(program: str) -> list[int]:
    """Processes of that program below this one."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if process.name() == program and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def test_the_spd_chain_end_to_end(site: Site, tmp_path: Path) -> None:
    import subprocess
    import sys

    made = tmp_path / "simulated"
    subprocess.run(
        [
            sys.executable,
            EXAMPLES / "spd" / "simulate.py",
            *("--files", "3", "--run", "1", "--seed", "5", "--outdir", made),
        ],
        check=True,
        capture_output=True,
    )
    raw = {path.name: path.read_bytes() for path in sorted((made / "slices").glob("*.raw"))}
    assert len(raw) == 3
    site.dataset("run-0001", raw)
    template = site.template(EXAMPLES / "spd" / "chain.cwl")
    (calibration,) = made.glob("calib*")
    chain = site.submit(template, "run-0001", calibration=str(calibration))
    assert site.run(chain) is WorkflowState.FINISHED
    with site.catalog.read() as session:
        counts = {p.task.stage: p.total for p in tasks.progress(session, chain.workflow_id)}
    assert counts == {"decode": 3, "reconstruct": 3, "select": 3, "merge": 1}


def test_an_output_that_is_gone_before_it_is_on_the_disk_is_made_again(site: Site) -> None:
    site.dataset("files-1", {"a": b"1", "b": b"2", "c": b"3"})
    template = site.template(EXAMPLES / "md5" / "md5.cwl")
    chain = site.submit(template, "files-1")
    advance(chain)
    lost: list[Path] = []

    def lose_one(shift: Shift) -> None:
        put = shift._committer.put

        def losing(result: JobResult) -> None:
            if result.files and not lost and "/b/" in result.files[0].name:
                lost.extend(site.home.glob(f"*/{result.files[0].path}"))
                lost[0].unlink()
            put(result)

        shift._committer.put = losing  # type: ignore[method-assign]

    roster = Roster(chain.task_ids["md5sum"], "cpu", Capacity(2, 8192), None)
    with Shift(site.catalog, site.settings, roster) as shift:
        lose_one(shift)
        shift.work(submitter(shift))
    site.run(chain)
    assert len(lost) == 1
    with site.catalog.read() as session:
        listed = jobs.list_jobs(session, workflow_id=chain.workflow_id)
        rows = {job.key.rpartition("/")[2]: job for job in listed}
        history = jobs.attempts(session, [rows["b"].id])[rows["b"].id]
    assert {key: job.attempt for key, job in rows.items()} == {"a": 1, "b": 2, "c": 1}
    assert [(one.state, one.error) for one in history] == [
        (AttemptState.FAILED, ErrorCode.OUTPUT_UNWRITABLE), (AttemptState.FINISHED, None),
    ]  # fmt: skip
    outputs = site.contents("files-1.md5.v1.md5sum.digest")
    assert sorted(name.split("/")[1] for name in outputs) == ["a", "b", "c"]
