"""A database that is killed in mid-run: pilots and the workflow's run wait, and lose nothing."""

import secrets
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import prefect
import psutil
import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from sqlalchemy.exc import DBAPIError

from catalog import datasets, intake, jobs, manifests, schema, storages, tasks, templates
from catalog.db import Catalog
from catalog.models import StorageKind, StorageRole
from catalog.pgprograms import program
from catalog.settings import Settings
from catalog.states import AttemptState, JobState, WorkflowState
from flows import templates as template_files
from flows.deployments import ensure_deployments
from flows.drive import End, drive
from flows.pools import ensure_pools
from flows.server import Server
from flows.services.postgres import Cluster
from flows.shift import Roster, Shift
from flows.submit import Submission, submit
from tests.servers.install import need
from tests.servers.postgres import PACKAGE, free_port, start, stop
from workers.slots import Capacity

pytestmark = pytest.mark.xdist_group("server")

FILES = 40
AWAY_S = 10.0

NAP = """
cwlVersion: v1.2
class: Workflow
requirements: {ScatterFeatureRequirement: {}}
inputs: {files: "File[]"}
outputs: {out: {type: "File[]", outputSource: nap/out}}
steps:
  nap:
    scatter: file
    in: {file: files}
    out: [out]
    run:
      class: CommandLineTool
      inputs: {file: File}
      baseCommand: [sh, -c]
      arguments: ['sleep 0.5; cat "$(inputs.file.path)"']
      stdout: out.txt
      outputs: {out: stdout}
"""


@dataclass
class Database:
    """A cluster of this test's own that keeps what it committed when it is killed."""

    cluster: Cluster
    log: Path
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        self.process = start(self.cluster, self.log)
        self.cluster.wait_ready()

    def kill(self) -> None:
        """Kill the server and every process that it started, which are the clients' backends."""
        server = psutil.Process(self.process.pid)
        family = [server, *server.children(recursive=True)]
        for process in family:
            process.send_signal(signal.SIGKILL)
        self.process.wait()
        psutil.wait_procs(family, timeout=10)


@pytest.fixture
def database() -> Iterator[Database]:
    """A running cluster that syncs to disk."""
    need(lambda: program("postgres"), PACKAGE)
    with tempfile.TemporaryDirectory(prefix="spdf-postgres-") as directory:
        cluster = Cluster(Path(directory), free_port(), "spdf", secrets.token_hex(8))
        cluster.prepare()
        made = Database(cluster, Path(directory, "log"))
        made.start()
        try:
            yield made
        finally:
            stop(made.process)


@pytest.fixture
def catalog(database: Database) -> Iterator[Catalog]:
    """An empty catalog in that cluster."""
    database.cluster.create_database("spdf")
    opened = Catalog(database.cluster.url("spdf"))
    schema.upgrade(opened)
    yield opened
    opened.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Leases that run out while the database is away."""
    return Settings(
        home=tmp_path / "home", slots=2, heartbeat_s=0.2, lease_s=4.0, workflow_lease_s=4.0,
        advance_s=0.1, commit_s=0.05, drain_s=1.0, max_pilots=1,
    )  # fmt: skip


@pytest.fixture
def workflow(catalog: Catalog, tmp_path: Path) -> int:
    """A workflow over files that take half a second each; its id."""
    with catalog.write() as session:
        for role in StorageRole:
            storages.add(session, role, StorageKind.LOCAL, role, str(tmp_path / role))
        places = storages.list_all(session)
    files = [tmp_path / "input" / f"f{number:02d}" for number in range(FILES)]
    for file in files:
        file.write_text(file.name)
    measured = intake.measure(files, places)
    with catalog.write() as session:
        dataset = datasets.create(session, "run-1")
        intake.add(session, dataset, measured)
        datasets.close(session, dataset)
    document = tmp_path / "nap.cwl"
    document.write_text(NAP)
    info, _ = template_files.create(catalog, document, mask="run-[0-9]")
    with catalog.write() as session:
        reference = templates.activate(session, info.id).ref
    return submit(catalog, Submission(reference, "run-1", {}))[0]


class Pilots(threading.Thread):
    """A node in place of Prefect's workers: one shift after the other, until it is stopped."""

    def __init__(self, catalog: Catalog, settings: Settings, task: int) -> None:
        super().__init__(name="pilots", daemon=True)
        self._catalog, self._settings = catalog, settings
        self._roster = Roster(task, "cpu", Capacity(2, 8192), None)
        self.end = threading.Event()
        self.faults: list[BaseException] = []

    def run(self) -> None:
        while not self.end.wait(0.1):
            try:
                with Shift(self._catalog, self._settings, self._roster) as shift:
                    shift.work(lambda window: [shift.begin_job(job) for job in window])
            except Exception as error:  # noqa: BLE001 - whatever it is, the test tells
                self.faults.append(error)


