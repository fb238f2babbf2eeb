"""Fixtures of the command line's tests: an SPDF_HOME, the command, and a node without a server."""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from catalog import db, ownership, storages, tasks
from catalog.db import Catalog
from catalog.settings import Settings, get_settings
from catalog.states import TaskState, is_final
from catalog.storages import StorageInfo
from cli.main import run
from flows.advance import advance, load
from flows.defaults import add_default_storages
from flows.shift import Roster, Shift
from workers.slots import Capacity

CUT = """
cwlVersion: v1.2
class: Workflow
doc: The first bytes of every file; a file that starts with `bad` fails.
requirements: {ScatterFeatureRequirement: {}}
inputs:
  files: "File[]"
  count: {type: int, default: 4, doc: Bytes to keep}
outputs: {heads: {type: "File[]", outputSource: cut/head}}
steps:
  cut:
    scatter: file
    in: {file: files, count: count}
    out: [head]
    run:
      class: CommandLineTool
      baseCommand: [sh, -c]
      arguments:
        - >-
          echo cutting $(inputs.file.basename) >&2; grep -qv "^bad" "$0" || exit 9;
          head -c "$1" "$0"
      inputs:
        file: {type: File, inputBinding: {position: 1}}
        count: {type: int, inputBinding: {position: 2}}
      stdout: $(inputs.file.nameroot).head
      outputs: {head: stdout}
"""


@dataclass(frozen=True)
class Done:
    """An ended command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)


Spdf = Callable[..., Done]


@pytest.fixture
def bare_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An SPDF_HOME in which nothing has happened yet."""
    home = tmp_path / "home"
    for name in ("SPDF_CATALOG_URL", "PREFECT_API_URL", "SPDF_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SPDF_HOME", str(home))
    get_settings.cache_clear()
    db._catalog.cache_clear()
    yield home
    if home.exists():
        db.get_catalog().close()
    get_settings.cache_clear()
    db._catalog.cache_clear()


@pytest.fixture
def home(bare_home: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An SPDF_HOME with this test's catalog and the default storages."""
    bare_home.mkdir()
    monkeypatch.setenv("SPDF_CATALOG_URL", catalog.url.render_as_string(hide_password=False))
    add_default_storages(catalog, get_settings())
    return bare_home


@pytest.fixture
def buffer(home: Path, catalog: Catalog) -> Path:
    """The directory of the input storage."""
    with catalog.read() as session:
        info: StorageInfo = storages.by_name(session, "buffer")
    return Path(info.url)


@pytest.fixture
def spdf(
    bare_home: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Spdf:
    """The command, run in this process by its entry point."""

    def call(*words: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["spdf", *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            run()
        out, err = capfd.readouterr()
        return Done(int(ended.value.code or 0), out, err)

    return call


@pytest.fixture
def ok(spdf: Spdf) -> Spdf:
    """The command, which has to succeed."""

    def call(*words: object) -> Done:
        done = spdf(*words)
        assert done.code == 0, f"{words}: exit code {done.code}: {done.err}"
        return done

    return call


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    """The template of these tests."""
    path = tmp_path / "cut.cwl"
    path.write_text(CUT)
    return path


@pytest.fixture
def dataset(buffer: Path, ok: Spdf) -> str:
    """A closed dataset of three files; the payload fails for one."""
    contents = {"a.txt": "alpha", "b.txt": "bad", "c.txt": "gamma"}
    for name, text in contents.items():
        (buffer / name).write_text(text)
    ok("dataset", "create", "run-1")
    ok("dataset", "add", "run-1", *(buffer / name for name in contents))
    ok("dataset", "close", "run-1")
    return "run-1"


@dataclass(frozen=True)
class Bench:
    """A node and an advancer in this process, in place of the server's."""

    catalog: Catalog
    settings: Settings

    def finish(self, workflow_id: int) -> None:
        """Work until a workflow is final."""
        with self.catalog.write() as session:
            epoch = ownership.claim(session, workflow_id, "test", 60.0, None)
        assert epoch is not None
        chain = load(self.catalog, workflow_id, epoch, 60.0)
        while not is_final(advance(chain)):
            with self.catalog.read() as session:
                open_tasks = [
                    task.id
                    for task in tasks.of_workflow(session, workflow_id)
                    if task.state is TaskState.IN_PROGRESS
                ]
                ready = {i: tasks.count_ready(session, i, 10_000) for i in open_tasks}
            for task_id in (task_id for task_id, count in ready.items() if count):
                self._work(task_id)

    def _work(self, task_id: int) -> None:
        roster = Roster(task_id, "cpu", Capacity(1, 4096), flow_run_id=None)
        with Shift(self.catalog, self.settings, roster) as shift:
            shift.work(lambda window: [shift.begin_job(job) for job in window])


@pytest.fixture
def bench(home: Path, catalog: Catalog) -> Bench:
    """Runs workflows to their end."""
    settings = get_settings().model_copy(
        update={"pilot_shift_jobs": 1, "commit_s": 0.01, "slots": 2}
    )
    return Bench(catalog, settings)


@pytest.fixture
def failed(bench: Bench, cut: Path, dataset: str, ok: Spdf, catalog: Catalog) -> int:
    """A workflow that FAILED with two files done and one not; its id."""
    from flows.submit import Submission, submit

    ok("template", "create", cut, "--mask", "run-?", "--activate")
    workflow, _ = submit(catalog, Submission("cut", dataset, {"count": "2"}))
    bench.finish(workflow)
    return workflow