class Outage(threading.Thread):
    """Kills the database once some jobs are done, and starts it again a while later."""

    def __init__(self, database: Database, catalog: Catalog, workflow: int) -> None:
        super().__init__(name="outage", daemon=True)
        self._database, self._catalog, self._workflow = database, catalog, workflow
        self.end = threading.Event()
        self.done_before, self.refused = 0, False

    def run(self) -> None:
        while self.done_before < 6:
            if self.end.wait(0.1):
                return
            with self._catalog.read() as session:
                (row,) = tasks.progress(session, self._workflow)
            self.done_before = row.jobs.get(JobState.FINISHED, 0)
        self._database.kill()
        time.sleep(AWAY_S)
        try:
            with self._catalog.read() as session:
                storages.list_all(session)
        except DBAPIError:
            self.refused = True
        self._database.start()


@pytest.fixture
def server(prefect_server: Server) -> Iterator[None]:
    """Prefect with its pools and deployments, but nobody who serves them."""
    login = prefect_server.auth
    with SyncPrefectClient(prefect_server.api_url, auth_string=login) as client:
        ensure_pools(client, gpu=False)
        ensure_deployments(client, pools=("control", "cpu"), watchdog_s=60)
    with temporary_settings(
        {PREFECT_API_URL: prefect_server.api_url, PREFECT_API_AUTH_STRING: login}
    ):
        yield


def test_a_run_outlives_a_killed_database_with_every_job_done_once(
    database: Database, catalog: Catalog, settings: Settings, workflow: int, server: None
) -> None:
    with catalog.read() as session:
        (task,) = tasks.of_workflow(session, workflow)
    node, outage = Pilots(catalog, settings, task.id), Outage(database, catalog, workflow)

    @flow(name="outage")
    def run_workflow() -> End:
        return drive(catalog, settings, workflow, prefect.runtime.flow_run.id)

    for thread in (node, outage):
        thread.start()
    try:
        end = run_workflow()
    finally:
        for thread in (outage, node):
            thread.end.set()
            thread.join(60)
            assert not thread.is_alive()
    assert end.state is WorkflowState.FINISHED, end.message
    assert 6 <= outage.done_before < FILES and outage.refused, "it was away in the middle"
    assert node.faults == []
    with catalog.read() as session:
        rows = jobs.list_jobs(session, workflow_id=workflow, limit=1000)
        history = jobs.attempts(session, [row.id for row in rows])
        out = datasets.by_name(session, "run-1.nap.v1.nap.out")
        members = manifests.members(session, out.id, limit=1000)
        (place,) = [info.url for info in storages.list_all(session) if info.id == out.storage_id]
    assert len(rows) == FILES and {row.state for row in rows} == {JobState.FINISHED}
    states = [[attempt.state for attempt in history[row.id]] for row in rows]
    assert states == [[AttemptState.FINISHED]] * FILES, "nobody was taken for dead meanwhile"
    assert (out.file_count, len({member.key for member in members})) == (FILES, FILES)
    assert len(list(Path(place).rglob("*.out.txt"))) == FILES, "no bytes but those that rows name"
